-- Step 2: the outbox. A row that could never be a message is refused here, at the insert, where
-- the application sees the error; past the commit only the relay would see it, and would stop.

CREATE TABLE walpost.outbox (
    id          uuid        NOT NULL DEFAULT gen_random_uuid(),
    destination text        NOT NULL,
    version     text        DEFAULT 'v1',
    key         text,
    headers     jsonb       DEFAULT '{}',
    body        jsonb,
    body_bytes  bytea,
    -- Not now(): rows of one transaction keep their order.
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid         xid8        NOT NULL DEFAULT pg_current_xact_id(),
    CONSTRAINT outbox_pkey PRIMARY KEY (id),
    CONSTRAINT outbox_destination_is_given CHECK (destination <> ''),
    CONSTRAINT outbox_headers_are_an_object CHECK (jsonb_typeof(headers) = 'object'),
    CONSTRAINT outbox_headers_have_names CHECK (NOT headers ? ''),
    CONSTRAINT outbox_has_at_most_one_body CHECK (body IS NULL OR body_bytes IS NULL)
);

-- From PostgreSQL 18 on the server makes ids that sort by time.
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 180000 THEN
        ALTER TABLE walpost.outbox ALTER COLUMN id SET DEFAULT uuidv7();
    END IF;
END
$$;

COMMENT ON TABLE walpost.outbox IS
    'Messages to publish: insert in your own transaction; walpost sends each row once it is committed';
COMMENT ON COLUMN walpost.outbox.id IS
    'Identity of the message; sent as msg-id, the same each time a message is repeated';
COMMENT ON COLUMN walpost.outbox.destination IS
    'Where to, for example /topic/orders; sent to destination.version by default';
COMMENT ON COLUMN walpost.outbox.version IS
    'Version of the message''s form; null or empty: the destination is used as it is';
COMMENT ON COLUMN walpost.outbox.key IS
    'Ordering key: messages of one key are first sent in commit order; null: the destination is the key';
COMMENT ON COLUMN walpost.outbox.headers IS
    'Headers of this message, a JSON object; they win over the configured ones';
COMMENT ON COLUMN walpost.outbox.body IS
    'Body as JSON, sent as PostgreSQL prints it; with neither body the message is empty';
COMMENT ON COLUMN walpost.outbox.body_bytes IS
    'Body as raw bytes, in place of body';
COMMENT ON COLUMN walpost.outbox.created_at IS
    'When the row was inserted';
COMMENT ON COLUMN walpost.outbox.xid IS
    'Transaction that inserted the row; walpost tells by it what has been delivered. Never set it yourself';
