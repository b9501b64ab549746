SELECT known.wake INTO its_wake FROM [[schema]].stream AS known WHERE known.id = [[stream_id]];
IF its_wake IS NULL THEN
    PERFORM [[schema]].register(ARRAY[ [[stream]] ]);
    its_wake := 'notify';
END IF;
