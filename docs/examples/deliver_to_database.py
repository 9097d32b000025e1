"""Deliver mail into a database: a row for each message, and one for each of its recipients.

    python deliver_to_database.py DOMAIN [PORT]

The client gets its 250 when the mail is in the queue. If the database fails, the mail stays there,
and is tried again until it is stored.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool, Transaction
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_mta import Config, Listener, MailTransferAgent, QueuedMessage

TABLES = (
    "CREATE TABLE IF NOT EXISTS message (id TEXT PRIMARY KEY, sender TEXT, content BLOB)",
    "CREATE TABLE IF NOT EXISTS recipient (id TEXT, mailbox TEXT, PRIMARY KEY (id, mailbox))",
)


class DatabaseDelivery:
    """Stores messages (`twisted_mta.ApplicationDelivery`)."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool

    async def deliver(self, message: QueuedMessage) -> None:
        """Store a message; an exception of the database defers it."""
        await self.pool.runInteraction(store, message)


def store(transaction: Transaction, message: QueuedMessage) -> None:
    """Store a message, in a thread; one that is there already came with an earlier attempt."""
    for table in TABLES:
        transaction.execute(table)
    transaction.execute(
        "INSERT OR IGNORE INTO message VALUES (?, ?, ?)",
        (message.id, message.sender, message.content.read()),
    )
    transaction.executemany(
        "INSERT OR IGNORE INTO recipient VALUES (?, ?)",
        [(message.id, recipient) for recipient in message.recipients],
    )


def make_agent(reactor: Any, pool: ConnectionPool, config: Config) -> MailTransferAgent:
    """Return the agent; its configuration has a route to ``deliver:db``."""
    return MailTransferAgent(config, reactor=reactor, deliveries={"db": DatabaseDelivery(pool)})


def main(domain: str, port: str = "2525") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    # SQLite has one writer at a time.
    pool = ConnectionPool("sqlite3", "mail.sqlite", check_same_thread=False, cp_max=1)
    config = Config(
        state_dir="mail-state",
        local_domains=[domain],
        listeners=[Listener(endpoint=f"tcp:{port}:interface=127.0.0.1", max_message_size="1 MiB")],
        routes={domain: "deliver:db"},
    )
    agent = make_agent(reactor, pool, config)
    agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
