-- Attempts in vain: why a recipient is still here. Nothing is written, and nothing is looked for, as
-- long as the first attempt succeeds.

CREATE TABLE attempt (
    message         INTEGER NOT NULL,
    number          INTEGER NOT NULL,      -- of the recipient
    attempt         INTEGER NOT NULL,      -- from 1
    ended_at        REAL NOT NULL,         -- wall time
    next_hop        TEXT NOT NULL,
    code            INTEGER NOT NULL,      -- the reply
    status          TEXT,
    text            TEXT NOT NULL,
    remote          TEXT,                  -- who gave it; NULL: it is ours
    tls             TEXT,                  -- what protected it, a JSON object; NULL: nothing
    uncertain       INTEGER NOT NULL,      -- 1: the end of the content was sent, and not answered
    unreachable     INTEGER NOT NULL,      -- 1: it is about the next hop, and not the message
    conversation    INTEGER,               -- which one; NULL: none, or not kept any more
    PRIMARY KEY (message, number, attempt)
) STRICT, WITHOUT ROWID;

-- What was said, once for all recipients that were tried together.
CREATE TABLE conversation (
    id              INTEGER PRIMARY KEY,
    message         INTEGER NOT NULL,
    transcript      TEXT NOT NULL
) STRICT;

CREATE INDEX conversation_of ON conversation (message);

-- Whatever a recipient leaves by, its attempts go with it, and with the last of them what was said.
CREATE TRIGGER recipient_gone AFTER DELETE ON recipient WHEN OLD.attempts > 0 BEGIN
    DELETE FROM attempt WHERE message = OLD.message AND number = OLD.number;
    DELETE FROM conversation WHERE message = OLD.message
        AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.message = OLD.message);
END;
