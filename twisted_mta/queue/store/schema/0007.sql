-- Version 7: aliases, so that mail which returns to one of them is known to loop.

-- The aliases that led from the address that the sender wrote to this mailbox, in their order, one on
-- each line; NULL: none.
ALTER TABLE recipient ADD COLUMN aliases TEXT;
