-- Step 4: what walpost remembers of each slot. The row is written before the slot is made, so that a
-- slot that is not there yet is told from one that is there no more.

CREATE TABLE walpost.relay (
    slot              text        NOT NULL,
    system_identifier bigint      NOT NULL,
    timeline          integer     NOT NULL,
    database_oid      oid         NOT NULL,
    epoch             bigint      NOT NULL DEFAULT 0,
    state             text        NOT NULL,
    confirmed_lsn     pg_lsn,
    confirmed_at      timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT relay_pkey PRIMARY KEY (slot),
    CONSTRAINT relay_state_is_known CHECK (state IN ('creating', 'streaming'))
);

COMMENT ON TABLE walpost.relay IS
    'What walpost remembers of each replication slot, one row a slot; written by walpost alone';
COMMENT ON COLUMN walpost.relay.slot IS
    'Name of the replication slot';
COMMENT ON COLUMN walpost.relay.system_identifier IS
    'Of the cluster that the slot was made in; another one: this row came with a dump or an upgrade';
COMMENT ON COLUMN walpost.relay.timeline IS
    'Timeline on which the slot was last read; another one: there was a failover or a restore';
COMMENT ON COLUMN walpost.relay.database_oid IS
    'Oid of the database that the slot was made in';
COMMENT ON COLUMN walpost.relay.epoch IS
    'Raised each time a walpost takes the slot; an older one that wakes up writes nothing here';
COMMENT ON COLUMN walpost.relay.state IS
    'creating: the slot is being made; streaming: it was made, and if it is missing it was lost';
COMMENT ON COLUMN walpost.relay.confirmed_lsn IS
    'How far the slot was confirmed at least; null: not known yet';
COMMENT ON COLUMN walpost.relay.confirmed_at IS
    'Everything that was committed before this time was confirmed; null: not known yet';
COMMENT ON COLUMN walpost.relay.created_at IS
    'When the row was made, before the slot';
