-- Step 6: messages that the broker refuses, so that they hold up neither the WAL nor the others. A
-- relay touches only the rows of its own slot; operators change states only.

CREATE TABLE walpost.undelivered (
    id               bigint      GENERATED ALWAYS AS IDENTITY,
    slot             text        NOT NULL,
    state            text        NOT NULL,
    message_id       text,
    destination      text,
    key              text,
    headers          jsonb,
    body             bytea,
    error            text,
    attempts         integer     NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz,
    lsn              pg_lsn,
    change_lsn       pg_lsn,
    place            bigint,
    failed_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid              bigint,
    commit_time      timestamptz,
    table_oid        oid,
    table_name       text,
    unfit            boolean     NOT NULL DEFAULT false,
    -- An index can't hold a destination of any length.
    destination_hash bigint      GENERATED ALWAYS AS (hashtextextended(destination, 0)) STORED,
    CONSTRAINT undelivered_pkey PRIMARY KEY (id),
    CONSTRAINT undelivered_state_is_known CHECK (state IN ('retrying', 'dead', 'discarded')),
    CONSTRAINT undelivered_retrying_has_a_destination CHECK (state <> 'retrying' OR destination IS NOT NULL),
    CONSTRAINT undelivered_headers_are_an_object CHECK (jsonb_typeof(headers) = 'object'),
    CONSTRAINT undelivered_identity_is_whole
        CHECK (num_nulls(lsn, xid, commit_time, change_lsn, place) IN (0, 5))
);

-- What PostgreSQL sends again is not kept a second time.
CREATE UNIQUE INDEX undelivered_identity
    ON walpost.undelivered (slot, lsn, xid, commit_time, change_lsn, place) WHERE lsn IS NOT NULL;
CREATE INDEX undelivered_retrying
    ON walpost.undelivered (slot, destination_hash, id) WHERE state = 'retrying';
CREATE INDEX undelivered_dead
    ON walpost.undelivered (slot, destination_hash, id) WHERE state = 'dead';
CREATE INDEX undelivered_discarded
    ON walpost.undelivered (slot, id) WHERE state = 'discarded';
CREATE INDEX undelivered_message_id
    ON walpost.undelivered (slot, hashtextextended(message_id, 0));

COMMENT ON TABLE walpost.undelivered IS
    'Messages that the broker refuses and that are tried again, and those that were given up; see walpost undelivered';
COMMENT ON COLUMN walpost.undelivered.id IS
    'Number of the row; of one destination in the order of sending';
COMMENT ON COLUMN walpost.undelivered.slot IS
    'Replication slot whose walpost keeps the row; no other one touches it';
COMMENT ON COLUMN walpost.undelivered.state IS
    'retrying: it is tried again, in its turn; dead: it was given up, and waits for an operator; discarded: an operator has thrown it away, the row goes by itself';
COMMENT ON COLUMN walpost.undelivered.message_id IS
    'Identity of the message, sent as msg-id; null: the row that it was made of has none';
COMMENT ON COLUMN walpost.undelivered.destination IS
    'Where to, as it is sent; null: it could not be made out, so that the message can''t be sent';
COMMENT ON COLUMN walpost.undelivered.key IS
    'Ordering key; null: the destination is the key';
COMMENT ON COLUMN walpost.undelivered.headers IS
    'Headers as they are sent, name to value; null: discarded';
COMMENT ON COLUMN walpost.undelivered.body IS
    'Body as it is sent; null: discarded, or the row was too long to be kept';
COMMENT ON COLUMN walpost.undelivered.error IS
    'What the broker said the last time, or why the message can''t be sent';
COMMENT ON COLUMN walpost.undelivered.unfit IS
    'The message can''t be sent as it is: only an operator has it tried again';
COMMENT ON COLUMN walpost.undelivered.attempts IS
    'How often it was sent in vain';
COMMENT ON COLUMN walpost.undelivered.next_attempt_at IS
    'When it is sent again at the earliest, if it is the first one of its destination; null: it is not';
COMMENT ON COLUMN walpost.undelivered.lsn IS
    'Position of the commit of its transaction; null, as the next four: the row was read from the table, not from the slot';
COMMENT ON COLUMN walpost.undelivered.change_lsn IS
    'Position of the insert within the transaction';
COMMENT ON COLUMN walpost.undelivered.place IS
    'Place among the changes at change_lsn, from 0';
COMMENT ON COLUMN walpost.undelivered.failed_at IS
    'When it was put here';
COMMENT ON COLUMN walpost.undelivered.xid IS
    'Id of its transaction, as the slot names it';
COMMENT ON COLUMN walpost.undelivered.commit_time IS
    'When its transaction was committed';
COMMENT ON COLUMN walpost.undelivered.table_oid IS
    'Oid of the outbox table; null: it came from no table (pg_logical_emit_message)';
COMMENT ON COLUMN walpost.undelivered.table_name IS
    'Name of that table when the row was put here, as schema.name';
COMMENT ON COLUMN walpost.undelivered.destination_hash IS
    'Hash of the destination, by which rows are found';
