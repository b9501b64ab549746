SELECT known.wake INTO its_wake FROM [[schema]].stream AS known WHERE known.id = [[stream_id]];
IF its_wake IS NULL THEN
    PERFORM [[schema]].register(ARRAY[ [[stream]] ]);
    its_wake := 'notify';
END IF;
IF TG_OP = 'INSERT' THEN
    INSERT INTO [[schema]].entry (stream, key, payload)
    SELECT [[stream_id]], [[new_text_key]],
           '{"op":"insert' || [[place]] || [[new_key]] || ',"row":' || [[new_row]] || ',"old": null,"changed": null,"reduced": null' || tail
      FROM [[inserted]] WHERE [[when]];
ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO [[schema]].entry (stream, key, payload)
    SELECT [[stream_id]], CASE WHEN [[is_new]] THEN [[new_text_key]] ELSE [[old_text_key]] END,
           CASE WHEN NOT [[is_new]] THEN
               '{"op":"delete' || [[place]] || [[old_key]] || ',"row": null,"old":' || [[old_row]] || ',"changed": null'
           WHEN NOT [[is_old]] THEN
               '{"op":"insert' || [[place]] || [[new_key]] || ',"row":' || [[new_row]] || ',"old": null,"changed": null'
           ELSE
               '{"op":"update' || [[place]] || [[new_key]] || ',"row":' || [[new_row]] || ',"old":' || [[old_row]] || ',"changed":' || [[changes]]
           END || ',"reduced": null' || tail
      FROM [[updated]] WHERE ([[changed]]) AND ([[when]]);
ELSE
    INSERT INTO [[schema]].entry (stream, key, payload)
    SELECT [[stream_id]], [[old_text_key]],
           '{"op":"delete' || [[place]] || [[old_key]] || ',"row": null,"old":' || [[old_row]] || ',"changed": null,"reduced": null' || tail
      FROM [[deleted]] WHERE [[when]];
END IF;
IF NOT FOUND THEN
    RETURN NULL;
END IF;
