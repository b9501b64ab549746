-- Made by pgpubsub. It tells of one change and never fails: what goes wrong is a warning, and is counted.
#variable_conflict use_column
DECLARE
    message text;
    text_key text;
    its_key text;
    its_changes text;
    moved_from text := '';
    head text;
    tail text;
    its_wake text;
BEGIN
    BEGIN
        IF TG_OP <> 'TRUNCATE' AND [[when]] IS NOT TRUE THEN
            RETURN NULL;
        ELSIF TG_OP = 'INSERT' THEN
            message := '{"op":"insert' || [[place]] || [[new_key]] || ',"row":' || [[new_row]]
                       || ',"old": null,"changed": null,"reduced": null' || [[tail]];
        ELSIF TG_OP = 'UPDATE' THEN
            its_changes := [[changes]];
            IF its_changes IN ('{}', 'null') AND NOT [[differs]] THEN
                RETURN NULL;
            END IF;
            message := '{"op":"update' || [[place]] || [[new_key]] || [[moved_from]] || ',"row":' || [[new_row]]
                       || ',"old":' || [[old_row]] || ',"changed":' || its_changes || ',"reduced": null' || [[tail]];
        ELSIF TG_OP = 'DELETE' THEN
            message := '{"op":"delete' || [[place]] || [[old_key]] || ',"row": null,"old":' || [[old_row]]
                       || ',"changed": null,"reduced": null' || [[tail]];
        ELSE
            message := '{"op":"truncate' || [[place]] || 'null,"row": null,"old": null,"changed": null,"reduced": null' || [[tail]];
        END IF;
        [[make]]
    EXCEPTION WHEN OTHERS OR ASSERT_FAILURE THEN
        [[fail]]
    END;
    [[send]]  -- outside, since a notification sent within a block with exceptions keeps its memory until the end
    RETURN NULL;
END
