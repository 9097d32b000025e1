"""What the tests of examples have in common: modules, agents, servers and clients."""

from __future__ import annotations

import os
from importlib.util import module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.tcp import Connection
from twisted.mail.smtp import SMTPDeliveryError, SMTPSenderFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.waiting import until
from twisted_mta import Config, Listener, MailTransferAgent
from twisted_mta.mail.events import MailEvent

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "docs" / "examples"
MESSAGE = b"From: ann@sender.example\nSubject: Hi\n\nHello.\n"


def example(name: str) -> Any:
    """Return an example as a module."""
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder(Resource):
    """A web service that keeps requests, and answers with codes that a test gives."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.codes: dict[bytes, int] = {}  # by a part of the body, or of the URI
        self.requests: list[Request] = []
        self.bodies: list[bytes] = []
        self.never = False

    def render(self, request: Any) -> Any:
        from twisted.web.server import NOT_DONE_YET

        self.requests.append(request)
        self.bodies.append(request.content.read())
        if self.never:
            return NOT_DONE_YET
        for part, code in self.codes.items():
            if part in self.bodies[-1] or part in request.uri:
                request.setResponseCode(code)
        return b"answer"


class ExampleTestCase(TestCase):
    timeout = 30  # seconds

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251 - real sockets

        self.reactor: Any = reactor
        self.events: list[MailEvent] = []
        self.addCleanup(self.disconnected)

    def config(self, **settings: Any) -> Config:
        directory = os.path.abspath(self.mktemp())
        defaults: dict[str, Any] = {
            "state_dir": directory,
            "listeners": [Listener(endpoint="tcp:0:interface=127.0.0.1")],
            "local_domains": ["box.example"],
        }
        return Config(**{**defaults, **settings})

    async def start(self, agent: MailTransferAgent) -> None:
        agent.subscribe(self.events.append)
        agent.startService()
        self.addCleanup(agent.stopService)
        await agent.when_ready()

    async def listen(self, factory: Any) -> int:
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def serve(self, resource: Resource) -> str:
        site = Site(resource)
        site.noisy = False
        return f"http://127.0.0.1:{await self.listen(site)}/"

    def disconnected(self) -> Deferred[None]:
        """Fire when both ends of all connections are closed."""

        def gone() -> bool:
            return not any(isinstance(each, Connection) for each in self.reactor.getReaders())

        return Deferred.fromCoroutine(until(gone))

    async def send(
        self, port: int, *recipients: str, sender: str = "ann@sender.example", content: bytes = b""
    ) -> int:
        """Send a message with Twisted's own client; return the code of the last reply."""
        sent: Deferred[Any] = Deferred()
        client = SMTPSenderFactory(
            sender, list(recipients), BytesIO(content or MESSAGE), sent, retries=0, timeout=20
        )
        client.noisy = False
        await TCP4ClientEndpoint(self.reactor, "127.0.0.1", port).connect(client)
        try:
            _, replies = await sent
        except SMTPDeliveryError as error:
            return int(error.code)
        return int(replies[0][1])

    async def steps(self, *kinds: str) -> list[MailEvent]:
        """Wait for events of these kinds beside acceptance; return them."""

        def told() -> list[MailEvent]:
            return [each for each in self.events if type(each).__name__ != "Accepted"]

        await until(lambda: len(told()) >= len(kinds))
        self.assertEqual([type(each).__name__ for each in told()], list(kinds))
        return told()


def maildir(root: str, domain: str, local_part: str) -> list[bytes]:
    """Return the messages in a Maildir."""
    new = Path(root) / domain / local_part / "new"
    return [each.read_bytes() for each in sorted(new.iterdir())] if new.is_dir() else []
