-- Streams: one table for the entries of all of them. Run it as often as you like; it needs no superuser.
--
-- Whoever appends needs USAGE on the schema, SELECT on version, SELECT and INSERT on stream and entry, and USAGE on
-- entry_id; whoever reads needs USAGE on the schema and SELECT on its tables.

SELECT pg_catalog.pg_advisory_xact_lock(7021791832374850422);  -- one at a time

DO $do$
BEGIN
    IF pg_catalog.to_regnamespace({schema_literal}) IS NULL THEN  -- IF NOT EXISTS would ask for the right to make it
        CREATE SCHEMA {schema};
    END IF;
END
$do$;

-- Which version is installed, and from which version on the library can work with it.
CREATE TABLE IF NOT EXISTS {schema}.version (
    number int PRIMARY KEY,
    serves_from int NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- Transaction ids mean something in the cluster where they were assigned, and in one that pg_upgrade made of it. A row
-- is native there: its own transaction is the one that it names, and its table the one in which it was born. After a
-- dump was restored neither is, but by chance.
CREATE TABLE IF NOT EXISTS {schema}.birth (
    token uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    born xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    home oid NOT NULL
);

-- The streams that have a name and settings of their own; see stream_id() for the number.
CREATE TABLE IF NOT EXISTS {schema}.stream (
    id bigint PRIMARY KEY,
    name text NOT NULL UNIQUE,
    wake text NOT NULL DEFAULT 'notify' CHECK (wake IN ('notify', 'poll')),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

-- No foreign key leads from an entry to its stream: appending must not lock what others change.
CREATE TABLE IF NOT EXISTS {schema}.entry (
    stream bigint NOT NULL,
    id bigint NOT NULL,
    xid xid8 NOT NULL,
    slot smallint NOT NULL,  -- of 32: the share of a group to which its key belongs
    key text,
    payload text,
    payload_bytes bytea,
    headers jsonb CHECK (pg_catalog.jsonb_typeof(headers) = 'object'),
    idempotency_key text,
    appended_at timestamptz NOT NULL,
    PRIMARY KEY (stream, id),
    CHECK (pg_catalog.num_nonnulls(payload, payload_bytes) = 1)
);

-- IF NOT EXISTS would lock the table first, and hold up whoever appends.
DO $do$
BEGIN
    IF pg_catalog.to_regclass({entry_read_literal}) IS NULL THEN
        CREATE INDEX entry_read ON {schema}.entry (stream, xid, id, slot);
    END IF;
    IF pg_catalog.to_regclass({entry_once_literal}) IS NULL THEN
        CREATE UNIQUE INDEX entry_once ON {schema}.entry (stream, idempotency_key) WHERE idempotency_key IS NOT NULL;
    END IF;
END
$do$;

-- CACHE 1: an id must not be older than the transaction id that comes with it.
CREATE SEQUENCE IF NOT EXISTS {schema}.entry_id AS bigint CACHE 1 OWNED BY {schema}.entry.id;

CREATE OR REPLACE FUNCTION {schema}.stamp() RETURNS trigger
LANGUAGE plpgsql AS $body$
BEGIN
    NEW.xid := pg_catalog.pg_current_xact_id();
    NEW.appended_at := pg_catalog.clock_timestamp();
    NEW.id := pg_catalog.nextval({entry_id_literal}::pg_catalog.regclass);  -- last: who could have seen another entry has a higher id
    NEW.slot := coalesce(pg_catalog.hashtextextended(NEW.key, 0), NEW.id) & 31;
    RETURN NEW;
END
$body$;

-- Triggers run in the order of their names, and this one comes after all others, which might wait for something.
DO $do$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger
                    WHERE tgrelid = {entry_literal}::pg_catalog.regclass AND tgname = 'zzzz_pgpubsub_stamp') THEN
        CREATE TRIGGER zzzz_pgpubsub_stamp BEFORE INSERT ON {schema}.entry
            FOR EACH ROW EXECUTE FUNCTION {schema}.stamp();
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_trigger
                WHERE tgrelid = {entry_literal}::pg_catalog.regclass AND tgname = 'zzzz_pgpubsub_stamp'
                  AND tgenabled <> 'A') THEN  -- what logical replication brings would have ids of another server
        ALTER TABLE {schema}.entry ENABLE ALWAYS TRIGGER zzzz_pgpubsub_stamp;
    END IF;
END
$do$;

-- The number of a stream: made from its name, so that nobody has to look it up or wait for who registers it.
CREATE OR REPLACE FUNCTION {schema}.stream_id(name text) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT ('x' || encode(substring(sha256(convert_to($1, 'UTF8')) FROM 1 FOR 8), 'hex'))::bit(64)::bigint
$body$;

-- The channel on which readers are told that a stream may have something new.
CREATE OR REPLACE FUNCTION {schema}.hint_channel(stream bigint) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $body$
    SELECT 'pgpubsub.stream.' || to_hex($1)
$body$;

-- Give streams their names. One that somebody else is registering in an open transaction is left to them: if they roll
-- back, the next append does it. So is one that was registered after the snapshot of a REPEATABLE READ transaction.
CREATE OR REPLACE FUNCTION {schema}.register(names text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    WITH new AS MATERIALIZED (
        SELECT DISTINCT {schema}.stream_id(given.name) AS id, given.name FROM unnest($1) AS given (name)
         WHERE NOT EXISTS (SELECT FROM {schema}.stream AS known WHERE known.name = given.name))
    INSERT INTO {schema}.stream (id, name)
    SELECT new.id, new.name FROM new WHERE pg_try_advisory_xact_lock(new.id)
    ON CONFLICT DO NOTHING;
EXCEPTION WHEN serialization_failure THEN
    NULL;
END
$body$;

-- Make a stream, or change what it is like.
CREATE OR REPLACE FUNCTION {schema}.create_stream(name text, wake text DEFAULT 'notify') RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    PERFORM pg_advisory_xact_lock({schema}.stream_id($1));
    INSERT INTO {schema}.stream (id, name, wake) VALUES ({schema}.stream_id($1), $1, $2)
    ON CONFLICT (id) DO UPDATE SET wake = EXCLUDED.wake;
    RETURN {schema}.stream_id($1);
END
$body$;

CREATE OR REPLACE FUNCTION {schema}.append_any(
    stream text, payload text, payload_bytes bytea, key text, headers jsonb, idempotency_key text
) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
#variable_conflict use_column
DECLARE
    its_id bigint := {schema}.stream_id($1);
    its_wake text;
    entry_id bigint;
BEGIN
    IF $1 IS NULL OR $1 = '' THEN
        RAISE EXCEPTION 'a stream has a name' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF $2 IS NULL AND $3 IS NULL THEN
        RAISE EXCEPTION 'an entry has a payload, which may be empty, but not NULL'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT known.wake INTO its_wake FROM {schema}.stream AS known WHERE known.id = its_id;
    IF its_wake IS NULL THEN
        PERFORM {schema}.register(ARRAY[$1]);
        its_wake := 'notify';
    END IF;
    IF $6 IS NULL THEN
        INSERT INTO {schema}.entry (stream, key, payload, payload_bytes, headers)
        VALUES (its_id, $4, $2, $3, $5)
        RETURNING id INTO entry_id;
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended($6, its_id));
        INSERT INTO {schema}.entry (stream, key, payload, payload_bytes, headers, idempotency_key)
        VALUES (its_id, $4, $2, $3, $5, $6)
        ON CONFLICT (stream, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
        RETURNING id INTO entry_id;
        IF entry_id IS NULL THEN
            SELECT id INTO entry_id FROM {schema}.entry WHERE stream = its_id AND idempotency_key = $6;
            RETURN entry_id;
        END IF;
    END IF;
    IF its_wake = 'notify' THEN
        PERFORM pg_notify({schema}.hint_channel(its_id), '');
    END IF;
    RETURN entry_id;
END
$body$;

-- Append an entry in the present transaction, and return its id. With an idempotency key, one that is there already is
-- not stored again, and it is its id that is returned.
CREATE OR REPLACE FUNCTION {schema}.append(
    stream text, payload text, key text DEFAULT NULL, headers jsonb DEFAULT NULL, idempotency_key text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT {schema}.append_any($1, $2, NULL, $3, $4, $5)
$body$;

CREATE OR REPLACE FUNCTION {schema}.append_bytes(
    stream text, payload bytea, key text DEFAULT NULL, headers jsonb DEFAULT NULL, idempotency_key text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $body$
    SELECT {schema}.append_any($1, NULL, $2, $3, $4, $5)
$body$;

-- Whether this is where the entries were appended, and its token. (OR REPLACE would hold up whoever begins to read.)
DO $do$
BEGIN
    IF pg_catalog.to_regclass({native_birth_literal}) IS NULL THEN
        CREATE VIEW {schema}.native_birth AS
            SELECT token FROM {schema}.birth
             WHERE NOT EXISTS (  -- a foreign one came with entries from elsewhere, such as with the data of a dump alone
                SELECT FROM {schema}.birth AS other
                 WHERE pg_catalog.mod(other.born::text::numeric, 4294967296) <> other.xmin::text::numeric
                    OR other.home <> other.tableoid);
    END IF;
END
$do$;

INSERT INTO {schema}.version (number, serves_from) VALUES (1, 1) ON CONFLICT DO NOTHING;
