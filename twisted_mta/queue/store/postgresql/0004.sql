-- Version 4: large bodies come before their messages, and the index of due mail has no leased mail.

-- Messages whose body is in pieces already, and which are not accepted yet. The pieces are removed
-- where the worker that wrote them ends before.
CREATE TABLE incoming (
    message         bigint PRIMARY KEY,
    worker          bigint NOT NULL
);

-- Mail that is delivered at once is never in it.
DROP INDEX recipient_due;
CREATE INDEX recipient_due ON recipient (domain, level, next_attempt, message, number)
    WHERE lease = 0 AND next_attempt IS NOT NULL;
