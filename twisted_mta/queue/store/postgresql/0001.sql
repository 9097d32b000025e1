-- Version 1: the queue, shared by any number of workers. contract.py describes the states.

-- A worker is one process of an MTA, from one start to the next. It has its leases as long as it has
-- a row here. Every transaction of a worker changes its row last: that renews its leases, fails where
-- they were taken from it, keeps its part of the counts, and shows whether a COMMIT without an answer
-- took place.
CREATE TABLE worker (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    machine         text NOT NULL,         -- the random id in a state directory
    slot            integer NOT NULL,      -- the process, of those of the machine
    number          integer UNIQUE,        -- from 0 to 1023: the ids that it draws end with it
    seen            timestamptz NOT NULL,  -- by the database's clock
    batch           bigint NOT NULL DEFAULT 0,
    messages        bigint NOT NULL DEFAULT 0,
    recipients      bigint NOT NULL DEFAULT 0,
    deferred        bigint NOT NULL DEFAULT 0,
    quarantined     bigint NOT NULL DEFAULT 0,
    failures        bigint NOT NULL DEFAULT 0,
    held            bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);

-- What workers that are no more have left to the counts. In the row of nobody, whose lease is none.
INSERT INTO worker (id, machine, slot, seen) OVERRIDING SYSTEM VALUE VALUES (0, '', 0, 'infinity');

CREATE TABLE message (
    id              bigint PRIMARY KEY,    -- the queue id: ordered by time of arrival
    sender_local    text,                  -- reverse-path; both NULL: the null reverse-path
    sender_domain   text,
    parameters      text NOT NULL,         -- ESMTP parameters of MAIL, a JSON object
    trace           bytea NOT NULL,        -- header fields before the body
    body            bytea,                 -- NULL: it is in pieces
    size            bigint NOT NULL,       -- octets of the body
    received_at     double precision NOT NULL,  -- wall time, seconds since the epoch
    expires_at      double precision NOT NULL,
    assessment      text,                  -- a JSON object; NULL: all is as by default
    machine         text NOT NULL,         -- that accepted it: no other one may forget it
    quarantine      text                   -- why it is never tried; NULL: it is
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- Mail is compressed badly, and attachments not at all.
ALTER TABLE message ALTER COLUMN body SET STORAGE EXTERNAL;

-- Large bodies, in pieces of 256 KiB: none is ever whole in memory.
CREATE TABLE piece (
    message         bigint NOT NULL,
    number          integer NOT NULL,      -- from 0
    content         bytea NOT NULL,
    PRIMARY KEY (message, number)
);
ALTER TABLE piece ALTER COLUMN content SET STORAGE EXTERNAL;

CREATE TABLE recipient (
    message         bigint NOT NULL,
    number          integer NOT NULL,      -- in the envelope, from 0
    lease           bigint NOT NULL,       -- the worker that delivers it now; 0: none
    level           integer NOT NULL,      -- twice the priority, plus one with a return time
    attempts        integer NOT NULL,
    next_attempt    double precision,      -- wall time; NULL: never
    held            double precision,      -- since when the operator holds it
    removing        double precision,      -- when the operator removed it while it was leased
    warned          integer NOT NULL DEFAULT 0,  -- 1: the delay was reported
    last_code       integer,               -- the last reply
    last_status     text,
    last_text       bytea,                 -- UTF-8; a peer may send NUL, which text cannot have
    last_remote     text,                  -- the host of the last reply; NULL: it is ours
    local_part      text NOT NULL,
    domain          text COLLATE "C" NOT NULL,
    parameters      text NOT NULL,         -- ESMTP parameters of RCPT, a JSON object
    original_local  text,                  -- as the sender wrote it; both NULL: the mailbox
    original_domain text,
    reverse_local   text,                  -- on the wire; both NULL: that of the envelope
    reverse_domain  text,
    aliases         text,                  -- that led to the mailbox, one on each line
    PRIMARY KEY (message, number)
) WITH (
    fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000
);

CREATE INDEX recipient_due ON recipient (domain, lease, level, next_attempt, message, number)
    WHERE next_attempt IS NOT NULL;
CREATE INDEX recipient_leased ON recipient (lease) WHERE lease <> 0;
CREATE INDEX recipient_held ON recipient (message) WHERE held IS NOT NULL;

-- Failures that no notice reports.
CREATE TABLE failure (
    message         bigint NOT NULL,
    number          integer NOT NULL,
    recipient       text NOT NULL,
    reverse_path    text NOT NULL,
    failed_at       double precision NOT NULL,
    reply           bytea NOT NULL,
    remote          text,
    PRIMARY KEY (message, number)
);

-- The oldest records are removed first.
CREATE INDEX failure_by_time ON failure (failed_at);

-- Recipients that came by an import. They are remembered when they have left the queue, so that a
-- second import of the same file does not send them again.
CREATE TABLE imported (
    message         bigint NOT NULL,
    number          integer NOT NULL,
    imported_at     double precision NOT NULL,  -- wall time
    PRIMARY KEY (message, number)
);

-- Attempts that ended in a deferral.
CREATE TABLE attempt (
    message         bigint NOT NULL,
    number          integer NOT NULL,      -- of the recipient
    attempt         integer NOT NULL,      -- from 1
    ended_at        double precision NOT NULL,
    next_hop        text NOT NULL,
    code            integer NOT NULL,      -- the reply
    status          text,
    text            bytea NOT NULL,
    remote          text,
    tls             text,                  -- TLSFacts, a JSON object; NULL: no TLS
    uncertain       boolean NOT NULL,      -- the final dot was sent and not answered
    unreachable     boolean NOT NULL,      -- the failure is the next hop's, not the message's
    conversation    bigint,                -- its transcript; NULL: none, or no longer kept
    PRIMARY KEY (message, number, attempt)
);

CREATE TABLE conversation (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message         bigint NOT NULL,
    transcript      bytea NOT NULL
);
CREATE INDEX conversation_of ON conversation (message);
