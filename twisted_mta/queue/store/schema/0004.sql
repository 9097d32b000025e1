-- Version 4: recipients that the operator holds or removes.

-- Since when the operator holds it, wall time; NULL: it is not held. It has no next attempt then.
ALTER TABLE recipient ADD COLUMN held REAL;

-- When the operator removed it while it was leased, wall time; NULL: it is not removed. It leaves
-- with its lease, unless it is delivered. It has no next attempt.
ALTER TABLE recipient ADD COLUMN removing REAL;

-- Every start searches for removed recipients, and counts held ones where a body file is missing:
-- there are few of both.
CREATE INDEX recipient_held ON recipient (message) WHERE held IS NOT NULL;
CREATE INDEX recipient_removing ON recipient (message) WHERE removing IS NOT NULL;

ALTER TABLE census ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
