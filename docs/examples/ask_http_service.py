"""Ask an HTTP service about each recipient: the mail of those that it knows is taken.

    python ask_http_service.py DOMAIN URL [PORT]

The service gets ``?client=…&sender=…&recipient=…``. With 404 the recipient is refused for good.
Without an answer within two seconds, and with any other answer than 200, the client is told to try
again later; no other client waits meanwhile.
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.client import Agent, HTTPConnectionPool, readBody

from twisted_mta import Config, Listener, MailTransferAgent, Reply
from twisted_mta.mail.address import Mailbox
from twisted_mta.policy.examination import PolicySession


class AskService:
    """Decides on recipients (`twisted_mta.Policy`)."""

    def __init__(self, reactor: Any, url: str) -> None:
        self.url = url
        self.pool = HTTPConnectionPool(reactor)  # connections stay open between questions
        self.agent = Agent(reactor, pool=self.pool)

    def mail(self, session: PolicySession, sender: Mailbox | None) -> None:
        """Keep the sender for the questions about the recipients."""
        session.memory["sender"] = str(sender or "")

    async def rcpt(self, session: PolicySession, recipient: Mailbox) -> Reply | None:
        """Ask about a recipient. When the deadline comes, the request is canceled."""
        question = urlencode(
            {
                "client": session.address or "",
                "sender": session.memory["sender"],
                "recipient": str(recipient),
            }
        )
        response = await self.agent.request(b"GET", f"{self.url}?{question}".encode("ascii"))
        await readBody(response)
        if response.code == 200:
            return None
        if response.code == 404:
            return Reply(550, "5.1.1", "No such mailbox")
        return Reply(451, "4.3.0", "Cannot tell now, try again later")


def make_agent(reactor: Any, policy: AskService, config: Config) -> MailTransferAgent:
    """Return the agent."""
    return MailTransferAgent(config, reactor=reactor, policy=policy, policy_timeout=2.0)


def main(domain: str, url: str, port: str = "2525") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    config = Config(
        state_dir="mail-state",
        local_domains=[domain],
        listeners=[Listener(endpoint=f"tcp:{port}:interface=127.0.0.1")],
    )
    agent = make_agent(reactor, AskService(reactor, url), config)
    agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
