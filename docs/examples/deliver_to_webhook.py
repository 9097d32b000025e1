"""Deliver mail to a web service: each message is the body of a POST.

    python deliver_to_webhook.py DOMAIN URL [PORT]

The service answers with 2xx for mail that it has taken. Any other 4xx than 408 and 429 returns the
mail to its sender; 5xx, no connection and no answer within a minute let it be tried again.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.http_headers import Headers

from twisted_mta import Config, Listener, MailTransferAgent, QueuedMessage, Reply


class WebhookDelivery:
    """Posts messages (`twisted_mta.ApplicationDelivery`)."""

    def __init__(self, reactor: Any, url: str) -> None:
        self.url = url.encode("ascii")
        self.agent = Agent(reactor, connectTimeout=10)

    async def deliver(self, message: QueuedMessage) -> Reply | None:
        """Post a message; it is read from the disk as the connection takes it."""
        headers = Headers({"Content-Type": ["message/rfc822"], "X-Queue-Id": [message.id]})
        headers.setRawHeaders("X-Sender", [message.sender])
        headers.setRawHeaders("X-Recipient", list(message.recipients))
        body = FileBodyProducer(message.content)
        response = await self.agent.request(b"POST", self.url, headers, body)
        await readBody(response)
        if 200 <= response.code < 300:
            return None
        if 400 <= response.code < 500 and response.code not in (408, 429):
            return Reply(554, "5.6.0", f"The service refuses the message ({response.code})")
        return Reply(451, "4.4.0", f"The service cannot take the message now ({response.code})")


def make_agent(reactor: Any, url: str, config: Config) -> MailTransferAgent:
    """Return the agent; its configuration has a route to ``deliver:web``."""
    return MailTransferAgent(
        config,
        reactor=reactor,
        deliveries={"web": WebhookDelivery(reactor, url)},
        delivery_timeout=60.0,
    )


def main(domain: str, url: str, port: str = "2525") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    config = Config(
        state_dir="mail-state",
        local_domains=[domain],
        listeners=[Listener(endpoint=f"tcp:{port}:interface=127.0.0.1")],
        routes={domain: "deliver:web"},
    )
    agent = make_agent(reactor, url, config)
    agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
