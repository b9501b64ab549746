SELECT DISTINCT trigger.tgrelid AS relation, function.oid AS function, function.proname AS name,
       namespace.nspname AS schema, function.proowner AS owner, failures.oid AS failures, ours.settings
  FROM pg_catalog.pg_proc AS function
       JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid OPERATOR(pg_catalog.=) function.pronamespace
       LEFT JOIN pg_catalog.pg_trigger AS trigger
         ON trigger.tgfoid OPERATOR(pg_catalog.=) function.oid AND trigger.tgparentid OPERATOR(pg_catalog.=) 0
       LEFT JOIN pg_catalog.pg_class AS failures
         ON failures.relnamespace OPERATOR(pg_catalog.=) function.pronamespace AND failures.relkind OPERATOR(pg_catalog.=) 'S'
        AND failures.relname OPERATOR(pg_catalog.=) pg_catalog.concat(function.proname, ' failures')
        AND failures.relowner OPERATOR(pg_catalog.=) function.proowner
       CROSS JOIN LATERAL (SELECT pg_catalog.obj_description(function.oid, 'pg_proc') AS comment OFFSET 0) AS its
       CROSS JOIN LATERAL (
           SELECT CASE WHEN pg_catalog.starts_with(its.comment, {mark})
                       THEN pg_catalog.substr(its.comment, pg_catalog.length({mark}) OPERATOR(pg_catalog.+) 1) END AS settings) AS ours
 WHERE function.prorettype OPERATOR(pg_catalog.=) 'pg_catalog.trigger'::pg_catalog.regtype
   AND function.pronargs OPERATOR(pg_catalog.=) 0 AND ours.settings IS NOT NULL
