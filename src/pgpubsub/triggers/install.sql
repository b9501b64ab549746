-- Installs a trigger, or replaces it. It is given what is wanted (see definition.py), the source of the function with
-- [[words]] for what is different each time, and the values of these. Those that depend on the table are found here, in
-- the catalogs: so this can stand in a migration, which is written without a connection.
DO {tag}
#variable_conflict use_column
DECLARE
    wanted CONSTANT jsonb := {wanted};
    given CONSTANT jsonb := {values};  -- by word
    parts CONSTANT text[] := pg_catalog.regexp_split_to_array({source}, '[[][[]|[]][]]');  -- text, word, text, ...
    its_table CONSTANT pg_catalog.oid := {table}::pg_catalog.regclass;
    its_path CONSTANT text := pg_catalog.current_setting('search_path');
    its_strings CONSTANT text := pg_catalog.current_setting('standard_conforming_strings');  -- how the condition is read
    its_name text;
    by_rows boolean;
    place record;  -- of the table
    keys text[];
    every text[];
    watched text[];  -- those that are sent
    wrong text;
    found jsonb;  -- the values
    pinned text;  -- settings, beside the path
    types text;
    source text;
    functions oid[];  -- of this trigger
    function record;  -- the one that may stay
    stem text;
    sequence_name text;
    comment text;
    states jsonb;  -- of its triggers: enabled or not
    usual text;  -- the state of all of them
    state text;
    event text;
    orphan record;
    number int := 1;
BEGIN
    -- From here on no names of others are seen. The table's was looked up before.
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    PERFORM set_config('standard_conforming_strings', 'on', true);
    PERFORM pg_advisory_xact_lock(hashtextextended('pgpubsub.triggers', its_table::bigint));
    its_name := wanted ->> 'name';
    by_rows := wanted ->> 'level' = 'row';
    SELECT namespace.nspname AS schema, class.relname AS name, class.relkind AS kind,
           format('%I.%I', namespace.nspname, class.relname) AS full_name,
           pg_get_userbyid(class.relowner) AS owner, class.relowner AS role
      INTO STRICT place
      FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
     WHERE class.oid = its_table;
    IF place.kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'pgpubsub: % cannot tell of changes, since it is %', place.full_name,
              CASE place.kind WHEN 'v' THEN 'a view, in which nothing is stored: take the tables that it reads'
                              WHEN 'm' THEN 'a materialized view, for which PostgreSQL has no triggers'
                              WHEN 'f' THEN 'a foreign table, whose rows are changed elsewhere'
                              ELSE 'no table' END
              USING ERRCODE = 'wrong_object_type';
    END IF;
    SELECT array_agg(attname::text ORDER BY attnum) INTO every
      FROM pg_attribute WHERE attrelid = its_table AND attnum > 0 AND NOT attisdropped;
    IF every IS NULL THEN
        RAISE EXCEPTION 'pgpubsub: % has no columns, so there is nothing to tell of', place.full_name
              USING ERRCODE = 'invalid_table_definition';
    END IF;
    SELECT coalesce(array_agg(attribute.attname::text ORDER BY part.place), '{}') INTO keys
      FROM pg_index AS index
           CROSS JOIN LATERAL unnest(index.indkey::int2[]) WITH ORDINALITY AS part (number, place)
           JOIN pg_attribute AS attribute
             ON attribute.attrelid = its_table AND attribute.attnum = part.number
     WHERE index.indrelid = its_table AND index.indisprimary AND part.place <= index.indnkeyatts;
    SELECT array_agg(name) INTO watched
      FROM jsonb_array_elements_text(nullif(wanted -> 'columns', 'null')) AS name;
    SELECT string_agg(name, ', ') INTO wrong FROM unnest(watched) AS name WHERE name <> ALL (every);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'pgpubsub: % has no column %; it has %', place.full_name, wrong, array_to_string(every, ', ')
              USING ERRCODE = 'undefined_column';
    END IF;
    SELECT string_agg(attname, ', ') INTO wrong FROM pg_attribute
     WHERE attrelid = its_table AND attname = ANY (watched) AND attgenerated = 'v';
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'pgpubsub: column % of % is generated when it is read, and not known to triggers', wrong, place.full_name
              USING ERRCODE = 'feature_not_supported', HINT = 'Take the columns that it is made of.';
    END IF;
    IF given ? 'channel' AND octet_length(wanted ->> 'to') > 63 THEN  -- nor could it be caught where it is notified
        RAISE EXCEPTION 'pgpubsub: the name of channel % has % bytes in this database''s encoding, and the limit is 63',
              wanted ->> 'to', octet_length(wanted ->> 'to')
              USING ERRCODE = 'invalid_name';
    END IF;
    IF wanted #>> '{to,stream}' IS NOT NULL
       AND to_regclass(format('%I.entry', wanted #>> '{to,schema}')) IS NULL THEN
        RAISE EXCEPTION 'pgpubsub: there are no streams in schema %', wanted #>> '{to,schema}'
              USING ERRCODE = 'undefined_table', HINT = 'Run pgpubsub.streams.install(conn) first.';
    END IF;

    -- Values for the words.
    WITH listed AS (
        SELECT attribute.attname AS name, attribute.attnum AS nth, to_json(attribute.attname)::text || ':' AS label,
               array_position(keys, attribute.attname::text) AS key_place, type.oid AS type,
               watched IS NULL OR attribute.attname = ANY (watched) AS is_sent,
               -- equal only if it looks equal: compared by that, since it is faster
               type.oid = ANY ('{bool,int2,int4,int8,text,varchar,uuid,date,timestamp,timestamptz}'::regtype[])
                   AND attribute.attcollation IN (0, '"default"'::regcollation) AS is_plain,
               -- whatever is set, it is the same JSON
               type.typtype = 'e' OR CASE type.typcategory WHEN 'A' THEN type.typelem ELSE type.oid END
                   = ANY ('{bool,int2,int4,int8,text,varchar,bpchar,uuid,date,time,timestamp,numeric,json,jsonb}'::regtype[]) AS is_steady,
               -- longer than so many bytes where it is stored, it is too long for a notification, and what is instead is not
               -- sent; jsonb and arrays may have some for each byte of their text
               CASE WHEN NOT by_rows OR NOT given ? 'channel' THEN NULL
                    WHEN basis.type = ANY ('{text,varchar,bpchar,json,xml,bytea}'::regtype[]) THEN 8100
                    WHEN basis.type = 'jsonb'::regtype OR basis.element = ANY ('{bool,int2,int4,int8,float4,float8,numeric,text,varchar,
                         bpchar,uuid,date,timestamp,timestamptz,json,jsonb}'::regtype[]) THEN 130000 END AS longest
          FROM pg_attribute AS attribute JOIN pg_type AS type ON type.oid = attribute.atttypid
               CROSS JOIN LATERAL (
                   WITH RECURSIVE domain AS (
                       SELECT type.oid, type.typbasetype, type.typcategory, type.typelem
                        UNION ALL
                       SELECT next.oid, next.typbasetype, next.typcategory, next.typelem
                         FROM domain JOIN pg_type AS next ON next.oid = domain.typbasetype)
                   SELECT oid AS type, CASE WHEN typcategory = 'A' THEN typelem END AS element FROM domain WHERE typbasetype = 0) AS basis
         WHERE attribute.attrelid = its_table AND attribute.attnum > 0 AND NOT attribute.attisdropped),
    columns AS (
        SELECT *, format(CASE WHEN is_plain THEN 'NEW.%1$I IS DISTINCT FROM OLD.%1$I'
                              ELSE 'record_image_ne(ROW(NEW.%1$I), ROW(OLD.%1$I))' END, name) AS differs
          FROM listed),
    of_row AS (
        SELECT image.word, image.row || '.*' AS whole,  -- with the asterisk, since a column may have the name
               string_agg(one.pair, ', ' ORDER BY nth) FILTER (WHERE is_sent) AS sent,
               string_agg(one.pair, ' || '','' || ' ORDER BY key_place) FILTER (WHERE key_place > 0) AS key,
               string_agg(format('to_json(%s) #>> ''{}''', one.value), ', ' ORDER BY key_place)
                   FILTER (WHERE key_place > 0) AS texts,
               string_agg(one.value, ', ' ORDER BY nth) FILTER (WHERE is_sent OR key_place > 0) AS looked_at,
               string_agg(format('pg_column_size(%s) > %s', one.value, longest), ' OR ')
                   FILTER (WHERE is_sent AND longest > 0) AS too_long
          FROM columns CROSS JOIN (VALUES ('new', 'NEW'), ('old', 'OLD')) AS image (word, row)
               CROSS JOIN LATERAL (
                   SELECT format('%s.%I', image.row, name) AS value,
                          format('%L || coalesce(to_json(%s.%I)::text, ''null'')', label, image.row, name) AS pair) AS one
         GROUP BY image.word, image.row),
    of_rows AS (
        SELECT jsonb_object_agg(word || '_key', CASE WHEN keys = '{}' THEN '''null''' ELSE format('''{'' || %s || ''}''', key) END)
               || jsonb_object_agg(word || '_text_key', CASE cardinality(keys)
                      WHEN 0 THEN 'NULL' WHEN 1 THEN texts ELSE format('to_json(ARRAY[%s])::text', texts) END)
               || jsonb_object_agg(word || '_row', CASE
                      WHEN (wanted -> 'key_only')::boolean OR word = 'old' AND NOT (wanted -> 'old')::boolean
                           OR word = 'old' AND NOT by_rows AND keys = '{}' THEN '''null'''
                      ELSE format(CASE WHEN too_long IS NULL THEN '%2$s' ELSE 'CASE WHEN %1$s THEN repeat(''?'', 8000) ELSE %2$s END' END,
                                  too_long,
                                  CASE WHEN watched IS NULL THEN format('row_to_json(%s)::text', whole)
                                       ELSE format('''{'' || array_to_string(ARRAY[%s], '','') || ''}''', sent) END) END)
               || jsonb_object_agg(word, CASE WHEN watched IS NULL THEN whole ELSE format('ROW(%s)', looked_at) END) AS words
          FROM of_row),
    of_both AS (
        SELECT string_agg(format(CASE WHEN longest > 0
                   THEN 'CASE WHEN %1$s THEN %2$L || CASE WHEN pg_column_size(NEW.%3$I) > %4$s THEN repeat(''?'', 8000)'
                        ' ELSE coalesce(to_json(NEW.%3$I)::text, ''null'') END END'
                   ELSE 'CASE WHEN %1$s THEN %2$L || coalesce(to_json(NEW.%3$I)::text, ''null'') END' END,
                   differs, label, name, longest), ', ' ORDER BY nth) FILTER (WHERE is_sent) AS changes,
               string_agg(differs, ' OR ') FILTER (WHERE key_place > 0) AS key_differs,
               -- by what the type's own operator says, if that can be seen; otherwise by their text
               string_agg(format(CASE WHEN type < 16384 THEN 'NEW.%1$I = OLD.%1$I' ELSE 'NEW.%1$I::text = OLD.%1$I::text' END,
                                 name), ' AND ') FILTER (WHERE key_place > 0) AS same_key,
               -- an instant has its offset with it; only as a key it has to look the same each time
               coalesce(bool_and(is_steady OR type = 'timestamptz'::regtype AND key_place IS NULL)
                            FILTER (WHERE is_sent OR key_place > 0), true) AS is_steady,
               string_agg(type::regtype::text, ',' ORDER BY nth) AS types
          FROM columns)
    SELECT given || of_rows.words || jsonb_build_object(
               'place', quote_literal('","schema":' || to_json(place.schema)::text || ',"table":'
                                      || to_json(place.name)::text || ',"key":'),
               'differs', format('record_image_ne(%s, %s)', of_rows.words ->> 'new', of_rows.words ->> 'old'),
               'changes', CASE WHEN (wanted -> 'key_only')::boolean OR (NOT by_rows AND keys = '{}') THEN '''null'''
                               ELSE format('''{'' || array_to_string(ARRAY[%s], '','') || ''}''', of_both.changes) END,
               'moved_from', CASE WHEN keys = '{}' THEN ''''''
                                  ELSE format('CASE WHEN %s THEN '',"old_key":'' || %s ELSE '''' END',
                                              key_differs, of_rows.words ->> 'old_key') END,
               'tail', format(''',"xid":'' || %s || '',"at":'' || to_json(clock_timestamp()) || ''}''',
                              CASE WHEN by_rows THEN 'pg_current_xact_id()'
                                   ELSE 'coalesce(pg_current_xact_id_if_assigned()::text, ''null'')' END),
               'is_new', CASE WHEN keys = '{}' THEN '(told.operation <> ''DELETE'')' ELSE format('num_nonnulls(NEW.%I) = 1', keys[1]) END,
               'is_old', CASE WHEN keys = '{}' THEN '(told.operation <> ''INSERT'')' ELSE format('num_nonnulls(OLD.%I) = 1', keys[1]) END,
               'has_key', (keys <> '{}')::text,
               -- the other row has the same columns, all null; the table itself is not named, which not everybody may see
               'inserted', 'new_rows AS new LEFT JOIN new_rows AS old ON false', 'inserted and changed', 'true',
               'deleted', 'old_rows AS old LEFT JOIN old_rows AS new ON false', 'deleted and changed', 'true',
               'updated', CASE WHEN keys = '{}' THEN 'new_rows AS new LEFT JOIN new_rows AS old ON false'
                               ELSE format('new_rows AS new FULL JOIN old_rows AS old ON %s', same_key) END,
               'updated and changed', CASE
                   WHEN keys = '{}' THEN format('EXISTS (SELECT (%s)::text FROM new_rows AS new EXCEPT ALL SELECT (%s)::text FROM old_rows AS old)',
                                                of_rows.words ->> 'new', of_rows.words ->> 'old')
                   ELSE format('num_nulls(NEW.%1$I, OLD.%1$I) > 0 OR record_image_ne(%2$s, %3$s)',
                               keys[1], of_rows.words ->> 'new', of_rows.words ->> 'old') END,
               'warning', quote_literal('pgpubsub: a change of ' || replace(place.full_name, '%', '%%')
                                        || ' could not be told in full: %')),
           CASE WHEN by_rows AND is_steady THEN ''
                ELSE $$"TimeZone" = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
                       SET extra_float_digits = 1 SET bytea_output = 'hex' SET$$ END
           || CASE WHEN strpos(given ->> 'when', chr(92)) > 0 THEN ' standard_conforming_strings = on SET' ELSE '' END,
           of_both.types
      INTO found, pinned, types
      FROM of_rows, of_both;
    SELECT string_agg(CASE WHEN part.place % 2 = 1 THEN part.text ELSE found ->> part.text END, '' ORDER BY part.place)
      INTO source FROM unnest(parts) WITH ORDINALITY AS part (text, place);
    comment := {mark} || (wanted || jsonb_build_object('source', md5(source || pinned || types)))::text;

    -- Nothing is locked where nothing is to be changed. Anybody may write a comment, so the name is looked for as text; and
    -- what is not the owner's is not taken over, since others may have been given rights on it.
    SELECT coalesce(array_agg(ours.function), '{}') INTO functions FROM ({ours}) AS ours
     WHERE ours.relation = its_table AND strpos(ours.settings, '"name": ' || to_jsonb(its_name)::text) > 0;
    SELECT * INTO function FROM ({ours}) AS ours
     WHERE ours.relation = its_table AND ours.function = ANY (functions) AND ours.owner = place.role AND ours.schema = place.schema;
    IF functions = ARRAY[function.function] AND function.settings = substr(comment, length({mark}) + 1)
       AND (SELECT count(*) FROM pg_trigger WHERE tgrelid = its_table AND tgfoid = function.function)
           = jsonb_array_length(wanted -> 'on') AND function.failures IS NOT NULL THEN
        PERFORM set_config('standard_conforming_strings', its_strings, true), set_config('search_path', its_path, true);
        RETURN;
    END IF;
    -- The condition is looked at now, as the function will see it, so that what is wrong with it is found here and not with
    -- each change. (A function's text is not looked at before it is run.)
    EXECUTE format('PREPARE pgpubsub_condition AS SELECT FROM %1$s AS new CROSS JOIN %1$s AS old CROSS JOIN '
                   '(SELECT NULL::text AS tg_op) AS operation WHERE %2$s', place.full_name, given ->> 'when');
    SELECT nullif(parameter_types, '{}')::text INTO wrong FROM pg_prepared_statements WHERE name = 'pgpubsub_condition';
    DEALLOCATE pgpubsub_condition;  -- which a rollback would not do
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'pgpubsub: the condition has a parameter, such as $1, and nothing to fill it in'
              USING ERRCODE = 'undefined_parameter';
    END IF;
    IF NOT by_rows AND keys = '{}' AND wanted -> 'on' ? 'update' THEN
        BEGIN
            EXECUTE format('PREPARE pgpubsub_condition AS SELECT FROM %s AS new CROSS JOIN '
                           '(SELECT NULL::text AS tg_op) AS operation WHERE %s', place.full_name, given ->> 'when');
            DEALLOCATE pgpubsub_condition;
        EXCEPTION WHEN undefined_table THEN
            RAISE EXCEPTION 'pgpubsub: the condition looks at OLD, and % has no primary key to tell which row was which', place.full_name
                  USING ERRCODE = 'feature_not_supported', HINT = 'Take level="row", or leave updates out.';
        END;
    END IF;
    SELECT string_agg(format('%I', tgname) || ' of ' || tgrelid::regclass, ', ') INTO wrong FROM pg_trigger
     WHERE tgrelid IN (SELECT its_table UNION ALL SELECT relid FROM pg_partition_tree(its_table))
       AND tgname IN (SELECT its_name || ' ' || jsonb_array_elements_text(wanted -> 'on'))
       AND tgfoid <> ALL (functions)
       AND (tgparentid = 0 OR tgrelid = its_table);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'pgpubsub: there are other triggers of this name: %', wrong
              USING ERRCODE = 'duplicate_object',
                    HINT = 'The triggers of a table tell of its partitions too. Give another name, or drop those first.';
    END IF;
    SELECT string_agg(format('%I', role), ', ') INTO wrong FROM (SELECT current_user UNION SELECT place.owner) AS its (role)
     WHERE NOT has_schema_privilege(role, place.schema, 'CREATE')
       AND (role = current_user OR NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user));
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'pgpubsub: % may not create the function of the trigger in schema %', wrong, place.schema
              USING ERRCODE = 'insufficient_privilege',
                    HINT = format('GRANT CREATE ON SCHEMA %I TO %s; or have a superuser install it.', place.schema, wrong);
    END IF;

    IF function.name IS NULL THEN
        stem := its_name || ' ' || place.name;
        WHILE octet_length(stem) > 50 LOOP
            stem := left(stem, -1);
        END LOOP;
        PERFORM pg_advisory_xact_lock(hashtextextended(format('pgpubsub.triggers %I.%I', place.schema, stem), 0));
        function.name := stem;
        WHILE EXISTS (SELECT FROM pg_proc WHERE pronamespace = quote_ident(place.schema)::regnamespace AND proname = function.name)
           OR to_regclass(format('%I.%I', place.schema, function.name || ' failures')) IS NOT NULL LOOP
            number := number + 1;
            function.name := stem || ' ' || number;
        END LOOP;
    END IF;
    sequence_name := format('%I.%I', place.schema, function.name || ' failures');
    IF to_regclass(sequence_name) IS NULL THEN
        EXECUTE format('CREATE SEQUENCE %s', sequence_name);
        EXECUTE format('GRANT USAGE ON SEQUENCE %s TO PUBLIC', sequence_name);
    END IF;
    EXECUTE format(
        'CREATE OR REPLACE FUNCTION %I.%I() RETURNS trigger LANGUAGE plpgsql %s SET %s search_path = pg_catalog, pg_temp AS %L',
        place.schema, function.name,
        CASE WHEN (wanted -> 'definer')::boolean THEN 'SECURITY DEFINER' ELSE 'SECURITY INVOKER' END, pinned, source);
    EXECUTE format('REVOKE ALL ON FUNCTION %I.%I() FROM PUBLIC', place.schema, function.name);
    EXECUTE format('COMMENT ON FUNCTION %I.%I() IS %L', place.schema, function.name, comment);
    SELECT coalesce(jsonb_object_agg(tgname, tgenabled), '{}'),
           CASE WHEN count(DISTINCT tgenabled) = 1 THEN min(tgenabled::text) ELSE 'O' END INTO states, usual
      FROM pg_trigger WHERE tgrelid = its_table AND tgfoid = ANY (functions);
    FOR event IN SELECT jsonb_object_keys(states) LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', event, place.full_name);
    END LOOP;
    FOR event IN SELECT jsonb_array_elements_text(wanted -> 'on') LOOP
        EXECUTE format(
            'CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH %s EXECUTE FUNCTION %I.%I()',
            its_name || ' ' || event, event, place.full_name,
            CASE WHEN by_rows OR event = 'truncate' THEN ''
                 ELSE 'REFERENCING' || CASE WHEN event IN ('insert', 'update') THEN ' NEW TABLE AS new_rows' ELSE '' END
                      || CASE WHEN event IN ('update', 'delete') THEN ' OLD TABLE AS old_rows' ELSE '' END END,
            CASE WHEN by_rows AND event <> 'truncate' THEN 'ROW' ELSE 'STATEMENT' END, place.schema, function.name);
        state := coalesce(states ->> (its_name || ' ' || event), usual);
        IF state <> 'O' THEN  -- somebody has chosen when it fires
            EXECUTE format('ALTER TABLE %s %s TRIGGER %I', place.full_name,
                           CASE state WHEN 'D' THEN 'DISABLE' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE REPLICA' END,
                           its_name || ' ' || event);
        END IF;
    END LOOP;
    -- The table's owner owns them: who makes partitions has to be able to use the function, and nobody is to get rights by it
    -- that he has not got.
    EXECUTE format('ALTER FUNCTION %I.%I() OWNER TO %I', place.schema, function.name, place.owner);
    EXECUTE format('ALTER SEQUENCE %s OWNER TO %I', sequence_name, place.owner);
    IF function.function IS NULL THEN
        {sweep}
    END IF;
    IF wanted #>> '{to,stream}' IS NOT NULL THEN
        BEGIN
            EXECUTE format('SELECT %I.register(ARRAY[%L])', wanted #>> '{to,schema}', wanted #>> '{to,stream}');
        EXCEPTION WHEN insufficient_privilege THEN  -- the first change does it
            NULL;
        END;
    END IF;
    PERFORM set_config('standard_conforming_strings', its_strings, true), set_config('search_path', its_path, true);
END
{tag};
