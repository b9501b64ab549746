SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
           'table', pg_catalog.json_build_array(namespace.nspname, class.relname), 'settings', ours.settings,
           'failures', coalesce(CASE WHEN pg_catalog.has_sequence_privilege(ours.failures, 'USAGE, SELECT')
                                     THEN pg_catalog.pg_sequence_last_value(ours.failures) END, 0))
           ORDER BY namespace.nspname, class.relname)::text
  FROM ({ours}) AS ours
       JOIN pg_catalog.pg_class AS class ON class.oid OPERATOR(pg_catalog.=) ours.relation
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) class.relnamespace
