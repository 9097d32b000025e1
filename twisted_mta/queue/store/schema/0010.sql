-- Version 10: records of failures are kept for a time; recipients that were imported are remembered.

-- The oldest records are removed first.
CREATE INDEX failure_by_time ON failure (failed_at);

-- Recipients that came by an import. They are remembered when they have left the queue, so that a
-- second import of the same file does not send them again.
CREATE TABLE imported (
    message         INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    imported_at     REAL NOT NULL,         -- wall time
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;
