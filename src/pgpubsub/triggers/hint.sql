IF its_wake = 'notify' AND pg_notification_queue_usage() <= 0.9 THEN  -- others find it when they look next
    PERFORM pg_notify([[hint_channel]], '');
END IF;
