-- The queue, version 1. What the states mean is said in contract.py.

CREATE TABLE message (
    id              INTEGER PRIMARY KEY,   -- the queue id: ordered by time of arrival
    sender_local    TEXT,                  -- reverse-path; both NULL: the null reverse-path
    sender_domain   TEXT,
    parameters      TEXT NOT NULL,         -- ESMTP parameters of MAIL, a JSON object
    trace           BLOB NOT NULL,         -- fields that stand before the body
    body            BLOB,                  -- NULL: in the file that is named as the id
    size            INTEGER NOT NULL,      -- octets of the body
    received_at     REAL NOT NULL,         -- wall time, seconds since the epoch
    expires_at      REAL NOT NULL,
    quarantine      TEXT                   -- why it is never tried, NULL if it is
) STRICT;

-- Which files should be there is asked at every start.
CREATE INDEX message_in_file ON message (id) WHERE body IS NULL;

CREATE TABLE recipient (
    message         INTEGER NOT NULL REFERENCES message (id),
    number          INTEGER NOT NULL,      -- its place in the envelope, from 0
    local_part      TEXT NOT NULL,
    domain          TEXT NOT NULL,
    parameters      TEXT NOT NULL,         -- ESMTP parameters of RCPT, a JSON object
    attempts        INTEGER NOT NULL,
    next_attempt    REAL,                  -- wall time; NULL: never
    last_code       INTEGER,               -- the last reply
    last_status     TEXT,
    last_text       TEXT,
    last_remote     TEXT,                  -- who gave it
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX recipient_due ON recipient (next_attempt) WHERE next_attempt IS NOT NULL;

-- Failures that could not be reported to a sender.
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
