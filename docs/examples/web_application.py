"""A web application that sends mail, and shows what becomes of it.

    python web_application.py [PORT]

The agent is in the same process, and listens nowhere. The page is for this machine alone; put a
login in front before it is not.
"""

from __future__ import annotations

import sys
from collections import deque
from email.message import EmailMessage
from html import escape

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger, globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from twisted_mta import Config, MailEvent, MailTransferAgent, SubmissionRefused
from twisted_mta.mail.address import Mailbox

SENDER = "shop@shop.example"
PAGE = """<!DOCTYPE html><title>Mail</title>
<form method="post"><input name="to" type="email" required placeholder="to">
<input name="text" required placeholder="text"> <button>Send</button></form>
<p>{note}</p><table>{rows}</table>"""
ROW = "<tr><td>{id}<td>{step}<td>{recipients}<td>{next_hop}<td>{reply}"
log = Logger()


class MailPage(Resource):
    """A form for a message, and the latest events of all mail."""

    isLeaf = True

    def __init__(self, agent: MailTransferAgent) -> None:
        Resource.__init__(self)
        self.agent = agent
        self.events: deque[MailEvent] = deque(maxlen=100)
        agent.subscribe(self.events.appendleft)

    def render_GET(self, request: Request) -> bytes:
        """Show the page."""
        return self.page("")

    def render_POST(self, request: Request) -> int:
        """Send a message, and show the page when the message is in the queue."""
        fields: dict[bytes, list[bytes]] = request.args or {}
        to, text = (
            fields.get(name, [b""])[0].decode("utf-8", "replace") for name in (b"to", b"text")
        )
        sending = Deferred.fromCoroutine(self.send(to, text))
        request.notifyFinish().addErrback(lambda _: sending.cancel())
        sending.addCallback(self.shown, request).addErrback(self.failed, request)
        return NOT_DONE_YET

    async def send(self, to: str, text: str) -> str:
        """Send a message; return a note for its author."""
        message = EmailMessage()
        message["From"], message["Subject"] = SENDER, "From the shop"
        message.set_content(text)
        try:
            message["To"] = str(Mailbox.parse(to))  # Python's own parser stumbles over "a@"
            receipt = await self.agent.submit(message, sender=SENDER, recipients=[to])
        except (ValueError, SubmissionRefused) as error:
            return f"Not sent: {error}"
        return f"Sent as {receipt.id}"

    def shown(self, note: str, request: Request) -> None:
        """Answer a POST."""
        request.write(self.page(note))
        request.finish()

    def failed(self, failure: Failure, request: Request) -> None:
        """Answer a POST whose message could not be queued, if its author is still there."""
        if not failure.check(CancelledError):
            log.failure("not sent", failure)
            request.setResponseCode(503)
            request.finish()

    def page(self, note: str) -> bytes:
        """Return the page."""
        rows = "".join(
            ROW.format(
                id=event.id,
                step=type(event).__name__,
                recipients=escape(", ".join(event.recipients)),
                next_hop=escape(event.next_hop or ""),
                reply=escape(str(event.reply or "")),
            )
            for event in self.events
        )
        return PAGE.format(note=escape(note), rows=rows).encode()


def main(port: str = "8080") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    config = Config(hostname="shop.example", state_dir="mail-state")
    agent = MailTransferAgent(config, reactor=reactor)
    agent.startService()
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    endpoint = serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1")
    endpoint.listen(Site(MailPage(agent)))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
