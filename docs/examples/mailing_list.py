"""A mailing list: mail to its address goes to all subscribers, and bounces come back to the list.

    python mailing_list.py announce@lists.example SUBSCRIBERS [PORT]

SUBSCRIBERS is a file with an address on each line, read anew for each message. Only subscribers may
post; that the reverse-path is theirs proves nothing, so add a policy if it matters. The message
stays as it is, and so do its signatures; fields of the list stand in front of it.
"""

from __future__ import annotations

import shutil
import sys
from email.parser import BytesHeaderParser
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver

from twisted_mta import Config, Listener, MailTransferAgent, QueuedMessage, Reply

log = Logger()


class MailingList:
    """Sends messages on (`twisted_mta.ApplicationDelivery`).

    Attributes:
        agent: sends; to be set before the first message.
    """

    agent: MailTransferAgent

    def __init__(self, address: str, subscribers: Path) -> None:
        self.address = address
        self.subscribers = subscribers
        name, _, domain = address.partition("@")
        self.bounces = f"{name}-bounces@{domain}"
        self.id = f"<{name}.{domain}>"

    async def deliver(self, message: QueuedMessage) -> dict[str, Reply | None]:
        """Send a message to all subscribers; take note of a bounce; others do not exist."""
        answers: dict[str, Reply | None] = {}
        for recipient in message.recipients:
            if recipient.lower() == self.address:
                answers[recipient] = await self.post(message)
            elif recipient.lower() == self.bounces:
                log.info("{id} is a bounce, or an answer to one", id=message.id)
                answers[recipient] = None
            else:
                answers[recipient] = Reply(550, "5.1.1", "No such list")
        return answers

    async def post(self, message: QueuedMessage) -> Reply | None:
        """Send a message to all subscribers, as one entry of the queue."""
        members = self.subscribers.read_text(encoding="utf-8").split()
        if message.sender not in members:
            return Reply(550, "5.7.1", "Only subscribers may post")
        with TemporaryFile() as copy:
            if not await deferToThread(self.copy, message.content, copy):
                return Reply(554, "5.4.6", "The message was here before")
            receipt = await self.agent.submit(copy, sender=self.bounces, recipients=members)
        log.info("{id} goes to {count} members", id=receipt.id, count=len(members))
        return None

    def copy(self, content: IO[bytes], copy: IO[bytes]) -> bool:
        """Write a message with the fields of the list, in a thread; False: it is in a loop."""
        if self.id in BytesHeaderParser().parse(content).get_all("List-Id", ()):
            return False
        content.seek(0)
        copy.write(
            f"List-Id: {self.id}\r\nList-Post: <mailto:{self.address}>\r\n"
            "Precedence: list\r\n".encode()
        )
        shutil.copyfileobj(content, copy)
        copy.seek(0)
        return True


def make_agent(reactor: Any, list_: MailingList, config: Config) -> MailTransferAgent:
    """Return the agent; its configuration has a route to ``deliver:list``."""
    list_.agent = MailTransferAgent(config, reactor=reactor, deliveries={"list": list_})
    return list_.agent


def main(address: str, subscribers: str, port: str = "2525") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    domain = address.partition("@")[2]
    config = Config(
        state_dir="mail-state",
        local_domains=[domain],
        listeners=[Listener(endpoint=f"tcp:{port}:interface=127.0.0.1")],
        routes={domain: "deliver:list"},
    )
    agent = make_agent(reactor, MailingList(address, Path(subscribers)), config)
    agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
