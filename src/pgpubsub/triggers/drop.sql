-- Drops a trigger, with its function and its count of failures.
DO {tag}
#variable_conflict use_column
DECLARE
    its_table CONSTANT pg_catalog.oid := {table}::pg_catalog.regclass;
    its_path CONSTANT text := pg_catalog.current_setting('search_path');
    its record;
    event text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM pg_advisory_xact_lock(hashtextextended('pgpubsub.triggers', its_table::bigint));
    FOR its IN SELECT * FROM ({ours}) AS ours
                WHERE ours.relation = its_table AND strpos(ours.settings, '"name": ' || to_jsonb({name}::text)::text) > 0 LOOP
        FOR event IN SELECT tgname FROM pg_trigger WHERE tgrelid = its_table AND tgfoid = its.function LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', event, its_table::regclass);
        END LOOP;
        IF pg_has_role(its.owner, 'USAGE') THEN  -- otherwise the table was somebody else's
            EXECUTE format('DROP FUNCTION %I.%I() CASCADE', its.schema, its.name);
            IF its.failures IS NOT NULL THEN
                EXECUTE format('DROP SEQUENCE %s', its.failures::regclass);
            END IF;
        END IF;
    END LOOP;
    PERFORM set_config('search_path', its_path, true);
END
{tag};
