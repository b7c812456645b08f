-- Step 1: the schema, and the table that remembers which steps were taken.

CREATE SCHEMA IF NOT EXISTS walpost;

COMMENT ON SCHEMA walpost IS
    'walpost: a transactional outbox, relayed from the write-ahead log to a STOMP broker';

CREATE TABLE walpost.schema_version (
    version      integer     NOT NULL PRIMARY KEY,
    name         text        NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE walpost.schema_version IS
    'The steps of sql/ that this database has taken, one row a step; written by walpost init';
