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
            message := head || 'null,"row": null,"old": null,"changed": null,"reduced": null' || tail;
            [[make_truncate]]
        ELSE
            [[make]]
        END IF;
    EXCEPTION WHEN OTHERS OR ASSERT_FAILURE THEN
        [[fail]]
    END;
    [[send]]
    RETURN NULL;
END
