-- Version 2: forwarded mail, leases by domain, and kept counts.

-- The address that the sender wrote, where an alias led to the mailbox; both NULL: the mailbox.
ALTER TABLE recipient ADD COLUMN original_local TEXT;
ALTER TABLE recipient ADD COLUMN original_domain TEXT;

-- The reverse-path on the wire; both NULL: that of the envelope.
ALTER TABLE recipient ADD COLUMN reverse_local TEXT;
ALTER TABLE recipient ADD COLUMN reverse_domain TEXT;

-- Due recipients are found by domain, so that those of blocked domains are not walked over.
DROP INDEX recipient_due;
CREATE INDEX recipient_due ON recipient (domain, next_attempt) WHERE next_attempt IS NOT NULL;

-- The counts of the queue, in one row that every transaction keeps up to date: counting a million
-- rows with their bodies takes seconds.
CREATE TABLE census (
    messages        INTEGER NOT NULL,
    recipients      INTEGER NOT NULL,
    deferred        INTEGER NOT NULL,      -- recipients that were tried before
    quarantined     INTEGER NOT NULL,
    failures        INTEGER NOT NULL
) STRICT;

INSERT INTO census SELECT
    (SELECT count(*) FROM message),
    (SELECT count(*) FROM recipient),
    (SELECT count(*) FROM recipient WHERE attempts > 0),
    (SELECT count(*) FROM message WHERE quarantine IS NOT NULL),
    (SELECT count(*) FROM failure);
