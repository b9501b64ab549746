SELECT known.wake INTO its_wake FROM [[schema]].stream AS known WHERE known.id = [[stream_id]];
IF its_wake IS NULL THEN
    PERFORM [[schema]].register(ARRAY[ [[stream]] ]);
    its_wake := 'notify';
END IF;
INSERT INTO [[schema]].entry (stream, key, payload) VALUES ([[stream_id]], text_key, message);
IF its_wake = 'notify' AND pg_notification_queue_usage() <= 0.9 THEN
    PERFORM pg_notify([[hint_channel]], '');
END IF;
