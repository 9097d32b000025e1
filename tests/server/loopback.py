"""A whole MTA on the loopback interface, and its clients over real connections."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from tests.logs import logged_lines
from tests.server.authority import Issued
from twisted_mta import Config, MailTransferAgent
from twisted_mta.config import Listener
from twisted_mta.mail.message import Message


@implementer(IOpenSSLClientConnectionCreator)
class ClientTLS:
    """The client's side of TLS, as a test sets it; it trusts any server.

    Attributes:
        context: to be changed before it is used.
    """

    def __init__(self, certificate: Issued | None = None, server_name: str | None = None) -> None:
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._server_name = server_name
        if certificate is not None:
            self.show(certificate)

    def show(self, certificate: Issued) -> ClientTLS:
        """Send a certificate when the server requests one."""
        self.context.use_certificate(certificate.certificate)
        self.context.use_privatekey(certificate.key)  # type: ignore[arg-type]
        return self

    def only(self, version: int) -> ClientTLS:
        """Offer one version of TLS alone."""
        self.context.set_min_proto_version(version)
        self.context.set_max_proto_version(version)
        return self

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self.context, None)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name.encode())
        return connection


@implementer(IHandshakeListener)
class Client(Protocol):
    """Sends lines and returns replies.

    Attributes:
        lost: fires when the connection is over.
        over: whether the connection is over.
        reason: of its end; None before.
        unread: octets that `reply` has not returned yet.
    """

    transport: Any

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()
        self.over = False
        self.reason: Failure | None = None
        self.unread = b""
        self._waiting: Deferred[None] | None = None
        self._handshake: Deferred[None] | None = None

    async def say(self, *lines: str) -> list[str]:
        """Send lines, one at a time; return the replies, their lines joined by ``\\n``."""
        replies = []
        for line in lines:
            self.transport.write(line.encode() + b"\r\n")
            replies.append(await self.reply())
        return replies

    async def reply(self) -> str:
        """Return the next reply; CLOSED if the connection ended instead."""
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            while b"\r\n" not in self.unread:
                if self.over:
                    return "CLOSED"
                self._waiting = Deferred()
                await self._waiting
            line, _, self.unread = self.unread.partition(b"\r\n")
            lines.append(line.decode())
        return "\n".join(lines)

    async def start_tls(self, tls: ClientTLS | None = None) -> None:
        """Send STARTTLS and complete the handshake; raises the reason of a failure."""
        (reply,) = await self.say("STARTTLS")
        assert reply.startswith("220 "), reply
        handshake = self.expect_handshake()
        self.transport.startTLS(tls or ClientTLS())
        await handshake

    def expect_handshake(self) -> Deferred[None]:
        """Return a Deferred that fires or fails with the next handshake."""
        self._handshake = Deferred()
        return self._handshake

    async def mail(self, recipient: str) -> list[str]:
        """Send a message to ``recipient``; return the reply codes up to the first refusal."""
        codes = []
        for line in ("MAIL FROM:<a@a.example>", f"RCPT TO:<{recipient}>", "DATA", "Hi\r\n."):
            (reply,) = await self.say(line)
            codes.append(reply[:3])
            if reply[0] not in "23":
                break
        return codes

    @property
    def server_certificate(self) -> x509.Certificate | None:
        """The certificate of the server."""
        found: x509.Certificate | None = self.transport.getHandle().get_peer_certificate(
            as_cryptography=True
        )
        return found

    def dataReceived(self, data: bytes) -> None:
        self.unread += data
        self._wake()

    def handshakeCompleted(self) -> None:
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True
        self.reason = reason
        self._wake()
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.errback(reason)
        self.lost.callback(None)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)


class RecordingAgent(MailTransferAgent):
    """An agent that records the messages that it accepted."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.messages: list[Message] = []
        super().__init__(*arguments, **keywords)
        activity: Any = self.activity
        original = activity.message_accepted

        def message_accepted(message: Message) -> None:
            self.messages.append(message)
            original(message)

        activity.message_accepted = message_accepted


def received(message: Message) -> str:
    """Return the trace field of a message on one line, as it unfolds (RFC 5322 §2.2.3)."""
    return message.trace.decode("ascii").replace("\r\n\t", " ").removesuffix("\r\n")


def listener(**settings: Any) -> Listener:
    """Return a listener on a port of its own."""
    return Listener(**{"endpoint": "tcp:0:interface=127.0.0.1", **settings})


class LoopbackTestCase(TestCase):
    """Runs servers and clients on the loopback interface.

    Attributes:
        directory: for files.
        log: the texts of logged events.
    """

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251 - the one that runs the tests

        self.reactor: Any = reactor
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.log = logged_lines(self)

    def agent(self, *listeners: Listener, **settings: Any) -> RecordingAgent:
        """Start an MTA for the domain ``mx.example``, which relays for no client by default."""
        config = Config(
            state_dir=f"{self.directory}/state",
            hostname="mx.example",
            local_domains=("mx.example",),
            routes=(("*", "discard:"),),
            listeners=listeners or (listener(),),
            **{"relay_from": (), "recipients": "any", **settings},
        )
        agent = RecordingAgent(config, reactor=self.reactor)
        agent.startService()
        self.addCleanup(agent.stopService)
        return agent

    async def connect(self, agent: MailTransferAgent, number: int = 0) -> Client:
        """Connect to a listener of ``agent``, and read the greeting."""
        client = await self.dial(self.port(agent, number))
        greeting = await client.reply()
        self.assertTrue(greeting.startswith("220 "), greeting)
        return client

    def port(self, agent: MailTransferAgent, number: int = 0) -> int:
        address: Any = agent.bound[number].port.getHost()
        return int(address.port)

    async def dial(self, port: int, tls: ClientTLS | None = None) -> Client:
        """Connect to ``port``, with ``tls`` under TLS from the first octet."""
        client = Client()
        made: Any = client
        handshake: Deferred[None] | None = None
        if tls is not None:
            factory = Factory.forProtocol(lambda: client)  # type: ignore[arg-type]
            made = TLSMemoryBIOFactory(tls, True, factory).buildProtocol(None)
            handshake = client.expect_handshake()
        await connectProtocol(HostnameEndpoint(self.reactor, "127.0.0.1", port), made)
        self.addCleanup(self._hang_up, client)
        if handshake is not None:
            await handshake
        return client

    async def session(
        self, agent: MailTransferAgent, tls: ClientTLS | None = None, *, number: int = 0
    ) -> Client:
        """Connect and send EHLO; with ``tls``, after STARTTLS."""
        client = await self.connect(agent, number)
        await client.say("EHLO client.example")
        if tls is not None:
            await client.start_tls(tls)
            await client.say("EHLO client.example")
        return client

    def _hang_up(self, client: Client) -> Any:
        if not client.over:
            client.transport.abortConnection()
        return client.lost
