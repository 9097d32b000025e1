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
