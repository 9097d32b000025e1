-- Version 4: what the operator holds back, and what is to go.

-- Since when the operator holds it, wall time; NULL: not held. What is held has no next attempt.
ALTER TABLE recipient ADD COLUMN held REAL;

-- When the operator removed it while it was leased, wall time; it goes as its lease ends, unless it
-- was delivered first. It has no next attempt.
ALTER TABLE recipient ADD COLUMN removing REAL;

-- Those that a process left behind are looked for at every start, and those held are counted where
-- a body was lost: both are few.
CREATE INDEX recipient_held ON recipient (message) WHERE held IS NOT NULL;
CREATE INDEX recipient_removing ON recipient (message) WHERE removing IS NOT NULL;

ALTER TABLE census ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
