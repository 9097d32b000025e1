-- Version 11: a move of the queue to or from a database that can be resumed (queue.moving).

-- The move that is under way, or was interrupted; none or one row.
CREATE TABLE move (
    token           TEXT NOT NULL,         -- names the move in the database as well
    direction       TEXT NOT NULL,         -- 'out' or 'in'
    place           TEXT NOT NULL          -- the database, for people
) STRICT;

-- Messages that this file has given away, or taken, in the last transaction of the move: what the
-- database has reserved for the move is decided by it.
CREATE TABLE moved (message INTEGER PRIMARY KEY) STRICT;
