-- Installs a trigger, or replaces it. It is given what is wanted (see definition.py), the source of the function with
-- [[words]] for what is different each time, and the values of these. Those that depend on the table are found here, in
-- the catalogs: so this can stand in a migration, which is written without a connection.
DO {tag}
DECLARE
    wanted CONSTANT jsonb := {wanted};
    given CONSTANT jsonb := {values};  -- by word
    parts CONSTANT text[] := pg_catalog.regexp_split_to_array({source}, '[[][[]|[]][]]');  -- text, word, text, ...
    its_table CONSTANT pg_catalog.oid := {table}::pg_catalog.regclass;
    its_name text;
    its_path CONSTANT text := pg_catalog.current_setting('search_path');
    by_rows boolean;
    place record;  -- of the table
    keys text[];
    every text[];
    watched text[];  -- those that are sent
    unknown text[];
    found jsonb;  -- the values
    source text;
    function_schema text;
    its_function pg_catalog.oid;
    function_name text;
    sequence_name text;
    known text;
    comment text;
    event text;
    number int := 1;
BEGIN
    -- From here on no names of others are seen. The table's was looked up before.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM pg_advisory_xact_lock(hashtextextended('pgpubsub.triggers', its_table::bigint));
    its_name := wanted ->> 'name';
    by_rows := wanted ->> 'level' = 'row';
    SELECT namespace.nspname AS schema, class.relname AS name, class.relkind AS kind,
           pg_catalog.format('%I.%I', namespace.nspname, class.relname) AS full_name
           , pg_catalog.pg_get_userbyid(class.relowner) AS owner
      INTO STRICT place
      FROM pg_catalog.pg_class AS class JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
     WHERE class.oid = its_table;
    IF place.kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'pgpubsub: % cannot tell of changes, since it is %', place.full_name,
              CASE place.kind WHEN 'v' THEN 'a view, in which nothing is stored: take the tables that it reads'
                              WHEN 'm' THEN 'a materialized view, for which PostgreSQL has no triggers'
                              WHEN 'f' THEN 'a foreign table, whose rows are changed elsewhere'
                              ELSE 'no table' END
              USING ERRCODE = 'wrong_object_type';
    END IF;
    SELECT pg_catalog.array_agg(attname::text ORDER BY attnum) INTO every
      FROM pg_catalog.pg_attribute WHERE attrelid = its_table AND attnum > 0 AND NOT attisdropped;
    SELECT coalesce(pg_catalog.array_agg(attribute.attname::text ORDER BY part.place), '{}') INTO keys
      FROM pg_catalog.pg_index AS index
           CROSS JOIN LATERAL pg_catalog.unnest(index.indkey::int2[]) WITH ORDINALITY AS part (number, place)
           JOIN pg_catalog.pg_attribute AS attribute
             ON attribute.attrelid = its_table AND attribute.attnum = part.number
     WHERE index.indrelid = its_table AND index.indisprimary AND part.place <= index.indnkeyatts;
    SELECT pg_catalog.array_agg(name) INTO watched
      FROM pg_catalog.jsonb_array_elements_text(nullif(wanted -> 'columns', 'null')) AS name;
    SELECT pg_catalog.array_agg(name) INTO unknown FROM pg_catalog.unnest(watched) AS name WHERE name <> ALL (every);
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'pgpubsub: % has no column %; it has %', place.full_name,
              pg_catalog.array_to_string(unknown, ', '), pg_catalog.array_to_string(every, ', ')
              USING ERRCODE = 'undefined_column';
    END IF;
    IF wanted #>> '{to,stream}' IS NOT NULL
       AND pg_catalog.to_regclass(pg_catalog.format('%I.entry', wanted #>> '{to,schema}')) IS NULL THEN
        RAISE EXCEPTION 'pgpubsub: there are no streams in schema %', wanted #>> '{to,schema}'
              USING ERRCODE = 'undefined_table', HINT = 'Run pgpubsub.streams.install(conn) first.';
    END IF;

    -- Values for the words.
    WITH image (words, row) AS (VALUES ('new', 'NEW'), ('old', 'OLD')),
    of_row AS (
        SELECT words,
               pg_catalog.format('''{'' || array_to_string(ARRAY[%s], '','') || ''}''', pg_catalog.string_agg(
                   pg_catalog.format('%L || coalesce(to_json(%s.%I)::text, ''null'')',
                                     pg_catalog.to_json(one.name)::text || ':', row, one.name), ', ' ORDER BY one.place)
                   FILTER (WHERE one.name = ANY (watched))) AS columns,
               pg_catalog.format('''{'' || array_to_string(ARRAY[%s], '','') || ''}''', pg_catalog.string_agg(
                   pg_catalog.format('%L || coalesce(to_json(%s.%I)::text, ''null'')',
                                     pg_catalog.to_json(one.name)::text || ':', row, one.name),
                   ', ' ORDER BY pg_catalog.array_position(keys, one.name))
                   FILTER (WHERE one.name = ANY (keys))) AS key,
               pg_catalog.string_agg(pg_catalog.format('to_json(%s.%I) #>> ''{}''', row, one.name),
                                     ', ' ORDER BY pg_catalog.array_position(keys, one.name))
                   FILTER (WHERE one.name = ANY (keys)) AS texts,
               pg_catalog.string_agg(pg_catalog.format('%s.%I', row, one.name), ', ' ORDER BY one.place)
                   FILTER (WHERE one.name = ANY (watched || keys)) AS looked_at,
               pg_catalog.string_agg(pg_catalog.format('%s.%I', row, one.name), ', ')
                   FILTER (WHERE one.name = ANY (keys)) AS key_columns
          FROM image CROSS JOIN pg_catalog.unnest(every) WITH ORDINALITY AS one (name, place)
         GROUP BY words, row),
    both_rows AS (
        SELECT pg_catalog.string_agg(
                   pg_catalog.format('CASE WHEN record_image_ne(ROW(NEW.%1$I), ROW(OLD.%1$I)) THEN %2$L || coalesce(to_json(NEW.%1$I)::text, ''null'') END',
                                     one.name, pg_catalog.to_json(one.name)::text || ':'), ', ' ORDER BY one.place)
                   FILTER (WHERE watched IS NULL OR one.name = ANY (watched)) AS changes
          FROM pg_catalog.unnest(every) WITH ORDINALITY AS one (name, place)),
    same AS (  -- by what the type's own operator says, if that can be seen; otherwise by their text
        SELECT pg_catalog.string_agg(pg_catalog.format(
                   CASE WHEN attribute.atttypid < 16384 THEN 'NEW.%1$I = OLD.%1$I' ELSE 'NEW.%1$I::text = OLD.%1$I::text' END,
                   attribute.attname), ' AND ') AS key
          FROM pg_catalog.pg_attribute AS attribute
         WHERE attribute.attrelid = its_table AND attribute.attname = ANY (keys))
    SELECT given || pg_catalog.jsonb_build_object(
               'place', pg_catalog.quote_literal('","schema":' || pg_catalog.to_json(place.schema)::text || ',"table":'
                                                 || pg_catalog.to_json(place.name)::text || ',"key":'),
               'new_key', CASE WHEN keys = '{}' THEN '''null''' ELSE new.key END,
               'old_key', CASE WHEN keys = '{}' THEN '''null''' ELSE old.key END,
               'new_text_key', CASE cardinality(keys) WHEN 0 THEN 'NULL' WHEN 1 THEN new.texts
                                    ELSE pg_catalog.format('to_json(ARRAY[%s])::text', new.texts) END,
               'old_text_key', CASE cardinality(keys) WHEN 0 THEN 'NULL' WHEN 1 THEN old.texts
                                    ELSE pg_catalog.format('to_json(ARRAY[%s])::text', old.texts) END,
               'new_row', CASE WHEN (wanted -> 'key_only')::boolean THEN '''null'''
                               WHEN watched IS NULL THEN 'row_to_json(NEW)::text' ELSE new.columns END,
               'old_row', CASE WHEN NOT (wanted -> 'old')::boolean OR (NOT by_rows AND keys = '{}') THEN '''null'''
                               WHEN watched IS NULL THEN 'row_to_json(OLD)::text' ELSE old.columns END,
               'changes', CASE WHEN (wanted -> 'key_only')::boolean OR (NOT by_rows AND keys = '{}') THEN '''null'''
                               ELSE pg_catalog.format('''{'' || array_to_string(ARRAY[%s], '','') || ''}''', both_rows.changes) END,
               'differs', CASE WHEN watched IS NULL THEN 'record_image_ne(NEW, OLD)'
                               ELSE pg_catalog.format('record_image_ne(ROW(%s), ROW(%s))', new.looked_at, old.looked_at) END,
               'moved_from', CASE WHEN keys = '{}' THEN ''''''
                                  ELSE pg_catalog.format(
                                      'CASE WHEN record_image_ne(ROW(%s), ROW(%s)) THEN '',"old_key":'' || %s ELSE '''' END',
                                      new.key_columns, old.key_columns, old.key) END,
               'tail', ''',"xid":'' || pg_current_xact_id() || '',"at":'' || to_json(clock_timestamp()) || ''}''',
               'is_new', CASE WHEN keys = '{}' THEN 'true' ELSE pg_catalog.format('num_nonnulls(NEW.%I) = 1', keys[1]) END,
               'is_old', CASE WHEN keys = '{}' THEN 'true' ELSE pg_catalog.format('num_nonnulls(OLD.%I) = 1', keys[1]) END,
               'changed', CASE WHEN keys = '{}' THEN 'true'
                               WHEN watched IS NULL THEN pg_catalog.format('num_nulls(NEW.%1$I, OLD.%1$I) > 0 OR record_image_ne(NEW, OLD)', keys[1])
                               ELSE pg_catalog.format('num_nulls(NEW.%1$I, OLD.%1$I) > 0 OR record_image_ne(ROW(%2$s), ROW(%3$s))',
                                                      keys[1], new.looked_at, old.looked_at) END,
               'has_key', CASE WHEN keys = '{}' THEN 'false' ELSE 'true' END,
               'inserted', pg_catalog.format('new_rows AS new CROSS JOIN (SELECT (NULL::%s).*) AS old', place.full_name),
               'deleted', pg_catalog.format('old_rows AS old CROSS JOIN (SELECT (NULL::%s).*) AS new', place.full_name),
               'updated', CASE WHEN keys = '{}'
                               THEN pg_catalog.format('new_rows AS new CROSS JOIN (SELECT (NULL::%s).*) AS old', place.full_name)
                               ELSE pg_catalog.format('new_rows AS new FULL JOIN old_rows AS old ON %s', same.key) END,
               'warning', pg_catalog.quote_literal('pgpubsub: a change of ' || pg_catalog.replace(place.full_name, '%', '%%')
                                                   || ' could not be told in full: %'))
      INTO found
      FROM of_row AS new, of_row AS old, both_rows, same WHERE new.words = 'new' AND old.words = 'old';

    -- The function, found by the triggers that are there, or else with a name that nothing has.
    SELECT DISTINCT proc.oid, proc.proname::text, proc.pronamespace::regnamespace::text
      INTO its_function, function_name, function_schema
      FROM pg_catalog.pg_trigger AS trigger JOIN pg_catalog.pg_proc AS proc ON proc.oid = trigger.tgfoid
     WHERE trigger.tgrelid = its_table AND trigger.tgparentid = 0
       AND pg_catalog.starts_with(pg_catalog.obj_description(proc.oid, 'pg_proc'), {mark})
       AND pg_catalog.substr(pg_catalog.obj_description(proc.oid, 'pg_proc'), {mark_length} + 1)::jsonb ->> 'name' = its_name;
    IF its_function IS NULL THEN
        function_schema := quote_ident(place.schema);
        function_name := its_name || ' ' || place.name;
        WHILE pg_catalog.octet_length(function_name) > 50 LOOP
            function_name := pg_catalog.left(function_name, -1);
        END LOOP;
        known := function_name;
        WHILE EXISTS (SELECT FROM pg_catalog.pg_proc AS proc
                        JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = proc.pronamespace
                       WHERE namespace.nspname = place.schema AND proc.proname = function_name)
           OR pg_catalog.to_regclass(pg_catalog.format('%I.%I', place.schema, function_name || ' failures')) IS NOT NULL LOOP
            number := number + 1;
            function_name := known || ' ' || number;
        END LOOP;
    END IF;
    sequence_name := pg_catalog.format('%s.%I', function_schema, function_name || ' failures');
    found := found || pg_catalog.jsonb_build_object(
        'failures', pg_catalog.quote_literal(sequence_name) || '::regclass');
    SELECT pg_catalog.string_agg(CASE WHEN part.place % 2 = 1 THEN part.text ELSE found ->> part.text END, '' ORDER BY part.place)
      INTO source FROM pg_catalog.unnest(parts) WITH ORDINALITY AS part (text, place);
    comment := {mark} || (wanted || pg_catalog.jsonb_build_object('source', pg_catalog.md5(source)))::text;

    -- Nothing is locked where nothing is to be changed.
    IF its_function IS NOT NULL AND pg_catalog.obj_description(its_function, 'pg_proc') = comment
       AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger
             WHERE tgrelid = its_table AND tgfoid = its_function AND tgenabled <> 'D')
           = pg_catalog.jsonb_array_length(wanted -> 'on') THEN
        PERFORM set_config('search_path', its_path, true);
        RETURN;
    END IF;
    -- The condition is looked at now, as the function will see it, so that what is wrong with it is found here and not with
    -- each change. (A function's text is not looked at before it is run.)
    EXECUTE pg_catalog.format('PREPARE pgpubsub_condition AS SELECT FROM %1$s AS new CROSS JOIN %1$s AS old CROSS JOIN '
                              '(SELECT NULL::text AS tg_op) AS operation WHERE %2$s', place.full_name, given ->> 'when');
    DEALLOCATE pgpubsub_condition;

    IF pg_catalog.to_regclass(sequence_name) IS NULL THEN
        EXECUTE pg_catalog.format('CREATE SEQUENCE %s', sequence_name);
        EXECUTE pg_catalog.format('GRANT USAGE ON SEQUENCE %s TO PUBLIC', sequence_name);
    END IF;
    EXECUTE pg_catalog.format(
        'CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql %s SET search_path = pg_catalog, pg_temp AS %L',
        function_schema, function_name,
        CASE WHEN (wanted -> 'definer')::boolean THEN 'SECURITY DEFINER' ELSE 'SECURITY INVOKER' END, source);
    EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s.%I() FROM PUBLIC', function_schema, function_name);
    EXECUTE pg_catalog.format('COMMENT ON FUNCTION %s.%I() IS %L', function_schema, function_name, comment);
    FOR event IN SELECT tgname FROM pg_catalog.pg_trigger WHERE tgrelid = its_table AND tgfoid = its_function LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', event, place.full_name);
    END LOOP;
    FOR event IN SELECT pg_catalog.jsonb_array_elements_text(wanted -> 'on') LOOP
        EXECUTE pg_catalog.format(
            'CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH %s EXECUTE FUNCTION %s.%I()',
            its_name || ' ' || event, event, place.full_name,
            CASE WHEN by_rows OR event = 'truncate' THEN ''
                 ELSE 'REFERENCING' || CASE WHEN event IN ('insert', 'update') THEN ' NEW TABLE AS new_rows' ELSE '' END
                      || CASE WHEN event IN ('update', 'delete') THEN ' OLD TABLE AS old_rows' ELSE '' END END,
            CASE WHEN by_rows AND event <> 'truncate' THEN 'ROW' ELSE 'STATEMENT' END, function_schema, function_name);
    END LOOP;
    -- The table's owner owns them: who makes partitions has to be able to use the function, and nobody is to get rights by it
    -- that he has not got.
    IF place.owner <> current_user THEN
        EXECUTE format('ALTER FUNCTION %s.%I() OWNER TO %I', function_schema, function_name, place.owner);
        EXECUTE format('ALTER SEQUENCE %s OWNER TO %I', sequence_name, place.owner);
    END IF;
    PERFORM set_config('search_path', its_path, true);
END
{tag};
