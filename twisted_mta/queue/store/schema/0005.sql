-- Version 5: attempts that ended in a deferral. No row is written or searched for where the first
-- attempt is final.

CREATE TABLE attempt (
    message         INTEGER NOT NULL,
    number          INTEGER NOT NULL,      -- of the recipient
    attempt         INTEGER NOT NULL,      -- from 1
    ended_at        REAL NOT NULL,         -- wall time
    next_hop        TEXT NOT NULL,
    code            INTEGER NOT NULL,      -- the reply
    status          TEXT,
    text            TEXT NOT NULL,
    remote          TEXT,                  -- the host that gave it; NULL: it is ours
    tls             TEXT,                  -- TLSFacts, a JSON object; NULL: no TLS
    uncertain       INTEGER NOT NULL,      -- 1: the final dot was sent and not answered
    unreachable     INTEGER NOT NULL,      -- 1: the failure is the next hop's, not the message's
    conversation    INTEGER,               -- its transcript; NULL: none, or no longer kept
    PRIMARY KEY (message, number, attempt)
) STRICT, WITHOUT ROWID;

-- Transcripts of sessions, each once for all recipients that were tried together.
CREATE TABLE conversation (
    id              INTEGER PRIMARY KEY,
    message         INTEGER NOT NULL,
    transcript      TEXT NOT NULL
) STRICT;

CREATE INDEX conversation_of ON conversation (message);

-- The attempts leave with their recipient, and the transcripts with the last attempt.
CREATE TRIGGER recipient_gone AFTER DELETE ON recipient WHEN OLD.attempts > 0 BEGIN
    DELETE FROM attempt WHERE message = OLD.message AND number = OLD.number;
    DELETE FROM conversation WHERE message = OLD.message
        AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.message = OLD.message);
END;
