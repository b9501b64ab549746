IF octet_length(message) > 7999 THEN
    IF TG_OP = 'DELETE' THEN
        its_key := [[old_key]];
    ELSE
        its_key := [[new_key]];
        IF TG_OP = 'UPDATE' THEN
            its_key := its_key || [[moved_from]];
            its_row := [[new_row]];
            its_changes := [[changes]];
            message := '{"op":"update' || [[place]] || its_key || ',"row":' || its_row || ',"old": null,"changed":' || its_changes
                       || ',"reduced":"row"' || [[tail]];
            IF octet_length(message) > 7999 THEN
                message := '{"op":"update' || [[place]] || its_key || ',"row": null,"old": null,"changed":' || its_changes
                           || ',"reduced":"changed"' || [[tail]];
            END IF;
        END IF;
    END IF;
    IF octet_length(message) > 7999 THEN
        message := '{"op":"' || lower(TG_OP) || [[place]] || its_key
                   || ',"row": null,"old": null,"changed": null,"reduced":"key"' || [[tail]];
        IF octet_length(message) > 7999 OR its_key = 'null' THEN
            message := '{"op":"' || lower(TG_OP) || [[place]]
                       || 'null,"row": null,"old": null,"changed": null,"reduced":"nothing"' || [[tail]];
        END IF;
    END IF;
END IF;
