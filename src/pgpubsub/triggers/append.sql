SELECT known.wake INTO its_wake FROM [[schema]].stream AS known WHERE known.id = [[stream_id]];
IF its_wake IS NULL THEN
    PERFORM [[schema]].register(ARRAY[ [[stream]] ]);
    its_wake := 'notify';
END IF;
INSERT INTO [[schema]].entry (stream, key, payload) VALUES ([[stream_id]], text_key, message);
