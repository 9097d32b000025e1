-- Version 1: the machines, and the limits that hold for all of them. docs/design.rst describes them.

-- A machine is one instance of the program: one state directory. It is alive for some seconds after
-- its last transaction, by the database's clock alone.
CREATE TABLE machine (
    id              text PRIMARY KEY,      -- the random id in its state directory
    hostname        text NOT NULL,         -- a label for people
    version         text NOT NULL,
    workers         integer NOT NULL,      -- processes
    settings        text NOT NULL,         -- a digest of its limits
    since           timestamptz NOT NULL,  -- its start
    seen            timestamptz NOT NULL,  -- its last transaction
    ahead           double precision NOT NULL  -- seconds by which its wall clock is ahead
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- The credits of a limit that a machine holds. A row counts as long as its machine is alive, and
-- for some seconds longer: a message that was sent a moment ago counts in the rate of its next hop,
-- whatever has become of its machine.
CREATE TABLE part (
    name            text COLLATE "C" NOT NULL,  -- of the limit
    machine         text NOT NULL,
    held            integer NOT NULL,      -- credits
    spare           integer NOT NULL,      -- of these, not in use when it last said so
    wanted          integer NOT NULL,      -- credits that it waits for, beyond those
    since           timestamptz NOT NULL,  -- when it last had a credit, or began to wait
    hold            double precision NOT NULL,  -- seconds for which it counts beyond the machine
    until           timestamptz,           -- of a machine that has ended: until when it counts
    PRIMARY KEY (name, machine)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.1);

CREATE INDEX part_wanted ON part (name) WHERE wanted > 0;

-- Failed authentications in the last period, as each machine has counted them.
CREATE TABLE failures (
    name            text COLLATE "C" NOT NULL,  -- of the limit
    machine         text NOT NULL,
    count           integer NOT NULL,
    changed         timestamptz NOT NULL,
    PRIMARY KEY (name, machine)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.1);

CREATE INDEX failures_changed ON failures (changed);

-- Messages that were sent from each address of a source pool that warms up, or are about to be.
CREATE TABLE sent (
    address         text NOT NULL,
    day             integer NOT NULL,      -- since the epoch, in UTC
    messages        integer NOT NULL,
    PRIMARY KEY (address, day)
);

-- Greylisting: what networks, senders and recipients have tried. Times are wall times.
CREATE TABLE greylist_pair (
    key             bytea PRIMARY KEY,     -- of the network, the sender and the recipient
    network         text NOT NULL,
    first           double precision NOT NULL,
    last            double precision NOT NULL,
    passed          boolean NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.1);

CREATE INDEX greylist_waiting ON greylist_pair (network) WHERE NOT passed;
CREATE INDEX greylist_oldest ON greylist_pair (passed, last);

CREATE TABLE greylist_network (
    name            text PRIMARY KEY,
    successes       integer NOT NULL,
    last            double precision NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.1);

CREATE INDEX greylist_seen ON greylist_network (last);

-- The suppression list. Each machine has a copy, and follows the changes; they have numbers in the
-- order of their commits. An address that was taken off stays for a month, so that all copies learn
-- of it.
CREATE TABLE suppression (
    address         text PRIMARY KEY,
    since           double precision NOT NULL,  -- wall time; of one that was taken off: when
    until           double precision,      -- NULL: until the operator takes it off
    bounces         integer NOT NULL,
    reply           text NOT NULL,
    removed         boolean NOT NULL DEFAULT false,
    change          bigint NOT NULL
);

CREATE INDEX suppression_change ON suppression (change);
CREATE SEQUENCE suppression_number;

-- Up to which change those that took an address off have been forgotten.
CREATE TABLE suppression_forgotten (change bigint NOT NULL);
INSERT INTO suppression_forgotten VALUES (0);

CREATE TABLE bounce (
    address         text NOT NULL,
    day             integer NOT NULL,      -- since the epoch
    PRIMARY KEY (address, day)
);

CREATE INDEX bounce_oldest ON bounce (day);
