-- What tables of this owner that were dropped, or this one that was moved, have left behind.
IF pg_try_advisory_xact_lock(hashtextextended(format('pgpubsub.triggers %I', place.schema), 0)) THEN  -- or others do it
    FOR orphan IN SELECT * FROM ({ours}) AS ours
                   WHERE ours.relation IS NULL AND ours.owner = place.role
                     AND (ours.schema = place.schema OR ours.function = ANY (functions)) LOOP
        BEGIN
            EXECUTE format('DROP FUNCTION IF EXISTS %I.%I()', orphan.schema, orphan.name);
            IF orphan.failures IS NOT NULL THEN
                EXECUTE format('DROP SEQUENCE IF EXISTS %I.%I', orphan.schema, orphan.name || ' failures');
            END IF;
        EXCEPTION WHEN OTHERS THEN  -- somebody needs it
            NULL;
        END;
    END LOOP;
END IF;
