-- After a dump was restored, transaction ids start low again, and old entries would look new, or new ones old. So the
-- old ones get the lowest there is, and positions of before are told from those of now. New ids are above the old. Groups
-- have what they had not handled parked, as their positions mean nothing any more.
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.native_birth)
        OR EXISTS (SELECT FROM {schema}.entry  -- from the future: copied from elsewhere, by logical replication perhaps
                    WHERE xid >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())) THEN
        PERFORM {schema}.end_member(consumer_group, member)
           FROM (SELECT DISTINCT consumer_group, member FROM {schema}.slot WHERE member IS NOT NULL) AS known;
        DELETE FROM {schema}.member;
        INSERT INTO {schema}.parked (consumer_group, id, slot, key, payload, payload_bytes, headers, appended_at,
                                     attempts, together, due_at)
        SELECT known.id, entry.id, entry.slot, key, payload, payload_bytes, headers, appended_at, 0, 1000000,
               CASE WHEN key IS NULL THEN pg_catalog.clock_timestamp() END
          FROM {schema}.consumer_group AS known
          JOIN {schema}.slot ON slot.consumer_group = known.id
          JOIN {schema}.entry ON entry.stream = known.stream AND entry.slot = slot.slot
         WHERE NOT {schema}.covers(below, open, target_below, target_open, last, entry.id, xid)
        ON CONFLICT (consumer_group, id) DO UPDATE SET due_at = EXCLUDED.due_at, dead_at = NULL;
        PERFORM {schema}.promote(id, ARRAY(SELECT DISTINCT key FROM {schema}.parked
                                            WHERE consumer_group = known.id AND key IS NOT NULL AND dead_at IS NULL))
           FROM {schema}.consumer_group AS known;
        UPDATE {schema}.slot
           SET below = '4', open = '{}', target_below = NULL, target_open = NULL, last = 0, in_flight = '{}', held = '{}';
        UPDATE {schema}.entry SET xid = '3' WHERE xid <> '3';
        PERFORM pg_catalog.setval({entry_id_literal}::pg_catalog.regclass, max(id)) FROM {schema}.entry
         HAVING max(id) > (SELECT last_value FROM {schema}.entry_id);  -- which may have been restored, or not
        DELETE FROM {schema}.birth;
        INSERT INTO {schema}.birth (home) VALUES ({birth_literal}::pg_catalog.regclass);
    END IF;
END
$do$;
