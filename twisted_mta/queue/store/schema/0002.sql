-- Version 2: mail that is forwarded, leases by domain, and counts that are kept.

-- What the sender wrote, where an alias led to another mailbox; both NULL: the same.
ALTER TABLE recipient ADD COLUMN original_local TEXT;
ALTER TABLE recipient ADD COLUMN original_domain TEXT;

-- The reverse-path on the wire, where it is not the envelope's; both NULL: it is.
ALTER TABLE recipient ADD COLUMN reverse_local TEXT;
ALTER TABLE recipient ADD COLUMN reverse_domain TEXT;

-- What is due is asked for by domain: those that are blocked are never walked over.
DROP INDEX recipient_due;
CREATE INDEX recipient_due ON recipient (domain, next_attempt) WHERE next_attempt IS NOT NULL;

-- How much there is, kept by the transactions that change it: counting a million rows with their
-- bodies takes seconds. One row.
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
