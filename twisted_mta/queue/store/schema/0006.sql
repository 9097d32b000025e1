-- Version 6: priorities and return times.

-- Twice the priority (RFC 6710), plus one where the message has a return time (RFC 2852); most mail
-- has 0.
ALTER TABLE recipient ADD COLUMN level INTEGER NOT NULL DEFAULT 0;

-- Each level of a domain is leased by itself, so that a flood of one hides no mail of another. A row
-- is in one of the two indexes, so mail of level 0 costs no more than before. Its index has the level
-- as well, so that rows need not be read to check the condition.
DROP INDEX recipient_due;
CREATE INDEX recipient_due ON recipient (domain, next_attempt, level)
    WHERE next_attempt IS NOT NULL AND level = 0;
CREATE INDEX recipient_due_by_level ON recipient (domain, level, next_attempt)
    WHERE next_attempt IS NOT NULL AND level <> 0;
