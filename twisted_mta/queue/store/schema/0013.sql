-- Version 13: a body file may have been made for an earlier message.

-- The id of that message, which names the file; the first line of the file is the id of the message
-- that has it now. NULL: the body is in the row, or in a file with its own id as name and no such
-- line.
ALTER TABLE message ADD COLUMN file INTEGER;

CREATE UNIQUE INDEX message_by_file ON message (file) WHERE file IS NOT NULL;
