-- Retention: how long a stream keeps its entries, and what it says of those that it keeps no more.
--
-- Whoever trims needs USAGE on the schema, SELECT on its tables, DELETE and UPDATE on entry (an entry is locked before
-- it is deleted), and INSERT and UPDATE on trimmed and trimming.

-- To add columns locks the table, so it is done once, and not waited for long: who appends in an open transaction has
-- the table, and others would queue up behind us.
DO $do$
DECLARE
    patience text := pg_catalog.current_setting('lock_timeout');
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                    WHERE attrelid = {stream_literal}::pg_catalog.regclass AND attname = 'max_age') THEN
        PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
        ALTER TABLE {schema}.stream
            ADD COLUMN max_age interval CHECK (max_age > '0'),
            ADD COLUMN max_entries bigint CHECK (max_entries > 0),
            ADD COLUMN keep_unconsumed boolean NOT NULL DEFAULT false;
        PERFORM pg_catalog.set_config('lock_timeout', patience, true);
    END IF;
END
$do$;

-- What retention has removed of a stream. Who appends does not look here; who reads does, in each of its statements.
CREATE TABLE IF NOT EXISTS {schema}.trimmed (
    stream bigint PRIMARY KEY,
    birth uuid NOT NULL,
    below xid8 NOT NULL,  -- the highest transaction id of an entry removed, plus one; and of such entries the last:
    id bigint NOT NULL DEFAULT 0,
    appended_at timestamptz,
    removed bigint NOT NULL DEFAULT 0,  -- how many
    last bigint NOT NULL DEFAULT 0,  -- the highest id
    kept boolean NOT NULL DEFAULT true,  -- whether groups had handled all of them
    xids xid8[] NOT NULL DEFAULT '{}',  -- the newest transactions of which entries were removed, the newest first,
    ids bigint[] NOT NULL DEFAULT '{}',  -- and the highest id of each
    counted_for bigint,  -- max_entries, when entries were counted last
    counted_from bigint,  -- from this id on, backwards
    counted_to bigint,  -- as far as this one; null: to the end
    counted bigint,
    too_many bigint  -- those up to this id are too many
) WITH (fillfactor = 50);

-- When somebody began to trim, so that others need not.
CREATE TABLE IF NOT EXISTS {schema}.trimming (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    at timestamptz NOT NULL
);

-- After a restore from a dump, what was removed before has other transaction ids.
DELETE FROM {schema}.trimmed WHERE birth NOT IN (SELECT token FROM {schema}.native_birth);

-- Make a stream, or change those of its settings that are given: wake, max_age (seconds), max_entries, keep_unconsumed.
CREATE OR REPLACE FUNCTION {schema}.create_stream(name text, settings jsonb) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    its_id bigint := {schema}.stream_id($1);
BEGIN
    PERFORM pg_advisory_xact_lock(its_id);
    INSERT INTO {schema}.stream (id, name) VALUES (its_id, $1) ON CONFLICT DO NOTHING;
    IF $2 <> '{}' THEN
        UPDATE {schema}.stream
           SET wake = coalesce($2 ->> 'wake', wake),
               max_age = CASE WHEN $2 ? 'max_age' THEN make_interval(secs => ($2 ->> 'max_age')::double precision)
                              ELSE max_age END,
               max_entries = CASE WHEN $2 ? 'max_entries' THEN ($2 ->> 'max_entries')::bigint ELSE max_entries END,
               keep_unconsumed = coalesce(($2 ->> 'keep_unconsumed')::boolean, keep_unconsumed)
         WHERE id = its_id;
    END IF;
    RETURN its_id;
END
$body$;

-- The id up to which entries are too many. Up to 10,000 are counted each time. Of more, 10,000 are counted in each
-- call, backwards from the newest; when that is done, it is done again as soon as a tenth as many ids were handed out.
-- So a stream that keeps ten million has about eleven at most. 10,000 take 3 ms (5 before a VACUUM), which comes to 3 to
-- 5 microseconds for each entry that is appended.
CREATE OR REPLACE FUNCTION {schema}.count_on(INOUT mark {schema}.trimmed, enough bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    step CONSTANT bigint := 10000;
    newest bigint := (SELECT id FROM {schema}.entry WHERE stream = mark.stream ORDER BY id DESC LIMIT 1);
    to_count bigint;
    found_to bigint;
    found_now bigint;
BEGIN
    IF enough < step OR mark.counted_for IS DISTINCT FROM enough THEN
        mark.counted_for := enough;
        mark.too_many := NULL;
        mark.counted_to := newest + 1;
    ELSIF mark.counted_to IS NULL AND newest - coalesce(mark.counted_from, 0) >= enough / 10 THEN
        mark.counted_to := newest + 1;
    END IF;
    IF mark.counted_to = newest + 1 THEN
        mark.counted_from := newest;
        mark.counted := 0;
    END IF;
    IF mark.counted_to IS NOT NULL THEN
        to_count := least(step, enough + 1 - mark.counted);
        SELECT min(id), count(*) INTO found_to, found_now FROM (
            SELECT id FROM {schema}.entry WHERE stream = mark.stream AND id < mark.counted_to
             ORDER BY id DESC LIMIT to_count) AS counted;
        mark.counted := mark.counted + found_now;
        mark.counted_to := CASE WHEN found_now = step AND mark.counted <= enough THEN found_to END;
        IF mark.counted > enough THEN
            mark.too_many := found_to;
        END IF;
    END IF;
END
$body$;

-- Remove one batch of a stream's entries that need not be kept, the oldest first (a thousand take 3 ms). Returns how
-- many; 0: there are no more, or somebody else is at it; null: none yet, but call again.
--
-- Only transactions below the snapshot's xmin count: so none below trimmed.below is open, whose entries could come
-- later. Nobody is waited for: entries that somebody has locked are left for another time.
CREATE OR REPLACE FUNCTION {schema}.trim(stream bigint, most int DEFAULT 1000) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    its {schema}.stream;
    mark {schema}.trimmed;
    home uuid;
    after bigint;
    gone record;
    removed_now int := 0;
    before {schema}.trimmed;
BEGIN
    SELECT * INTO its FROM {schema}.stream WHERE id = $1 AND (max_age IS NOT NULL OR max_entries IS NOT NULL);
    IF NOT FOUND OR NOT pg_try_advisory_xact_lock(
        1886545012, hashint8($1 # {trimmed_literal}::regclass::oid::bigint)) THEN
        RETURN 0;
    END IF;
    SELECT token INTO home FROM {schema}.native_birth LIMIT 1;
    IF home IS NULL THEN
        RAISE EXCEPTION 'the streams were restored from a dump: install them once more'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT * INTO mark FROM {schema}.trimmed WHERE stream = $1;
    IF NOT FOUND THEN
        mark := ROW($1, home, '0', 0, NULL, 0, 0, true, '{}', '{}', NULL, NULL, NULL, NULL, NULL);
    END IF;
    before := mark;
    IF its.max_entries IS NOT NULL THEN
        mark := {schema}.count_on(mark, its.max_entries);
    ELSE
        mark.counted_for := NULL;
        mark.counted_to := NULL;
        mark.too_many := NULL;
    END IF;
    -- From where the last batch ended: what lies before is dead, and may be much (a second for ten million, until VACUUM
    -- may remove them). Only when nothing is left there, what was committed before it since.
    FOREACH after IN ARRAY ARRAY[mark.last, 0] LOOP
        CONTINUE WHEN NOT EXISTS (
            SELECT FROM (SELECT id, appended_at FROM {schema}.entry WHERE stream = $1 AND id > after
                          ORDER BY id LIMIT 1) AS oldest
             WHERE oldest.appended_at < clock_timestamp() - its.max_age OR oldest.id <= mark.too_many);
        WITH now AS MATERIALIZED (
            SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xmin, clock_timestamp() - its.max_age AS time),
        oldest AS MATERIALIZED (
            SELECT ctid, id, xid, slot, appended_at FROM {schema}.entry WHERE stream = $1 AND id > after
             ORDER BY id LIMIT $2),
        due AS MATERIALIZED (
            SELECT ctid, bool_and(
                       xid < now.xmin
                       AND (coalesce(appended_at < now.time, false) OR coalesce(id <= mark.too_many, false))
                       AND (NOT its.keep_unconsumed OR NOT EXISTS (
                           SELECT FROM {schema}.consumer_group AS known
                             JOIN {schema}.slot ON slot.consumer_group = known.id AND slot.slot = oldest.slot
                            WHERE known.stream = $1
                              AND (NOT {schema}.covers(below, open, target_below, target_open, last, oldest.id, xid)
                                   OR oldest.id = ANY (slot.in_flight) OR oldest.id = ANY (slot.held))))
                   ) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING) AS is_due
              FROM oldest, now),
        free AS MATERIALIZED (
            SELECT ctid FROM {schema}.entry WHERE ctid = ANY (ARRAY(SELECT ctid FROM due WHERE is_due))
               FOR UPDATE SKIP LOCKED),
        removed AS (
            DELETE FROM {schema}.entry WHERE ctid = ANY (ARRAY(SELECT ctid FROM free))
            RETURNING id, xid, appended_at),
        newest AS (
            SELECT xid, max(id) AS id FROM (
                SELECT xid, id FROM removed
                UNION ALL
                SELECT listed.xid, listed.id FROM unnest(mark.xids, mark.ids) AS listed (xid, id)) AS all_of_them
             GROUP BY xid ORDER BY xid DESC LIMIT 100),
        newest_removed AS (
            SELECT id, xid, appended_at FROM removed ORDER BY xid DESC, id DESC LIMIT 1)
        SELECT (SELECT count(*) FROM removed) AS count, (SELECT max(id) FROM removed) AS last,
               (SELECT array_agg(xid ORDER BY xid DESC) FROM newest) AS xids,
               (SELECT array_agg(id ORDER BY xid DESC) FROM newest) AS ids,
               newest_removed.*
          INTO gone FROM (SELECT) AS one LEFT JOIN newest_removed ON true;
        removed_now := gone.count;
        EXIT WHEN removed_now > 0;
    END LOOP;
    IF removed_now > 0 THEN
        IF gone.xid >= mark.below OR (gone.xid = mark.xids[1] AND gone.id > mark.id) THEN
            mark.id := gone.id;
            mark.appended_at := gone.appended_at;
        END IF;
        mark.xids := gone.xids;
        mark.ids := gone.ids;
        mark.below := (gone.xids[1]::text::bigint + 1)::text::xid8;
        mark.removed := mark.removed + removed_now;
        mark.last := greatest(mark.last, gone.last);
        mark.kept := mark.kept AND its.keep_unconsumed;
    END IF;
    IF removed_now > 0 OR its.max_entries >= 10000 AND mark IS DISTINCT FROM before THEN
        INSERT INTO {schema}.trimmed VALUES (mark.*)
        ON CONFLICT (stream) DO UPDATE SET
            birth = EXCLUDED.birth, below = EXCLUDED.below, id = EXCLUDED.id, appended_at = EXCLUDED.appended_at,
            removed = EXCLUDED.removed, last = EXCLUDED.last, kept = EXCLUDED.kept, xids = EXCLUDED.xids,
            ids = EXCLUDED.ids, counted_for = EXCLUDED.counted_for, counted_from = EXCLUDED.counted_from,
            counted_to = EXCLUDED.counted_to, counted = EXCLUDED.counted, too_many = EXCLUDED.too_many;
    END IF;
    RETURN CASE WHEN removed_now > 0 OR mark.counted_to IS NULL THEN removed_now END;
END
$body$;

CREATE OR REPLACE FUNCTION {schema}.trim(stream text, most int DEFAULT 1000) RETURNS int
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT {schema}.trim({schema}.stream_id($1), $2)
$body$;

-- The numbers of the streams that retention concerns, as text.
CREATE OR REPLACE FUNCTION {schema}.retained(separator text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT string_agg(id::text, $1 ORDER BY id) FROM {schema}.stream
     WHERE max_age IS NOT NULL OR max_entries IS NOT NULL
$body$;

-- The streams to trim, for one who asks; for others none, until so many seconds have passed.
CREATE OR REPLACE FUNCTION {schema}.streams_to_trim(pause double precision) RETURNS SETOF bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    streams bigint[] := ARRAY(
        SELECT id FROM {schema}.stream WHERE max_age IS NOT NULL OR max_entries IS NOT NULL ORDER BY id);
    now timestamptz := clock_timestamp();
BEGIN
    IF streams = '{}' THEN
        RETURN;
    END IF;
    IF NOT (has_table_privilege({entry_literal}, 'DELETE') AND has_table_privilege({entry_literal}, 'UPDATE')
            AND has_table_privilege({trimmed_literal}, 'INSERT')
            AND has_table_privilege({trimmed_literal}, 'UPDATE')) THEN
        RAISE EXCEPTION 'this role may not trim' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT FROM {schema}.trimming WHERE at > now - make_interval(secs => $1) AND at <= now)
        OR NOT pg_try_advisory_xact_lock(1886545012, hashint8({trimming_literal}::regclass::oid::bigint)) THEN
        RETURN;
    END IF;
    INSERT INTO {schema}.trimming (at) VALUES (now)
    ON CONFLICT (one) DO UPDATE SET at = EXCLUDED.at
     WHERE trimming.at <= EXCLUDED.at - make_interval(secs => $1) OR trimming.at > EXCLUDED.at;
    IF FOUND THEN
        RETURN QUERY SELECT unnest(streams);
    END IF;
END
$body$;
