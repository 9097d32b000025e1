-- Version 7: retries by the operator, of the last minute. Each worker has its own view of which next
-- hops can be reached, and looks here for what others were told to try again.

CREATE TABLE retried (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker          bigint NOT NULL,       -- that was asked
    at              timestamptz NOT NULL DEFAULT now(),
    begins          boolean NOT NULL,      -- the first slice of an intervention
    domains         text[] NOT NULL        -- of recipients that are due
);
