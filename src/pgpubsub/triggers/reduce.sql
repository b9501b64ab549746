IF octet_length(message) > 7999 THEN
    IF TG_OP = 'UPDATE' THEN
        moved_from := [[moved_from]];
    END IF;
    its_key := CASE TG_OP WHEN 'TRUNCATE' THEN 'null' WHEN 'DELETE' THEN [[old_key]] ELSE [[new_key]] END;
    head := '{"op":"' || lower(TG_OP) || [[place]];
    tail := [[tail]];  -- once, since its length differs from one moment to the next
    SELECT head || one.parts || tail INTO message
      FROM (VALUES
               (1, its_key || moved_from || ',"row":' || [[new_row]]
                   || ',"old": null,"changed":' || its_changes || ',"reduced":"row"'),
               (2, its_key || moved_from || ',"row": null,"old": null,"changed":' || nullif(its_changes, '{}') || ',"reduced":"changed"'),
               (3, nullif(its_key, 'null') || moved_from || ',"row": null,"old": null,"changed": null,"reduced":"key"'),
               (4, nullif(its_key, 'null') || ',"row": null,"old": null,"changed": null,"reduced":"key"'),
               (5, 'null,"row": null,"old": null,"changed": null,"reduced":"nothing"')) AS one (step, parts)
     WHERE octet_length(head || one.parts || tail) <= 7999 ORDER BY one.step LIMIT 1;
END IF;
