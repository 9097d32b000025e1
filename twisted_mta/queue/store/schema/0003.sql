-- Version 3: senders are told of a delay, once.

ALTER TABLE recipient ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;    -- 1: the sender was told
