-- Where all tables are published (CREATE PUBLICATION ... FOR ALL TABLES, which a move by logical replication needs, or
-- Debezium makes), PostgreSQL refuses UPDATE and DELETE in tables that have neither a primary key nor a replica identity,
-- whatever wal_level is. It has to be done before a restore is repaired, which deletes. An identity that somebody has
-- chosen is left. Only where wal_level is logical does it cost anything: WAL for the whole row, as it was.
DO $do$
DECLARE
    patience text := pg_catalog.current_setting('lock_timeout');
    its_table pg_catalog.regclass;
BEGIN
    FOR its_table IN
        SELECT oid FROM pg_catalog.pg_class
         WHERE oid IN ({slot_literal}::pg_catalog.regclass, {birth_literal}::pg_catalog.regclass)
           AND relreplident IN ('d', 'n')  -- nothing
    LOOP
        PERFORM pg_catalog.set_config('lock_timeout', '2s', true);
        EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY FULL', its_table);
        PERFORM pg_catalog.set_config('lock_timeout', patience, true);
    END LOOP;
END
$do$;
