-- Version 7: mail that comes back to an alias that it has left by is in a loop.

-- The aliases that led from what the sender wrote to this mailbox, one a line, the first one first;
-- NULL: none.
ALTER TABLE recipient ADD COLUMN aliases TEXT;
