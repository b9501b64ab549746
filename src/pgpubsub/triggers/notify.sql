IF pg_notification_queue_usage() > 0.9 THEN  -- full, it would make the transaction fail when it commits
    RAISE EXCEPTION 'the queue of notifications is nearly full' USING ERRCODE = 'configuration_limit_exceeded';
END IF;
PERFORM pg_notify([[channel]], message);
