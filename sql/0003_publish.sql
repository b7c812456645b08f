-- Step 3: publishing in one call. Both functions run with the caller's rights and a pinned
-- search_path, so that neither a schema nor a temporary table can put another outbox in between.

CREATE FUNCTION walpost.publish(
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
    message_id uuid;
BEGIN
    INSERT INTO walpost.outbox (destination, version, key, headers, body)
    VALUES (publish.destination, publish.version, publish.key, publish.headers, publish.body)
    RETURNING outbox.id INTO STRICT message_id;
    RETURN message_id;
END
$$;

COMMENT ON FUNCTION walpost.publish(text, jsonb, text, text, jsonb) IS
    'Puts a message with a JSON body into the outbox, in the present transaction; returns its id';

CREATE FUNCTION walpost.publish_bytes(
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
    message_id uuid;
BEGIN
    INSERT INTO walpost.outbox (destination, version, key, headers, body_bytes)
    VALUES (publish_bytes.destination, publish_bytes.version, publish_bytes.key,
            publish_bytes.headers, publish_bytes.body)
    RETURNING outbox.id INTO STRICT message_id;
    RETURN message_id;
END
$$;

COMMENT ON FUNCTION walpost.publish_bytes(text, bytea, text, text, jsonb) IS
    'Puts a message with a body of raw bytes into the outbox, in the present transaction; returns its id';
