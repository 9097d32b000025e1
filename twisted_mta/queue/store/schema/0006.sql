-- Version 6: mail that goes before other mail or behind it, or has to come back by a time of its own.

-- Twice the priority (RFC 6710), and one more where it is returned rather than late (RFC 2852); 0 is
-- the mail of every day.
ALTER TABLE recipient ADD COLUMN level INTEGER NOT NULL DEFAULT 0;

-- Each level of a domain is asked for by itself, so that a flood of one hides nothing of another. A
-- row is in one of the two indexes: what has no level costs what it did. That has its level in there,
-- too, 0 as it is: or each row would be read to see that.
DROP INDEX recipient_due;
CREATE INDEX recipient_due ON recipient (domain, next_attempt, level)
    WHERE next_attempt IS NOT NULL AND level = 0;
CREATE INDEX recipient_due_by_level ON recipient (domain, level, next_attempt)
    WHERE next_attempt IS NOT NULL AND level <> 0;
