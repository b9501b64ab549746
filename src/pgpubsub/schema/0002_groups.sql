-- Groups: who handles which entries of a stream, and what became of them.
--
-- A slot holds the entries of some keys. It has one member at a time, and only that one changes the slot's row and what
-- is parked in it, in transactions that hold the member's row. Whoever finds that a member's lease has ended deletes
-- that row, which waits for such transactions, and for those that acknowledge in the member's name: they hold it too.
--
-- A membership does not outlive the server: the table `life` is not logged, so that it is empty after a crash, and on a
-- standby that was promoted. What members last wrote down without waiting for the disk may be lost then, so nothing that
-- they say later may count. Their rows are logged, since prepared transactions, which outlive a crash, hold them.
--
-- Locks are taken in this order: the group's row, members, slots. Who sends dead letters again, or sets the group
-- elsewhere, has the group's row for himself; whoever changes what is parked, or who has which slots, shares it.
--
-- Whoever consumes needs USAGE on the schema, SELECT on its tables, INSERT on `life`, and INSERT, UPDATE and DELETE on the
-- other five here; and to make a group with its first consumer, INSERT on `stream`.

CREATE TABLE IF NOT EXISTS {schema}.consumer_group (
    id bigint PRIMARY KEY,
    stream bigint NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    UNIQUE (stream, name)
);

CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.life (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    token uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid()
);

CREATE TABLE IF NOT EXISTS {schema}.member (
    id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    life uuid NOT NULL,  -- of the server, in which it joined
    consumer_group bigint NOT NULL,
    name text NOT NULL,
    pid int,  -- of its server process, unless something stands between
    until timestamptz NOT NULL,
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 50);

-- Covered, apart from what is in_flight and held, are all transactions below `below` but the open ones; and those of the
-- target as far as the entry `last`.
CREATE TABLE IF NOT EXISTS {schema}.slot (
    consumer_group bigint NOT NULL,
    slot smallint NOT NULL,
    member uuid,
    below xid8 NOT NULL,
    open xid8[] NOT NULL,
    target_below xid8,
    target_open xid8[],
    last bigint NOT NULL DEFAULT 0,
    in_flight bigint[] NOT NULL DEFAULT '{}',  -- handed out
    held bigint[] NOT NULL DEFAULT '{}'  -- not yet, since an earlier entry of the key is in flight
) WITH (fillfactor = 30);

-- Entries that wait to be handed out again, or behind one that does; and dead letters.
CREATE TABLE IF NOT EXISTS {schema}.parked (
    consumer_group bigint NOT NULL,
    id bigint NOT NULL,
    slot smallint NOT NULL,
    key text,
    payload text,
    payload_bytes bytea,
    headers jsonb,
    appended_at timestamptz NOT NULL,
    attempts int NOT NULL,
    together int NOT NULL,  -- with how many it may be handed out; 0: it alone was in hand when its member ended; -n: it may
                            -- be handed out with n, and others were in hand too when its member ended
    in_hand boolean NOT NULL DEFAULT false,
    due_at timestamptz,  -- null: not before an earlier one of its key
    error text,
    dead_at timestamptz,
    PRIMARY KEY (consumer_group, id)
);

-- What was handled, in transactions of handlers. The member takes note of it, or whoever ends its lease.
CREATE TABLE IF NOT EXISTS {schema}.acknowledged (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    member uuid NOT NULL,
    ids bigint[] NOT NULL
);

-- IF NOT EXISTS would lock the table first.
DO $do$
BEGIN
    IF pg_catalog.to_regclass({member_group_literal}) IS NULL THEN
        CREATE INDEX member_group ON {schema}.member (consumer_group);
    END IF;
    -- Not unique: to make sure of that, all versions of a row would be looked at that an old snapshot keeps.
    IF pg_catalog.to_regclass({slot_group_literal}) IS NULL THEN
        CREATE INDEX slot_group ON {schema}.slot (consumer_group, slot);
    END IF;
    IF pg_catalog.to_regclass({parked_due_literal}) IS NULL THEN
        CREATE INDEX parked_due ON {schema}.parked (consumer_group, slot, due_at) WHERE due_at IS NOT NULL;
    END IF;
    IF pg_catalog.to_regclass({parked_line_literal}) IS NULL THEN
        CREATE INDEX parked_line ON {schema}.parked (consumer_group, pg_catalog.hashtextextended(key, 0), id)
            WHERE key IS NOT NULL AND dead_at IS NULL;
    END IF;
    IF pg_catalog.to_regclass({parked_due_line_literal}) IS NULL THEN
        CREATE INDEX parked_due_line ON {schema}.parked (consumer_group, pg_catalog.hashtextextended(key, 0))
            WHERE key IS NOT NULL AND due_at IS NOT NULL;
    END IF;
    IF pg_catalog.to_regclass({parked_dead_literal}) IS NULL THEN
        CREATE INDEX parked_dead ON {schema}.parked (consumer_group, id) WHERE dead_at IS NOT NULL;
    END IF;
    IF pg_catalog.to_regclass({acknowledged_member_literal}) IS NULL THEN
        CREATE INDEX acknowledged_member ON {schema}.acknowledged (member);
    END IF;
END
$do$;

-- The number of a group, made from its stream's number and its name.
CREATE OR REPLACE FUNCTION {schema}.group_id(stream bigint, name text) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT {schema}.stream_id(to_hex($1) || ' ' || $2)
$body$;

-- Whether a slot that stands there covers an entry, what is in_flight and held apart. (No search_path is set, so that
-- the planner can take it in.)
CREATE OR REPLACE FUNCTION {schema}.covers(
    below xid8, open xid8[], target_below xid8, target_open xid8[], last bigint, id bigint, xid xid8
) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN $7 OPERATOR(pg_catalog.<) $1 AND $7 OPERATOR(pg_catalog.<>) ALL ($2)
       OR $3 IS NOT NULL AND $6 OPERATOR(pg_catalog.<=) $5
          AND $7 OPERATOR(pg_catalog.<) $3 AND $7 OPERATOR(pg_catalog.<>) ALL ($4);

-- Let the first waiting entry of each of these keys be due, and unless that is in hand or has to wait, up to 99 that
-- follow it, as far as none has to wait; and no others of them. All of a key get one time, so that they are found in the
-- order of their ids. Returns the keys that have any.
CREATE OR REPLACE FUNCTION {schema}.promote(its_group bigint, keys text[]) RETURNS text[]
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    WITH now AS MATERIALIZED (SELECT clock_timestamp() AS time),
    line AS MATERIALIZED (
        SELECT given.key, one.id, row_number() OVER its_line AS place,
               coalesce(first_value(one.due_at) OVER its_line, now.time) AS due_at,
               bool_and(NOT one.in_hand AND coalesce(one.due_at <= now.time, true)) OVER its_line AS goes_on
          FROM now CROSS JOIN (SELECT DISTINCT unnest($2) AS key) AS given
         CROSS JOIN LATERAL (
            SELECT id, due_at, in_hand FROM {schema}.parked
             WHERE consumer_group = $1 AND hashtextextended(key, 0) = hashtextextended(given.key, 0)
               AND key = given.key AND dead_at IS NULL
             ORDER BY id LIMIT 100) AS one
        WINDOW its_line AS (PARTITION BY given.key ORDER BY one.id)),
    due AS MATERIALIZED (SELECT id, due_at FROM line WHERE place = 1 OR goes_on),
    promoted AS (
        UPDATE {schema}.parked SET due_at = due.due_at FROM due
         WHERE parked.consumer_group = $1 AND parked.id = due.id AND parked.due_at IS DISTINCT FROM due.due_at),
    not_yet AS (
        UPDATE {schema}.parked SET due_at = NULL
         WHERE consumer_group = $1 AND id IN (
            SELECT one.id FROM (SELECT DISTINCT unnest($2) AS key) AS given
             CROSS JOIN LATERAL (  -- by parked_due_line: of the group many may be due, and of the key many wait
                SELECT id FROM {schema}.parked
                 WHERE consumer_group = $1 AND hashtextextended(key, 0) = hashtextextended(given.key, 0)
                   AND key = given.key AND due_at IS NOT NULL OFFSET 0) AS one
            EXCEPT SELECT id FROM due))
    SELECT coalesce(array_agg(key), '{}') FROM line WHERE place = 1
$body$;

-- End a membership, when its row is locked: its slots are free, and what it had not settled comes again. Returns how much
-- of that retention has removed.
CREATE OR REPLACE FUNCTION {schema}.end_member(its_group bigint, its_id uuid) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    its_stream bigint := (SELECT stream FROM {schema}.consumer_group WHERE id = $1);
    settled bigint[] := ARRAY(SELECT unnest(ids) FROM {schema}.acknowledged WHERE member = $2);
    its_slots smallint[] := ARRAY(SELECT slot FROM {schema}.slot WHERE consumer_group = $1 AND member = $2);
    taken_ids bigint[] := ARRAY(
        SELECT unnest(in_flight || held) FROM {schema}.slot WHERE consumer_group = $1 AND member = $2);
    alone boolean;
    keys text[];
    missing int := (
        SELECT count(*) FROM {schema}.slot CROSS JOIN LATERAL unnest(in_flight || held) AS taken (id)
         WHERE consumer_group = $1 AND member = $2 AND taken.id <> ALL (settled)
           AND NOT EXISTS (SELECT FROM {schema}.entry WHERE entry.stream = its_stream AND entry.id = taken.id));
BEGIN
    SELECT count(*) = 1 INTO alone FROM (
        SELECT unnest(in_flight) AS id FROM {schema}.slot WHERE consumer_group = $1 AND member = $2
        UNION ALL
        SELECT id FROM {schema}.parked WHERE consumer_group = $1 AND slot = ANY (its_slots) AND in_hand) AS had
     WHERE id <> ALL (settled);
    WITH gone AS (
        DELETE FROM {schema}.parked WHERE consumer_group = $1 AND id = ANY (settled) AND dead_at IS NULL
        RETURNING key),
    dropped AS (
        UPDATE {schema}.parked SET in_hand = false, together = CASE WHEN alone THEN 0 ELSE least(-1, -abs(together)) END
         WHERE consumer_group = $1 AND slot = ANY (its_slots) AND in_hand AND id <> ALL (settled || taken_ids)
        RETURNING key),
    back AS (
        INSERT INTO {schema}.parked (consumer_group, id, slot, key, payload, payload_bytes, headers, appended_at,
                                     attempts, together, due_at, error)
        SELECT $1, entry.id, slot.slot, key, payload, payload_bytes, headers, appended_at, taken.attempts,
               CASE WHEN taken.attempts = 0 THEN 1000000 WHEN alone THEN 0 ELSE -1 END,
               CASE WHEN key IS NULL THEN clock_timestamp() END,
               CASE WHEN taken.attempts > 0 THEN 'the member that had it ended, or lost its lease' END
          FROM {schema}.slot
         CROSS JOIN LATERAL (
            SELECT unnest(in_flight) AS id, 1 AS attempts UNION ALL SELECT unnest(held), 0) AS taken
          JOIN {schema}.entry ON entry.stream = its_stream AND entry.id = taken.id
         WHERE slot.consumer_group = $1 AND slot.member = $2 AND taken.id <> ALL (settled)
        ON CONFLICT (consumer_group, id) DO UPDATE  -- a dead letter, which the group was set back to
            SET attempts = EXCLUDED.attempts, together = EXCLUDED.together, due_at = EXCLUDED.due_at, dead_at = NULL
        RETURNING key)
    SELECT array_agg(key) INTO keys FROM (
        SELECT key FROM gone UNION SELECT key FROM dropped UNION SELECT key FROM back) AS concerned
     WHERE key IS NOT NULL;
    PERFORM {schema}.promote($1, keys);
    UPDATE {schema}.slot SET member = NULL, in_flight = '{}', held = '{}'
     WHERE consumer_group = $1 AND member = $2;
    DELETE FROM {schema}.acknowledged WHERE member = $2;
    DELETE FROM {schema}.member WHERE id = $2;
    RETURN missing;
END
$body$;

-- Become a member, and no longer be another one. A group that is new begins at the place that is given.
CREATE OR REPLACE FUNCTION {schema}.join_group(
    stream text, name text, member_name text, lease double precision, pid int, former uuid,
    below bigint, open bigint[], target_below bigint, target_open bigint[], last bigint
) RETURNS uuid LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    its_stream bigint := {schema}.stream_id($1);
    its_id bigint := {schema}.group_id(its_stream, $2);
    member_id uuid;
BEGIN
    LOOP
        PERFORM FROM {schema}.consumer_group WHERE id = its_id FOR KEY SHARE;
        EXIT WHEN FOUND;
        PERFORM {schema}.register(ARRAY[$1]);
        INSERT INTO {schema}.consumer_group (id, stream, name) VALUES (its_id, its_stream, $2) ON CONFLICT DO NOTHING;
        IF FOUND THEN
            INSERT INTO {schema}.slot (consumer_group, slot, below, open, target_below, target_open, last)
            SELECT its_id, number, $7::text::xid8, $8::text::xid8[], $9::text::xid8, $10::text::xid8[], $11
              FROM generate_series(0, 31) AS number;
        END IF;
    END LOOP;
    PERFORM FROM {schema}.member WHERE id = $6 FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        PERFORM {schema}.end_member(its_id, $6);
    END IF;
    INSERT INTO {schema}.life DEFAULT VALUES ON CONFLICT DO NOTHING;
    INSERT INTO {schema}.member (life, consumer_group, name, pid, until)
    SELECT token, its_id, $3, $5, clock_timestamp() + make_interval(secs => $4) FROM {schema}.life
    RETURNING id INTO member_id;
    RETURN member_id;
END
$body$;

-- Prolong a lease, and end those of members that are gone. Returns who the members are, how many slots are free, and how
-- many entries retention had removed that the others had in hand; no row if the membership has ended.
CREATE OR REPLACE FUNCTION {schema}.tick(its_id uuid, lease double precision)
RETURNS TABLE (members uuid[], free bigint, removed int)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    missing int := 0;
    its_group bigint := (SELECT consumer_group FROM {schema}.member WHERE id = $1);
    gone uuid;
BEGIN
    PERFORM FROM {schema}.consumer_group WHERE id = its_group FOR KEY SHARE;
    UPDATE {schema}.member SET until = clock_timestamp() + make_interval(secs => $2)
     WHERE id = $1 AND life = (SELECT token FROM {schema}.life)
    RETURNING consumer_group INTO its_group;
    IF its_group IS NULL THEN
        RETURN;
    END IF;
    FOR gone IN
        SELECT id FROM {schema}.member
         WHERE consumer_group = its_group AND id <> $1
           AND (until < clock_timestamp() OR life <> (SELECT token FROM {schema}.life)
                OR pid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_stat_get_activity(member.pid)))
           FOR UPDATE SKIP LOCKED
    LOOP
        missing := missing + {schema}.end_member(its_group, gone);
    END LOOP;
    RETURN QUERY
        SELECT array_agg(id ORDER BY id),
               (SELECT count(*) FROM {schema}.slot WHERE consumer_group = its_group AND member IS NULL), missing
          FROM {schema}.member WHERE consumer_group = its_group AND life = (SELECT token FROM {schema}.life);
END
$body$;

-- Take free slots.
CREATE OR REPLACE FUNCTION {schema}.take(its_id uuid, wanted int) RETURNS SETOF {schema}.slot
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT FROM {schema}.consumer_group
     WHERE id = (SELECT consumer_group FROM {schema}.member WHERE id = $1) FOR KEY SHARE;
    WITH me AS MATERIALIZED (
        SELECT id, consumer_group FROM {schema}.member
         WHERE id = $1 AND life = (SELECT token FROM {schema}.life) FOR KEY SHARE),
    free AS MATERIALIZED (
        SELECT slot.consumer_group, slot.slot FROM {schema}.slot
         WHERE consumer_group = (SELECT consumer_group FROM me) AND member IS NULL
         ORDER BY slot LIMIT $2 FOR UPDATE SKIP LOCKED)
    UPDATE {schema}.slot SET member = $1 FROM free
     WHERE slot.consumer_group = free.consumer_group AND slot.slot = free.slot
    RETURNING slot.*
$body$;

-- Write down what a member has decided: where its slots stand, what was handled, what failed. Returns the keys concerned
-- for which entries still wait, failed entries that retention has removed, and where the slots' rows are now, by which
-- they are found the next time; nothing if the membership has ended.
CREATE OR REPLACE FUNCTION {schema}.write_down(
    its_id uuid, durable boolean,
    slots smallint[], places tid[], belows bigint[], opens text[], target_belows bigint[], target_opens text[],
    lasts bigint[], in_flights text[], helds text[], kept boolean[],
    done bigint[] DEFAULT '{}', noted bigint[] DEFAULT '{}', started bigint[] DEFAULT '{}',
    started_delays double precision[] DEFAULT '{}', started_togethers int[] DEFAULT '{}',
    parked bigint[] DEFAULT '{}', attempts int[] DEFAULT '{}', togethers int[] DEFAULT '{}',
    delays double precision[] DEFAULT '{}', dead boolean[] DEFAULT '{}', errors text[] DEFAULT '{}'
) RETURNS TABLE (waiting text[], missing bigint[], written tid[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    its_group bigint;
    its_stream bigint;
    place tid;
    keys text[];
BEGIN
    IF cardinality($13) + cardinality($18) > 0 THEN
        SELECT known.id, known.stream INTO its_group, its_stream FROM {schema}.consumer_group AS known
         WHERE id = (SELECT consumer_group FROM {schema}.member WHERE id = $1) FOR KEY SHARE;
    END IF;
    SELECT consumer_group INTO its_group FROM {schema}.member
     WHERE id = $1 AND life = (SELECT token FROM {schema}.life) FOR KEY SHARE;
    IF its_group IS NULL THEN
        RETURN;
    END IF;
    IF NOT $2 THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    END IF;
    FOR number IN 1 .. cardinality($3) LOOP
        -- By its place: as long as an old snapshot is held, there are as many versions of it as it was written.
        SELECT ctid INTO place FROM {schema}.slot
         WHERE ctid = $4[number] AND consumer_group = its_group AND slot = $3[number];
        IF NOT FOUND THEN
            SELECT ctid INTO place FROM {schema}.slot WHERE consumer_group = its_group AND slot = $3[number];
        END IF;
        UPDATE {schema}.slot
           SET below = $5[number]::text::xid8, open = $6[number]::xid8[], target_below = $7[number]::text::xid8,
               target_open = $8[number]::xid8[], last = $9[number], in_flight = $10[number]::bigint[],
               held = $11[number]::bigint[], member = CASE WHEN $12[number] THEN $1 END
         WHERE ctid = place RETURNING ctid INTO place;
        written := written || place;
    END LOOP;
    IF cardinality($15) > 0 THEN
        UPDATE {schema}.parked
           SET attempts = parked.attempts + 1, together = given.together, in_hand = true,
               due_at = clock_timestamp() + make_interval(secs => given.delay)
          FROM unnest($15, $16, $17) AS given (id, delay, together)
         WHERE parked.consumer_group = its_group AND parked.id = given.id;
    END IF;
    IF cardinality($14) > 0 THEN
        DELETE FROM {schema}.acknowledged WHERE id = ANY ($14);
    END IF;
    waiting := '{}';
    missing := '{}';
    IF cardinality($13) + cardinality($18) > 0 THEN
        WITH gone AS (
            DELETE FROM {schema}.parked WHERE consumer_group = its_group AND id = ANY ($13) RETURNING key),
        given AS MATERIALIZED (
            SELECT id, attempts, together, CASE WHEN dead THEN now() END AS dead_at, error,
                   clock_timestamp() + make_interval(secs => delay) AS due_at
              FROM unnest($18, $19, $20, $21, $22, $23) AS given (id, attempts, together, delay, dead, error)),
        again AS (
            UPDATE {schema}.parked
               SET attempts = given.attempts, together = given.together, in_hand = false, due_at = given.due_at,
                   dead_at = given.dead_at, error = coalesce(given.error, parked.error)
              FROM given WHERE parked.consumer_group = its_group AND parked.id = given.id
            RETURNING parked.id, key),
        fresh AS (
            INSERT INTO {schema}.parked (consumer_group, id, slot, key, payload, payload_bytes, headers, appended_at,
                                         attempts, together, due_at, dead_at, error)
            SELECT its_group, entry.id, entry.slot, key, payload, payload_bytes, headers, appended_at, given.attempts,
                   given.together, given.due_at, given.dead_at, given.error
              FROM given JOIN {schema}.entry ON entry.stream = its_stream AND entry.id = given.id
             WHERE given.id NOT IN (SELECT id FROM {schema}.parked WHERE consumer_group = its_group AND id = ANY ($18))
            RETURNING id, key)
        SELECT (SELECT array_agg(key) FROM (
                    SELECT key FROM gone UNION SELECT key FROM again UNION SELECT key FROM fresh) AS concerned
                 WHERE key IS NOT NULL),
               ARRAY(SELECT id FROM given EXCEPT SELECT id FROM again EXCEPT SELECT id FROM fresh)
          INTO keys, missing;
        waiting := {schema}.promote(its_group, keys);
    END IF;
    RETURN NEXT;
END
$body$;

-- Leave a group.
CREATE OR REPLACE FUNCTION {schema}.leave_group(its_id uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    its_group bigint := (SELECT consumer_group FROM {schema}.member WHERE id = $1);
BEGIN
    PERFORM FROM {schema}.consumer_group WHERE id = its_group FOR KEY SHARE;
    PERFORM FROM {schema}.member WHERE id = $1 FOR UPDATE;
    IF FOUND THEN
        PERFORM {schema}.end_member(its_group, $1);
    END IF;
END
$body$;

-- Acknowledge entries in the present transaction. Returns the number of the acknowledgement and the transaction's id. If
-- the lease has ended, this raises; it cannot end before the transaction. So one that is `bounded` may not stay open for
-- longer than the lease, doing nothing.
CREATE OR REPLACE FUNCTION {schema}.acknowledge(member uuid, ids bigint[], bounded boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    its_number bigint;
    its_end timestamptz;
BEGIN
    SELECT its.until INTO its_end FROM {schema}.member AS its
     WHERE its.id = $1 AND its.life = (SELECT token FROM {schema}.life) FOR KEY SHARE;
    IF $3 THEN
        PERFORM set_config('idle_in_transaction_session_timeout', greatest(
            1000, least(1e9, 1000 * extract(epoch FROM its_end - clock_timestamp())))::int::text, true);
    END IF;
    IF its_end IS NULL THEN
        RAISE EXCEPTION 'the lease on these entries has ended, and they come again to another member'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Roll back. (So it seems, too, to a transaction whose snapshot is older than the membership.)';
    END IF;
    INSERT INTO {schema}.acknowledged (member, ids) VALUES ($1, $2) RETURNING id INTO its_number;
    RETURN its_number || ' ' || pg_current_xact_id();
END
$body$;

-- Let dead letters be handed out again, as if they never had been, the first ones of these, or of the group, behind an
-- id. Returns how many, and the last: if there were any, call it again with that. The group's members wait meanwhile.
CREATE OR REPLACE FUNCTION {schema}.redrive(
    its_group bigint, ids bigint[], behind bigint, most int DEFAULT 1000,
    OUT redriven bigint, OUT last bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    keys text[];
BEGIN
    PERFORM FROM {schema}.consumer_group WHERE id = $1 FOR UPDATE;
    WITH back AS (
        UPDATE {schema}.parked
           SET dead_at = NULL, attempts = 0, together = 1, in_hand = false, due_at = CASE WHEN key IS NULL THEN clock_timestamp() END
         WHERE consumer_group = $1 AND id IN (
            SELECT id FROM {schema}.parked
             WHERE consumer_group = $1 AND dead_at IS NOT NULL AND id > $3 AND ($2 IS NULL OR id = ANY ($2))
             ORDER BY id LIMIT $4)
        RETURNING id, key)
    SELECT count(*), max(id), array_agg(key) FILTER (WHERE key IS NOT NULL) INTO redriven, last, keys FROM back;
    PERFORM {schema}.promote($1, keys);
END
$body$;

-- Let a group go on at another place, whatever it was doing: its members begin anew. Dead letters stay.
CREATE OR REPLACE FUNCTION {schema}.seek_group(
    its_group bigint, below bigint, open bigint[], target_below bigint, target_open bigint[], last bigint
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    gone uuid;
BEGIN
    PERFORM FROM {schema}.consumer_group WHERE id = $1 FOR UPDATE;
    FOR gone IN SELECT id FROM {schema}.member WHERE consumer_group = $1 FOR UPDATE LOOP
        PERFORM {schema}.end_member($1, gone);
    END LOOP;
    DELETE FROM {schema}.acknowledged WHERE member IN (SELECT member FROM {schema}.slot WHERE consumer_group = $1);
    DELETE FROM {schema}.parked WHERE consumer_group = $1 AND dead_at IS NULL;
    UPDATE {schema}.slot
       SET below = $2::text::xid8, open = $3::text::xid8[], target_below = $4::text::xid8,
           target_open = $5::text::xid8[], last = $6, member = NULL, in_flight = '{}', held = '{}'
     WHERE consumer_group = $1;
END
$body$;

-- Forget a group, with what waits in it and its dead letters. Returns whether there was one. Members that are still there
-- begin it anew.
CREATE OR REPLACE FUNCTION {schema}.drop_group(its_group bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    gone uuid;
BEGIN
    PERFORM FROM {schema}.consumer_group WHERE id = $1 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR gone IN SELECT id FROM {schema}.member WHERE consumer_group = $1 FOR UPDATE LOOP
        PERFORM {schema}.end_member($1, gone);
    END LOOP;
    DELETE FROM {schema}.parked WHERE consumer_group = $1;
    DELETE FROM {schema}.slot WHERE consumer_group = $1;
    DELETE FROM {schema}.consumer_group WHERE id = $1;
    RETURN true;
END
$body$;

-- How many entries a group has not settled, and when the oldest of them was appended.
CREATE OR REPLACE FUNCTION {schema}.group_lag(its_group bigint) RETURNS TABLE (entries bigint, oldest timestamptz)
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    WITH its AS MATERIALIZED (SELECT * FROM {schema}.slot WHERE consumer_group = $1),
    its_stream AS MATERIALIZED (SELECT stream FROM {schema}.consumer_group WHERE id = $1),
    lowest AS MATERIALIZED (SELECT least(below, open[1]) AS xid FROM its ORDER BY xid LIMIT 1),  -- min() is of 15
    unsettled AS (
        SELECT entry.appended_at
          FROM {schema}.entry JOIN its ON its.slot = entry.slot
         WHERE entry.stream = (SELECT stream FROM its_stream) AND entry.xid >= (SELECT xid FROM lowest)
           AND NOT {schema}.covers(below, open, target_below, target_open, last, entry.id, entry.xid)
        UNION ALL
        SELECT entry.appended_at
          FROM its CROSS JOIN LATERAL unnest(its.in_flight || its.held) AS taken (id)
          JOIN {schema}.entry ON entry.stream = (SELECT stream FROM its_stream) AND entry.id = taken.id
        UNION ALL
        SELECT parked.appended_at FROM {schema}.parked
         WHERE parked.consumer_group = $1 AND parked.dead_at IS NULL)
    SELECT count(*), min(appended_at) FROM unsettled
$body$;
