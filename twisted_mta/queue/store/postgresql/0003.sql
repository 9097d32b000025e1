-- Version 3: events that wait for webhooks. Each process posts its own. No row is written or searched
-- for without a webhook.

CREATE TABLE webhook_event (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    machine         text NOT NULL,         -- the random id in a state directory
    slot            integer NOT NULL,      -- the process, of those of the machine
    webhook         text NOT NULL,         -- the key of the webhook
    name            text NOT NULL,         -- by which receivers know it again
    body            bytea NOT NULL,        -- what is posted
    at              double precision NOT NULL,   -- wall time of the event
    attempts        integer NOT NULL DEFAULT 0,  -- that have failed
    next_attempt    double precision NOT NULL    -- wall time
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE INDEX webhook_event_due ON webhook_event (machine, slot, webhook, next_attempt);
