-- Version 8: an id by which a queue is recognized, wherever its file is.

-- A state directory that went away while it was in use has to come back with the same queue: an empty
-- or another one in its place must not be taken for it. Inodes are not enough: file systems that are
-- mounted again may have other device numbers, and restored files have other inodes.
CREATE TABLE identity (id BLOB NOT NULL);
INSERT INTO identity (id) VALUES (randomblob(16));
