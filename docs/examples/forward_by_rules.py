"""Forward mail by its header: invoices to accounting, all else to the mailbox that it is for.

    python forward_by_rules.py DOMAIN FORWARDER [PORT]

FORWARDER is the reverse-path of forwarded mail, an address here: a bounce from elsewhere comes to
it, and SPF of the domain that it goes to finds our domain.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_mta import Config, Listener, MailTransferAgent, Rewrite
from twisted_mta.message.header import Header
from twisted_mta.policy.answers import EnvelopeView
from twisted_mta.policy.examination import PolicySession


@frozen
class Rule:
    """Where mail goes if something is true of its header."""

    applies: Callable[[Header], bool]
    to: tuple[str, ...]


RULES = (
    Rule(lambda header: "[invoice]" in (header["Subject"] or ""), ("accounting@books.example",)),
    Rule(lambda header: "List-Id" in header, ("lists@archive.example", "reader@office.example")),
)


class Forward:
    """Applies the first rule that fits (`twisted_mta.Policy`)."""

    def __init__(self, forwarder: str, rules: tuple[Rule, ...] = RULES) -> None:
        self.forwarder = forwarder
        self.rules = rules

    def header(
        self, session: PolicySession, envelope: EnvelopeView, header: Header
    ) -> Rewrite | None:
        """Decide at the end of the header section."""
        for rule in self.rules:
            if rule.applies(header):
                # Bounces have no reverse-path, and keep none: they must not cause others.
                sender = None if envelope.sender is None else self.forwarder
                return Rewrite(sender=sender, recipients=rule.to)
        return None


def make_agent(reactor: Any, forwarder: str, config: Config) -> MailTransferAgent:
    """Return the agent."""
    return MailTransferAgent(config, reactor=reactor, policy=Forward(forwarder))


def main(domain: str, forwarder: str, port: str = "2525") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    config = Config(
        state_dir="mail-state",
        local_domains=[domain],
        listeners=[Listener(endpoint=f"tcp:{port}:interface=127.0.0.1")],
    )
    agent = make_agent(reactor, forwarder, config)
    agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
