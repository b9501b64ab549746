-- Made by pgpubsub. It tells of one change and never fails: what goes wrong is a warning, and is counted.
DECLARE
    its_key text := 'null';
    its_old_key text := '';
    its_row text := 'null';
    its_old text := 'null';
    its_changes text := 'null';
    text_key text;
    head text;
    tail text;
    message text;
    its_wake text;
BEGIN
    IF TG_OP = 'UPDATE' AND NOT ([[differs]]) THEN
        RETURN NULL;
    END IF;
    BEGIN
        IF TG_OP <> 'TRUNCATE' AND ([[when]]) IS NOT TRUE THEN
            RETURN NULL;
        END IF;
        IF TG_OP = 'INSERT' THEN
            its_key := [[new_key]];
            its_row := [[new_row]];
            text_key := [[new_text_key]];
        ELSIF TG_OP = 'UPDATE' THEN
            its_key := [[new_key]];
            its_row := [[new_row]];
            its_old := [[old_row]];
            its_changes := [[changes]];
            text_key := [[new_text_key]];
            IF [[moved]] THEN
                its_old_key := ',"old_key":' || [[old_key]];
            END IF;
        ELSIF TG_OP = 'DELETE' THEN
            its_key := [[old_key]];
            its_old := [[old_row]];
            text_key := [[old_text_key]];
        END IF;
        head := '{"op":"' || lower(TG_OP) || [[place]];
        tail := ',"xid":' || pg_current_xact_id() || ',"at":' || to_json(clock_timestamp()) || '}';
        message := head || its_key || its_old_key || ',"row":' || its_row || ',"old":' || its_old || ',"changed":'
                   || its_changes || ',"reduced":null' || tail;
        [[send]]
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING [[warning]], SQLERRM USING ERRCODE = SQLSTATE;
        BEGIN
            PERFORM nextval([[failures]]);
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
        BEGIN  -- then that something has changed, at least
            text_key := NULL;
            message := '{"op":"' || lower(TG_OP) || [[place]] || 'null,"row":null,"old":null,"changed":null,"reduced":"nothing"'
                       || ',"xid":' || pg_current_xact_id() || ',"at":' || to_json(clock_timestamp()) || '}';
            [[send_as_it_is]]
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END;
    RETURN NULL;
END
