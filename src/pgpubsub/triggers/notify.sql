-- As an expression, which PL/pgSQL evaluates faster than PERFORM.
IF (CASE WHEN pg_notification_queue_usage() > 0.9 THEN true ELSE pg_notify([[channel]], message) IS NULL END) THEN
    BEGIN
        [[failures]]
        RAISE WARNING [[warning]], 'the queue of notifications is nearly full'
              USING ERRCODE = 'configuration_limit_exceeded', DETAIL = 'Full, it would make the transaction fail when it commits.';
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
END IF;
