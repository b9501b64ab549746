-- Made by pgpubsub. It tells of all that a statement has changed and never fails: what goes wrong is a warning, and is
-- counted.
#variable_conflict use_column
DECLARE
    total bigint;
    its_keys text;
    listed bigint;
    concerned bigint;
    room int;
    head text;
    tail text;
    message text;
    text_key text;
    its_wake text;
BEGIN
    BEGIN
        head := '{"op":"' || lower(TG_OP) || [[place]];
        tail := ',"xid":' || coalesce(pg_current_xact_id_if_assigned()::text, 'null')
                || ',"at":' || to_json(clock_timestamp()) || '}';
        IF TG_OP = 'TRUNCATE' THEN
            message := head || 'null,"row":null,"old":null,"changed":null,"reduced":null' || tail;
            [[send_as_it_is]]
            RETURN NULL;
        END IF;
        [[tell]]
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING [[warning]], SQLERRM USING ERRCODE = SQLSTATE;
        BEGIN
            PERFORM nextval([[failures]]);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        BEGIN  -- then that something has changed, at least
            message := '{"op":"' || lower(TG_OP) || [[place]] || 'null,"row":null,"old":null,"changed":null,"reduced":"nothing"'
                       || ',"xid":null,"at":' || to_json(clock_timestamp()) || '}';
            [[send_as_it_is]]
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END;
    RETURN NULL;
END
