[[wake]]
INSERT INTO [[schema]].entry (stream, key, payload)
SELECT [[stream_id]], CASE WHEN [[is_new]] THEN [[new_text_key]] ELSE [[old_text_key]] END,
       CASE WHEN NOT [[is_new]] THEN
           '{"op":"delete' || [[place]] || [[old_key]] || ',"row": null,"old":' || [[old_row]] || ',"changed": null'
       WHEN NOT [[is_old]] THEN
           '{"op":"insert' || [[place]] || [[new_key]] || ',"row":' || [[new_row]] || ',"old": null,"changed": null'
       ELSE
           '{"op":"update' || [[place]] || [[new_key]] || ',"row":' || [[new_row]] || ',"old":' || [[old_row]]
           || ',"changed":' || [[changes]]
       END || ',"reduced": null' || told.tail
  FROM [[rows]] WHERE ([[changed]]) AND ([[when]]);
IF NOT FOUND THEN
    RETURN NULL;
END IF;
