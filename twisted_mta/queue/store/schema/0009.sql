-- Version 9: what policies found out about a message stays with it.

-- Verdicts, the reason to file the message among junk, and whether it may be signed for its From
-- domain: a JSON object of those that are not the default; NULL: all are.
ALTER TABLE message ADD COLUMN assessment TEXT;
