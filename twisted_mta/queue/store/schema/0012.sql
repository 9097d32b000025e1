-- Version 12: events that wait for webhooks. No row is written or searched for without a webhook.

CREATE TABLE webhook_event (
    id              INTEGER PRIMARY KEY,
    webhook         TEXT NOT NULL,         -- the key of the webhook
    name            TEXT NOT NULL,         -- by which receivers know it again
    body            BLOB NOT NULL,         -- what is posted
    at              REAL NOT NULL,         -- wall time of the event
    attempts        INTEGER NOT NULL DEFAULT 0,  -- that have failed
    next_attempt    REAL NOT NULL          -- wall time
) STRICT;

CREATE INDEX webhook_event_due ON webhook_event (webhook, next_attempt);
