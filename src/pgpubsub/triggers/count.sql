IF TG_OP = 'INSERT' THEN
    SELECT count(*), count(*) INTO total, concerned FROM [[inserted]] WHERE [[when]];
ELSIF TG_OP = 'UPDATE' THEN
    SELECT count(*) FILTER (WHERE [[is_new]]), count(*) INTO total, concerned FROM [[updated]] WHERE ([[changed]]) AND ([[when]]);
ELSE
    SELECT count(*), count(*) INTO total, concerned FROM [[deleted]] WHERE [[when]];
END IF;
IF concerned = 0 THEN
    RETURN NULL;
END IF;
tail := ',"row": null,"old": null,"changed": null,"count":' || total || ',"keys":';
room := 7999 - octet_length(head || 'null' || tail || '[],"reduced":"keys","xid":,"at":""}') - 120;
IF TG_OP = 'INSERT' THEN
    SELECT string_agg(one.key, ','), count(*) INTO its_keys, listed FROM (
        SELECT first.key, sum(octet_length(first.key) + 1) OVER (ROWS UNBOUNDED PRECEDING) AS size FROM (
            SELECT [[new_key]] AS key FROM [[inserted]] WHERE [[when]] LIMIT 4000) AS first) AS one
     WHERE one.size <= room;
ELSIF TG_OP = 'UPDATE' THEN
    SELECT string_agg(one.key, ','), count(*) INTO its_keys, listed FROM (
        SELECT first.key, sum(octet_length(first.key) + 1) OVER (ROWS UNBOUNDED PRECEDING) AS size FROM (
            SELECT CASE WHEN [[is_new]] THEN [[new_key]] ELSE [[old_key]] END AS key
              FROM [[updated]] WHERE ([[changed]]) AND ([[when]]) LIMIT 4000) AS first) AS one
     WHERE one.size <= room;
ELSE
    SELECT string_agg(one.key, ','), count(*) INTO its_keys, listed FROM (
        SELECT first.key, sum(octet_length(first.key) + 1) OVER (ROWS UNBOUNDED PRECEDING) AS size FROM (
            SELECT [[old_key]] AS key FROM [[deleted]] WHERE [[when]] LIMIT 4000) AS first) AS one
     WHERE one.size <= room;
END IF;
message := head || 'null' || tail || CASE WHEN [[has_key]] THEN '[' || coalesce(its_keys, '') || ']' ELSE 'null' END
           || CASE WHEN [[has_key]] AND listed < concerned THEN ',"reduced":"keys"' ELSE ',"reduced": null' END
           || ',"xid":' || coalesce(pg_current_xact_id_if_assigned()::text, 'null')
           || ',"at":' || to_json(clock_timestamp()) || '}';
IF octet_length(message) > 7999 THEN
    message := head || 'null,"row": null,"old": null,"changed": null,"count":' || total || ',"keys":[],"reduced": "keys"'
               || ',"xid": null,"at":' || to_json(clock_timestamp()) || '}';
END IF;
