-- Step 7: the outbox without a table. A transactional logical message is in the log alone: nothing is
-- left behind, and nothing can be published again. So both functions refuse where no slot of this
-- database would see it: it would be lost without a word.

-- The first line of the message says for whom it is, the body follows as it is (src/outbox/emitted.rs).
CREATE FUNCTION walpost.emit_content(
    destination text,
    version     text,
    key         text,
    headers     jsonb,
    body        bytea,
    bytes       boolean
) RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    message_id uuid := gen_random_uuid();
BEGIN
    IF destination IS NULL OR destination = '' THEN
        RAISE EXCEPTION 'a message needs a destination'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'For example: SELECT walpost.emit(''/topic/orders'', ''{"id": 1}'').';
    END IF;
    IF headers IS NOT NULL AND (jsonb_typeof(headers) <> 'object' OR headers ? '') THEN
        RAISE EXCEPTION 'the headers of a message are a JSON object, and each has a name'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'For example: headers => ''{"tenant": "a"}''.';
    END IF;
    -- What a slot that has found its starting point decodes: every transaction that goes on then.
    IF NOT EXISTS (
        SELECT FROM pg_replication_slots
        WHERE database = current_database() AND plugin = 'pgoutput'
            AND confirmed_flush_lsn IS NOT NULL AND wal_status IS DISTINCT FROM 'lost'
    ) THEN
        RAISE EXCEPTION 'no replication slot of database % would see this message', current_database()
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'An emitted message is in no table: it is lost unless walpost''s slot exists before. '
                      || 'Run: walpost init. Or use walpost.publish, whose rows wait.';
    END IF;
    PERFORM pg_logical_emit_message(true, 'walpost',
        convert_to(jsonb_build_object(
            'id', message_id, 'destination', destination, 'version', version, 'key', key,
            'headers', headers, 'bytes', bytes)::text || E'\n', 'UTF8')
        || coalesce(body, ''));
    RETURN message_id;
END
$$;

COMMENT ON FUNCTION walpost.emit_content(text, text, text, jsonb, bytea, boolean) IS
    'What walpost.emit and walpost.emit_bytes have in common';

-- From PostgreSQL 18 on the server makes ids that sort by time.
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        EXECUTE replace(
            pg_get_functiondef('walpost.emit_content(text, text, text, jsonb, bytea, boolean)'::regprocedure),
            'gen_random_uuid()', 'uuidv7()');
    END IF;
END
$$;

CREATE FUNCTION walpost.emit(
    destination text,
    body        jsonb,
    version     text  DEFAULT 'v1',
    key         text  DEFAULT NULL,
    headers     jsonb DEFAULT '{}'
) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walpost.emit_content(destination, version, key, headers, convert_to(body::text, 'UTF8'), false)
$$;

COMMENT ON FUNCTION walpost.emit(text, jsonb, text, text, jsonb) IS
    'Publishes a message with a JSON body when the present transaction commits, without a row in a table; returns its id';

CREATE FUNCTION walpost.emit_bytes(
    destination text,
    body        bytea,
    version     text  DEFAULT 'v1',
    key         text  DEFAULT NULL,
    headers     jsonb DEFAULT '{}'
) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT walpost.emit_content(destination, version, key, headers, body, true)
$$;

COMMENT ON FUNCTION walpost.emit_bytes(text, bytea, text, text, jsonb) IS
    'Publishes a message with a body of raw bytes when the present transaction commits, without a row in a table; returns its id';
