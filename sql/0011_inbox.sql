-- Step 11: what consumers have handled. The row and the effect of a function that is called commit
-- together, so that a message that comes again is known, and handled once.

CREATE TABLE walpost.inbox (
    queue       text        NOT NULL,
    message_id  text        NOT NULL,
    destination text        NOT NULL,
    headers     jsonb       NOT NULL,
    body        jsonb,
    body_bytes  bytea,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT inbox_pkey PRIMARY KEY (queue, message_id),
    CONSTRAINT inbox_has_at_most_one_body CHECK (body IS NULL OR body_bytes IS NULL)
);

-- Rows lie in about the order of their age. The clean-up finds old ones by it.
CREATE INDEX inbox_received_at ON walpost.inbox USING brin (received_at) WITH (autosummarize = on);

COMMENT ON TABLE walpost.inbox IS
    'Messages that consumers have handled, so that one that comes again is known; written by walpost, which deletes old rows';
COMMENT ON COLUMN walpost.inbox.queue IS
    'Queue that it came from; the same message from another queue is another row';
COMMENT ON COLUMN walpost.inbox.message_id IS
    'Identity of the message: its header cap-msg-id, else dop-msg-id, else msg-id, else message-id';
COMMENT ON COLUMN walpost.inbox.destination IS
    'Where it was sent to';
COMMENT ON COLUMN walpost.inbox.headers IS
    'Its headers, a JSON object';
COMMENT ON COLUMN walpost.inbox.body IS
    'Its body, if that is JSON';
COMMENT ON COLUMN walpost.inbox.body_bytes IS
    'Its body, if that is no JSON, or holds what jsonb can''t; with neither the body was empty';
COMMENT ON COLUMN walpost.inbox.received_at IS
    'When it was handled';
