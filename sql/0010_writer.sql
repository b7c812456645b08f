-- Step 10: a role that may publish and nothing else. Its members need no right to read the outbox, so the
-- functions make the id beforehand rather than ask for that of the row.

DO $$
BEGIN
    EXECUTE format(
        'CREATE FUNCTION walpost.new_id() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE RETURN pg_catalog.%I()',
        CASE WHEN current_setting('server_version_num')::integer >= 180000 THEN 'uuidv7' ELSE 'gen_random_uuid' END);
END
$$;

COMMENT ON FUNCTION walpost.new_id() IS
    'An id for a message; from PostgreSQL 18 on it sorts by time';

CREATE OR REPLACE FUNCTION walpost.publish(
    destination text,
    body        jsonb,
    version     text  DEFAULT 'v1',
    key         text  DEFAULT NULL,
    headers     jsonb DEFAULT '{}'
) RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    message_id CONSTANT uuid := walpost.new_id();
BEGIN
    INSERT INTO walpost.outbox (id, destination, version, key, headers, body)
    VALUES (message_id, publish.destination, publish.version, publish.key, publish.headers, publish.body);
    RETURN message_id;
END
$$;

CREATE OR REPLACE FUNCTION walpost.publish_bytes(
    destination text,
    body        bytea,
    version     text  DEFAULT 'v1',
    key         text  DEFAULT NULL,
    headers     jsonb DEFAULT '{}'
) RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    message_id CONSTANT uuid := walpost.new_id();
BEGIN
    INSERT INTO walpost.outbox (id, destination, version, key, headers, body_bytes)
    VALUES (message_id, publish_bytes.destination, publish_bytes.version, publish_bytes.key,
            publish_bytes.headers, publish_bytes.body);
    RETURN message_id;
END
$$;

-- Roles are the whole cluster's: it may be there already, and two databases may make it at the same time.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'walpost_writer') THEN
        CREATE ROLE walpost_writer NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL;
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'role walpost_writer was not made: this role may make none'
            USING HINT = 'walpost init --dry-run prints what an administrator is to run.';
END
$$;

-- Not xid: walpost tells by it what has been delivered.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'walpost_writer') THEN
        GRANT USAGE ON SCHEMA walpost TO walpost_writer;
        GRANT INSERT (id, destination, version, key, headers, body, body_bytes, created_at)
            ON walpost.outbox TO walpost_writer;
    END IF;
END
$$;
