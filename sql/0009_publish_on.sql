-- Step 9: publishing the rows of a table. publish_on writes a trigger function for the table, in the table's
-- own schema, for the table's owner: it has the rights of whoever writes the row, no more. All names in it
-- are qualified and it sets nothing, so that a serializer sees the search_path of the writer.
--
-- Row by row: a statement's transition tables would be cheaper, but their triggers miss what is written to a
-- partition by its own name, and fire behind what other triggers of the table have changed.
--
-- A registration is a trigger, whose one argument is the destination, and its function. Nothing else remembers
-- it, so that a dump brings all of it.

-- Always in quotes: PL/pgSQL has words of its own that format does not know of.
CREATE FUNCTION walpost.column_of(record text, name text) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN record || '."' || replace(name, '"', '""') || '"';

-- What the trigger function does for one row, "NEW" or "OLD".
CREATE FUNCTION walpost.publish_on_row(
    source regclass, destination text, fields text[], serializer regproc, version text, key text,
    events text[], record text
) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    primary_key int2[];
    key_fields  text[];
    used        int2[] := '{}';
    pairs       text[] := '{}';
    objects     text[] := '{}';
    checks      text[] := '{}';
    identity    text;
    key_value   text := 'NULL';
    code        text := '';
    attribute   record;
    -- Within a statement, so that an error's CONTEXT shows it.
    remedy CONSTANT text := 'A column is gone? Call walpost.publish_on again, as the comment on this function says';
BEGIN
    SELECT coalesce((SELECT indkey::int2[] FROM pg_index WHERE indrelid = source AND indisprimary), '{}')
    INTO primary_key;
    FOR attribute IN
        SELECT attnum, attname::text AS name, coalesce(walpost.body_expression(atttypid, value), value) AS form,
            attnum = ANY (primary_key) AS in_key, attname = publish_on_row.key AS is_key
        FROM pg_attribute, walpost.column_of(record, attname) AS value
        WHERE attrelid = source AND attnum > 0 AND NOT attisdropped
        ORDER BY array_position(primary_key, attnum), array_position(fields, attname::text), attnum
    LOOP
        IF attribute.is_key THEN
            used := used || attribute.attnum;
            -- As in the body, so that no setting of the session makes another key of it.
            key_value := format('pg_catalog.jsonb_build_array(%s) OPERATOR(pg_catalog.->>) 0', attribute.form);
        END IF;
        CONTINUE WHEN serializer IS NOT NULL;
        IF attribute.in_key THEN
            used := used || attribute.attnum;
            key_fields := key_fields || format('%L, %s', attribute.name, attribute.form);
            identity := attribute.form;
        END IF;
        -- The key is there already, as "id".
        IF (fields IS NULL AND NOT attribute.in_key)
            OR (attribute.name = ANY (fields) AND NOT (attribute.in_key AND attribute.name = 'id')) THEN
            used := used || attribute.attnum;
            pairs := pairs || format('%L, %s', attribute.name, attribute.form);
        END IF;
    END LOOP;

    -- A column whose type was changed would be written in another form.
    SELECT array_agg(format('pg_catalog.pg_typeof(%s) OPERATOR(pg_catalog.<>) %L::pg_catalog.regtype',
                            walpost.column_of(record, attname), atttypid::regtype) ORDER BY attnum)
    INTO checks FROM pg_attribute
    WHERE attrelid = source AND attnum = ANY (used) AND walpost.body_expression(atttypid, '') IS NOT NULL;
    IF checks IS NOT NULL THEN
        code := format(
            E'IF false /* %s */ OR %s THEN\n    RAISE EXCEPTION USING ERRCODE = ''datatype_mismatch'',\n'
            '        MESSAGE = pg_catalog.concat(''the type of a published column of '', TG_TABLE_NAME, '' has changed''),\n'
            '        HINT = ''Call walpost.publish_on again, as the comment on this trigger''''s function says.'';\nEND IF;\n',
            remedy, array_to_string(checks, ' OR '));
    END IF;

    IF serializer IS NOT NULL THEN
        SELECT format(E'body := %I.%I(%s);\nIF body IS NULL THEN\n    RAISE EXCEPTION USING ERRCODE = ''null_value_not_allowed'',\n'
            '        MESSAGE = %L,\n        HINT = ''It must return a body for each row.'';\nEND IF;\n',
            nspname, proname, record, format('serializer %I.%I has returned null', nspname, proname))
        INTO STRICT identity FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE pg_proc.oid = serializer;
        code := code || identity;
        objects := ARRAY['body'];
    ELSE
        IF cardinality(primary_key) > 1 THEN
            identity := format('pg_catalog.jsonb_build_object(%s)', array_to_string(key_fields, ', '));
        END IF;
        pairs := format('''id'', %s', identity) || pairs;
        -- A function has a hundred arguments at most.
        FOR place IN 1 .. cardinality(pairs) BY 45 LOOP
            objects := objects || format('pg_catalog.jsonb_build_object(%s)', array_to_string(pairs[place:place + 44], ', '));
        END LOOP;
    END IF;
    RETURN code || format(
        E'INSERT INTO walpost.outbox /* %s */\n'
        '    (destination, version, key, headers, body)\nVALUES (%L, %L, %s, %s, %s);\n',
        remedy, destination, version, key_value,
        -- Who publishes deletes must tell them from the rest.
        CASE WHEN 'delete' = ANY (events) THEN
            'pg_catalog.jsonb_build_object(''event'', pg_catalog.lower(TG_OP))' ELSE '''{}''' END,
        array_to_string(objects, ' OPERATOR(pg_catalog.||) '));
END
$$;

-- Whether all is well with what publish_on was told; otherwise an error that says what to type.
CREATE FUNCTION walpost.check_publish_on(
    source regclass, destination text, fields text[], serializer regproc, key text, events text[]
) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation  pg_class;
    function  pg_proc;
    columns   text;
    unknown   text;
    virtual   text;
BEGIN
    IF source IS NULL OR destination IS NULL OR destination = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'walpost.publish_on: source and destination must be given',
            HINT = 'For example: SELECT walpost.publish_on(''orders'', ''/topic/orders'')';
    END IF;
    SELECT * INTO relation FROM pg_class WHERE oid = source;
    IF NOT FOUND OR relation.relkind NOT IN ('r', 'p') OR relation.relpersistence = 't'
        OR relation.relnamespace = 'walpost'::regnamespace THEN
        RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
            MESSAGE = format('walpost.publish_on: %s is %s', source, CASE
                WHEN relation.relkind = 'v' THEN 'a view' WHEN relation.relkind = 'm' THEN 'a materialized view'
                WHEN relation.relkind = 'f' THEN 'a foreign table'
                WHEN relation.relpersistence = 't' THEN 'a temporary table'
                WHEN relation.relnamespace = 'walpost'::regnamespace THEN 'one of walpost''s own tables'
                ELSE 'no table' END),
            HINT = 'Name the table whose rows are to be published.';
    END IF;
    IF NOT pg_has_role(relation.relowner, 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
            MESSAGE = format('must be owner of table %s', source),
            HINT = format('SET ROLE %s', relation.relowner::regrole);
    END IF;
    SELECT e INTO unknown FROM unnest(events) AS e
    WHERE e IS NULL OR e NOT IN ('insert', 'update', 'delete') LIMIT 1;
    IF FOUND OR coalesce(cardinality(events), 0) = 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('walpost.publish_on: no such event: %s', coalesce(quote_literal(unknown), 'none at all')),
            HINT = 'events are some of insert, update and delete: events => ''{insert,update}''';
    END IF;
    -- A row that is moved to another partition is deleted and inserted: its update would not be seen.
    IF relation.relkind = 'p' AND 'update' = ANY (events) AND NOT 'insert' = ANY (events) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('walpost.publish_on: events of the partitioned table %s must hold insert beside update', source),
            HINT = 'An update that moves a row to another partition is an insert to a trigger: events => ''{insert,update}''';
    END IF;

    SELECT string_agg(attname, ', ' ORDER BY attnum), string_agg(attname, ', ' ORDER BY attnum) FILTER (
        WHERE attgenerated = 'v' AND (attname = key OR serializer IS NULL AND (fields IS NULL OR attname = ANY (fields))))
    INTO columns, virtual FROM pg_attribute WHERE attrelid = source AND attnum > 0 AND NOT attisdropped;
    SELECT name INTO unknown FROM unnest(fields || CASE WHEN key IS NOT NULL THEN ARRAY[key] END) AS name
    WHERE NOT EXISTS (SELECT FROM pg_attribute
        WHERE attrelid = source AND attname = name AND attnum > 0 AND NOT attisdropped) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_column',
            MESSAGE = format('walpost.publish_on: table %s has no column %s', source, coalesce(quote_literal(unknown), 'null')),
            HINT = format('Its columns: %s', columns);
    END IF;
    IF virtual IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_column_reference',
            MESSAGE = format('walpost.publish_on: a trigger can''t see the virtual generated column(s) %s of table %s', virtual, source),
            HINT = 'Make them STORED, or name the fields without them.';
    END IF;

    IF serializer IS NOT NULL THEN
        SELECT * INTO function FROM pg_proc WHERE oid = serializer;
        IF function.prokind <> 'f' OR function.proretset OR function.prorettype <> 'jsonb'::regtype
            OR function.pronargs <> 1 OR function.provariadic <> 0
            OR function.proargtypes[0] NOT IN ('record'::regtype, 'anyelement'::regtype)
            AND NOT EXISTS (
                WITH RECURSIVE family (relid) AS (
                    SELECT source::oid UNION SELECT inhparent FROM pg_inherits JOIN family ON inhrelid = relid)
                SELECT FROM family JOIN pg_class ON oid = relid WHERE reltype = function.proargtypes[0])
        THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_function_definition',
                MESSAGE = format('walpost.publish_on: function %s does not turn a row of %s into jsonb', serializer::regprocedure, source),
                HINT = format('CREATE FUNCTION my_serializer(%s) RETURNS jsonb ...', source);
        END IF;
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = source AND indisprimary) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_table_definition',
            MESSAGE = format('walpost.publish_on: table %s has no primary key, which is the "id" of the body', source),
            HINT = format('ALTER TABLE %s ADD PRIMARY KEY (...), or name a serializer', source);
    END IF;
    IF EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = source AND attname = 'id' AND NOT attisdropped
            AND (fields IS NULL OR 'id' = ANY (fields))
            AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = source AND indisprimary AND attnum = ANY (indkey)))
    THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_column',
            MESSAGE = format('walpost.publish_on: "id" of the body is the primary key of %s, which has another column id', source),
            HINT = 'Name the fields without id, or a serializer.';
    END IF;
END
$$;

-- The triggers that publish_on has made, but not the partitions' copies of them.
CREATE VIEW walpost.published_tables AS
SELECT tgrelid::regclass AS source,
    convert_from(substr(tgargs, 1, length(tgargs) - 1), getdatabaseencoding()) AS destination,
    array_remove(ARRAY[CASE WHEN tgtype & 4 <> 0 THEN 'insert' END, CASE WHEN tgtype & 16 <> 0 THEN 'update' END,
        CASE WHEN tgtype & 8 <> 0 THEN 'delete' END], NULL) AS events,
    tgname AS trigger, tgfoid::regprocedure AS function, obj_description(tgfoid, 'pg_proc') AS call
FROM pg_trigger
WHERE tgname LIKE '!walpost\_%' AND tgnargs = 1 AND tgparentid = 0 AND NOT tgisinternal;

COMMENT ON VIEW walpost.published_tables IS
    'The tables whose rows walpost.publish_on publishes, where to, and the call that says so';
-- Nothing that the catalogs do not tell everybody.
GRANT SELECT ON walpost.published_tables TO PUBLIC;

-- The table, and those that inherit from it without being its partitions: a trigger does not reach those by itself.
CREATE FUNCTION walpost.family(source regclass) RETURNS SETOF regclass
LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH RECURSIVE family (relid) AS (
        SELECT source::oid
        UNION
        SELECT inhrelid FROM pg_catalog.pg_inherits
            JOIN family ON inhparent = relid
            JOIN pg_catalog.pg_class ON pg_class.oid = relid AND pg_class.relkind = 'r')
    SELECT relid::regclass FROM family;
END;

-- Drops functions of publish_on that no trigger uses: of a table that was dropped, or that is published anew.
CREATE FUNCTION walpost.drop_unused_publishers(namespace oid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    unused regprocedure;
BEGIN
    FOR unused IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = namespace AND proname LIKE 'walpost\_publish\_%' AND prorettype = 'trigger'::regtype
            AND pg_has_role(proowner, 'USAGE') AND obj_description(oid, 'pg_proc') LIKE 'SELECT walpost.publish_on(%'
            AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = pg_proc.oid)
    LOOP
        EXECUTE format('DROP FUNCTION %s', unused);
    END LOOP;
END
$$;

CREATE FUNCTION walpost.publish_on(
    source      regclass,
    destination text,
    fields      text[]  DEFAULT NULL,
    serializer  regproc DEFAULT NULL,
    version     text    DEFAULT 'v1',
    key         text    DEFAULT NULL,
    events      text[]  DEFAULT '{insert,update}'
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation pg_class;
    code     text;
    publisher regprocedure;
    call     text;
    tables   regclass[];
    member   regclass;
    other    regclass;
    name     text;
BEGIN
    PERFORM walpost.check_publish_on(source, destination, fields, serializer, key, events);
    -- One call a table at a time; writers are held up only where something is changed.
    PERFORM pg_advisory_xact_lock(x'77616c70'::integer, source::oid::bigint::bit(32)::integer);
    SELECT * INTO STRICT relation FROM pg_class WHERE oid = source;
    SELECT array_agg(f ORDER BY f) INTO tables FROM walpost.family(source) AS f;

    -- A row would be published twice.
    SELECT p.source INTO other FROM walpost.published_tables AS p
    WHERE p.destination = publish_on.destination AND p.source <> publish_on.source
        AND (p.source IN (SELECT pg_partition_ancestors(publish_on.source))
             OR p.source IN (SELECT relid FROM pg_partition_tree(publish_on.source)))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
            MESSAGE = format('walpost.publish_on: rows of %s are published to %L by its relative %s already', source, destination, other),
            HINT = format('SELECT walpost.unpublish(%L, %L)', other, destination);
    END IF;

    events := ARRAY(SELECT DISTINCT unnest(events) ORDER BY 1);
    code := walpost.publish_on_row(source, destination, fields, serializer, version, key, events, 'NEW');
    IF events = '{delete}' THEN
        code := walpost.publish_on_row(source, destination, fields, serializer, version, key, events, 'OLD');
    ELSIF 'delete' = ANY (events) THEN
        code := format(E'IF TG_OP OPERATOR(pg_catalog.=) ''DELETE'' THEN\n%sELSE\n%sEND IF;\n',
            walpost.publish_on_row(source, destination, fields, serializer, version, key, events, 'OLD'), code);
    END IF;
    code := format(E'\nDECLARE\n    body pg_catalog.jsonb;\nBEGIN\n%sRETURN NULL;\nEND\n', code);
    call := format('SELECT walpost.publish_on(%L, %L, fields => %L, serializer => %L, version => %L, key => %L, events => %L)',
        source, destination, fields, serializer, version, key, events);

    -- The function of the registration that is there, unless others need it or it is not the owner's.
    SELECT p.function INTO publisher FROM walpost.published_tables AS p JOIN pg_proc ON pg_proc.oid = p.function
    WHERE p.source = publish_on.source AND p.destination = publish_on.destination
        AND proowner = relation.relowner AND pronamespace = relation.relnamespace
        AND NOT EXISTS (SELECT FROM walpost.published_tables AS o WHERE o.function = p.function AND o.source <> ALL (tables));
    IF FOUND AND (SELECT prosrc = code FROM pg_proc WHERE oid = publisher)
        AND (SELECT count(*) FROM walpost.published_tables AS p
             WHERE p.function = publisher AND ARRAY(SELECT unnest(p.events) ORDER BY 1) = publish_on.events) = cardinality(tables)
    THEN
        RETURN;
    END IF;
    FOR number IN 1 .. 100000 LOOP
        EXIT WHEN publisher IS NOT NULL;
        name := format('walpost_publish_%s_%s', number, relation.relname)::name;
        CONTINUE WHEN EXISTS (SELECT FROM pg_proc WHERE pronamespace = relation.relnamespace AND proname = name);
        EXECUTE format('CREATE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql AS ''BEGIN END''',
            relation.relnamespace::regnamespace, name);
        publisher := format('%s.%I()', relation.relnamespace::regnamespace, name)::regprocedure;
    END LOOP;
    EXECUTE format('CREATE OR REPLACE FUNCTION %s RETURNS trigger LANGUAGE plpgsql AS %L', publisher, code);
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', publisher, call);
    IF (SELECT proowner <> relation.relowner FROM pg_proc WHERE oid = publisher) THEN
        EXECUTE format('ALTER FUNCTION %s OWNER TO %s', publisher, relation.relowner::regrole);
    END IF;

    FOREACH member IN ARRAY tables LOOP
        SELECT p.trigger INTO name FROM walpost.published_tables AS p
        WHERE p.source = member AND p.destination = publish_on.destination;
        IF NOT FOUND THEN
            -- Before all others of the table: what those change is published behind this.
            SELECT '!walpost_' || lpad((coalesce(max(substr(tgname, 10, 5)::integer), 0) + 1)::text, 5, '0')
            INTO name FROM pg_trigger WHERE tgrelid = member AND tgname ~ '^!walpost_[0-9]{5}$';
        END IF;
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s FOR EACH ROW EXECUTE FUNCTION %s',
            name, array_to_string(events, ' OR '), member, left(publisher::text, -2) || format('(%L)', destination));
    END LOOP;
    PERFORM walpost.drop_unused_publishers(relation.relnamespace);
END
$$;

COMMENT ON FUNCTION walpost.publish_on(regclass, text, text[], regproc, text, text, text[]) IS
    'Publishes what is written to a table, a message a row, in the writer''s own transaction; see docs/publishing.md';

CREATE FUNCTION walpost.unpublish(source regclass, destination text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    published record;
    found_one boolean := false;
BEGIN
    IF source IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'walpost.unpublish: source must be given',
            HINT = 'SELECT source, destination FROM walpost.published_tables';
    END IF;
    PERFORM pg_advisory_xact_lock(x'77616c70'::integer, source::oid::bigint::bit(32)::integer);
    FOR published IN
        SELECT p.source, p.trigger FROM walpost.published_tables AS p JOIN walpost.family(unpublish.source) AS f ON p.source = f
        WHERE unpublish.destination IS NULL OR p.destination = unpublish.destination
        ORDER BY p.source, p.trigger
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', published.trigger, published.source);
        found_one := true;
    END LOOP;
    IF NOT found_one AND destination IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object',
            MESSAGE = format('walpost.unpublish: table %s is not published to %L', source, destination),
            HINT = 'SELECT source, destination FROM walpost.published_tables';
    END IF;
    PERFORM walpost.drop_unused_publishers((SELECT relnamespace FROM pg_class WHERE oid = source));
END
$$;

COMMENT ON FUNCTION walpost.unpublish(regclass, text) IS
    'Takes back walpost.publish_on: for one destination, or for all';
