PERFORM nextval(sequence.oid)  -- found by name: in a dump, numbers are others; and whoever writes may not see the schema
   FROM pg_trigger AS trigger JOIN pg_proc AS function ON function.oid = trigger.tgfoid
        JOIN pg_class AS sequence
          ON sequence.relnamespace = function.pronamespace AND sequence.relname = function.proname || ' failures'
  WHERE trigger.tgrelid = TG_RELID AND trigger.tgname = TG_NAME;
