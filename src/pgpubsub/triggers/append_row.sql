text_key := CASE TG_OP WHEN 'DELETE' THEN [[old_text_key]] WHEN 'TRUNCATE' THEN NULL ELSE [[new_text_key]] END;
[[append]]
