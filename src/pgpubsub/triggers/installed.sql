SELECT pg_catalog.json_agg(pg_catalog.json_build_object('table', pg_catalog.json_build_array(of_one.schema, of_one.name),
           'settings', of_one.settings, 'failures', coalesce(sequence.last_value, 0)) ORDER BY of_one.schema, of_one.name)::text
  FROM (SELECT DISTINCT namespace.nspname AS schema, class.relname AS name, proc.proname, its_namespace.nspname,
               pg_catalog.substr(pg_catalog.obj_description(proc.oid, 'pg_proc'), {mark_length} + 1) AS settings
          FROM pg_catalog.pg_trigger AS trigger JOIN pg_catalog.pg_proc AS proc ON proc.oid = trigger.tgfoid
               JOIN pg_catalog.pg_namespace AS its_namespace ON its_namespace.oid = proc.pronamespace
               JOIN pg_catalog.pg_class AS class ON class.oid = trigger.tgrelid
               JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
         WHERE trigger.tgparentid = 0
           AND pg_catalog.starts_with(pg_catalog.obj_description(proc.oid, 'pg_proc'), {mark})) AS of_one
       LEFT JOIN pg_catalog.pg_sequences AS sequence
         ON sequence.schemaname = of_one.nspname AND sequence.sequencename = of_one.proname || ' failures'
