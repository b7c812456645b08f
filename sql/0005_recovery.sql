-- Step 5: what makes first start, lost slot, failover and clean-up one thing: the snapshot up to which
-- everything was delivered, and how far the rows it does not cover have been published again.

ALTER TABLE walpost.relay
    ADD COLUMN certified_snapshot pg_snapshot,
    ADD COLUMN exported_snapshot  pg_snapshot,
    ADD COLUMN recovery_cursor    jsonb,
    ADD COLUMN last_receipted     jsonb,
    ADD COLUMN guard              jsonb,
    DROP CONSTRAINT relay_state_is_known,
    ADD CONSTRAINT relay_state_is_known CHECK (state IN ('creating', 'recovering', 'streaming'));

COMMENT ON COLUMN walpost.relay.state IS
    'creating: the slot is being made; recovering: it was made, rows that it does not bring are being published; streaming: they are. If the slot is missing in one of the last two, it was lost';
COMMENT ON COLUMN walpost.relay.certified_snapshot IS
    'Every transaction visible in it was delivered; null: nothing is known to be';
COMMENT ON COLUMN walpost.relay.exported_snapshot IS
    'While recovering: rows visible in it and not in certified_snapshot are being published, later ones come from the slot';
COMMENT ON COLUMN walpost.relay.recovery_cursor IS
    'While recovering: the row up to which they have been published; null: none yet';
COMMENT ON COLUMN walpost.relay.last_receipted IS
    'Inside a large transaction: its identity, and the change up to which it was delivered';
COMMENT ON COLUMN walpost.relay.guard IS
    'What the publication and the outbox tables were when certified_snapshot was taken';

-- Rows lie in about the order of their age, so this index is small and costs an insert almost nothing.
-- The clean-up finds old rows by it.
CREATE INDEX outbox_created_at ON walpost.outbox USING brin (created_at) WITH (autosummarize = on);
