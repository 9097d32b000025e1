-- Version 8: by what a queue is known, wherever its file is.

-- A state directory that went away while it was in use is to come back as itself: an empty queue in
-- its place, or another one, would be taken for it. Inodes would not do: file systems that are mounted
-- anew may have other device numbers, and what was restored has other inodes.
CREATE TABLE identity (id BLOB NOT NULL);
INSERT INTO identity (id) VALUES (randomblob(16));
