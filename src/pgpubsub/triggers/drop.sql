-- Drops a trigger, with its function and its count of failures.
DO {tag}
DECLARE
    its_table CONSTANT pg_catalog.oid := {table}::pg_catalog.regclass;
    its_path CONSTANT text := pg_catalog.current_setting('search_path');
    place record;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT DISTINCT proc.oid, pg_catalog.format('%I.%I', namespace.nspname, proc.proname) AS function,
           pg_catalog.format('%I.%I', namespace.nspname, proc.proname || ' failures') AS failures
      INTO place
      FROM pg_catalog.pg_trigger AS trigger JOIN pg_catalog.pg_proc AS proc ON proc.oid = trigger.tgfoid
           JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = proc.pronamespace
           JOIN pg_catalog.pg_class AS class ON class.oid = trigger.tgrelid
     WHERE trigger.tgrelid = its_table AND trigger.tgparentid = 0
       AND pg_catalog.starts_with(pg_catalog.obj_description(proc.oid, 'pg_proc'), {mark})
       AND pg_catalog.substr(pg_catalog.obj_description(proc.oid, 'pg_proc'), {mark_length} + 1)::jsonb ->> 'name' = {name};
    IF place.oid IS NOT NULL THEN
        EXECUTE pg_catalog.format('DROP FUNCTION %s() CASCADE', place.function);
        EXECUTE pg_catalog.format('DROP SEQUENCE IF EXISTS %s', place.failures);
    END IF;
    PERFORM set_config('search_path', its_path, true);
END
{tag};
