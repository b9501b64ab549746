SELECT count(*) FILTER (WHERE [[is_new]] OR told.operation = 'DELETE'), count(*) INTO total, concerned
  FROM [[rows]] WHERE ([[changed]]) AND ([[when]]);
IF concerned = 0 THEN
    RETURN NULL;
END IF;
head := head || 'null,"row": null,"old": null,"changed": null,"count":' || total || ',"keys":';
IF [[has_key]] THEN
    room := 7999 - octet_length(head || '[],"reduced":"keys"' || tail);
    FOR one_key IN SELECT CASE WHEN [[is_new]] THEN [[new_key]] ELSE [[old_key]] END
                     FROM [[rows]] WHERE ([[changed]]) AND ([[when]]) LIMIT 4000 LOOP
        CONTINUE WHEN octet_length(one_key) > room;  -- a shorter one may follow
        its_keys := its_keys || one_key || ',';
        listed := listed + 1;
        room := room - octet_length(one_key) - 1;
    END LOOP;
    -- Both ends have the same length.
    message := head || '[' || rtrim(its_keys, ',') || ']'
               || CASE WHEN listed < concerned THEN ',"reduced":"keys"' ELSE ',"reduced":  null' END || tail;
ELSE
    message := head || 'null,"reduced": null' || tail;
END IF;
