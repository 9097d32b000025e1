-- Version 2: destinations that the operator has suspended.

CREATE TABLE suspended (
    name            text COLLATE "C" PRIMARY KEY,  -- a recipient domain, or the name of a next hop
    since           double precision NOT NULL,     -- wall time
    until           double precision,              -- wall time; NULL: until it is resumed
    reason          bytea NOT NULL,                -- UTF-8
    by_operator     bytea NOT NULL                 -- UTF-8
);
