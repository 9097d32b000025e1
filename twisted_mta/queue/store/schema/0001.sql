-- Version 1: the queue. contract.py describes the states.

CREATE TABLE message (
    id              INTEGER PRIMARY KEY,   -- the queue id: ordered by time of arrival
    sender_local    TEXT,                  -- reverse-path; both NULL: the null reverse-path
    sender_domain   TEXT,
    parameters      TEXT NOT NULL,         -- ESMTP parameters of MAIL, a JSON object
    trace           BLOB NOT NULL,         -- header fields before the body
    body            BLOB,                  -- NULL: it is in a file with the id as name
    size            INTEGER NOT NULL,      -- octets of the body
    received_at     REAL NOT NULL,         -- wall time, seconds since the epoch
    expires_at      REAL NOT NULL,
    quarantine      TEXT                   -- why it is never tried; NULL: it is
) STRICT;

-- Every start lists the files that there should be.
CREATE INDEX message_in_file ON message (id) WHERE body IS NULL;

CREATE TABLE recipient (
    message         INTEGER NOT NULL REFERENCES message (id),
    number          INTEGER NOT NULL,      -- in the envelope, from 0
    local_part      TEXT NOT NULL,
    domain          TEXT NOT NULL,
    parameters      TEXT NOT NULL,         -- ESMTP parameters of RCPT, a JSON object
    attempts        INTEGER NOT NULL,
    next_attempt    REAL,                  -- wall time; NULL: never
    last_code       INTEGER,               -- the last reply
    last_status     TEXT,
    last_text       TEXT,
    last_remote     TEXT,                  -- the host of the last reply; NULL: it is ours
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX recipient_due ON recipient (next_attempt) WHERE next_attempt IS NOT NULL;

-- Failures that no notice reports.
CREATE TABLE failure (
    message         INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    recipient       TEXT NOT NULL,
    reverse_path    TEXT NOT NULL,
    failed_at       REAL NOT NULL,
    reply           TEXT NOT NULL,
    remote          TEXT,
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;
