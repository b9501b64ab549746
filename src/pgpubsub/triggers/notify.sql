IF pg_notification_queue_usage() > 0.9 THEN  -- full, it would make the transaction fail when it commits
    BEGIN
        PERFORM nextval([[failures]]);
        RAISE WARNING [[warning]], 'the queue of notifications is nearly full' USING ERRCODE = 'configuration_limit_exceeded';
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    RETURN NULL;
END IF;
PERFORM pg_notify([[channel]], message);
