[[wake]]
INSERT INTO [[schema]].entry (stream, key, payload) VALUES ([[stream_id]], text_key, message);
