-- Version 3: a delay is reported to the sender once.

ALTER TABLE recipient ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;    -- 1: it was reported
