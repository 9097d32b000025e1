"""The ``with`` clause of Received (RFC 3848, RFC 6531 §4.3): every row, over real connections."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from itertools import count, product
from typing import Any

from attrs import evolve, frozen
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from tests.server.certificate import server_context
from twisted_mta.auth.authenticator import AccountRealm, Authenticator
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.policy.capacity import Capacity
from twisted_mta.server.factory import ImplicitTLSFactory, ListenerFactory
from twisted_mta.server.intake import Intake
from twisted_mta.server.intake_policy import IntakePolicy
from twisted_mta.smtp.extension.auth import AUTH
from twisted_mta.smtp.extension.standard import standard_extensions
from twisted_mta.smtp.server.dialect import LMTP, SMTP
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.server_options import ServerOptions

from .intake import Queue

REGISTERED = (
    *("SMTP", "ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"),
    *("LMTP", "LMTPA", "LMTPS", "LMTPSA"),
    *("UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"),
    *("UTF8LMTP", "UTF8LMTPA", "UTF8LMTPS", "UTF8LMTPSA"),
)
PLAIN = b64encode(b"\0alice\0secret")
WRONG = b64encode(b"\0alice\0guess")


@frozen
class Row:
    """One state of a session.

    Attributes:
        greeting: HELO, EHLO or LHLO.
        tls: STARTTLS or implicit; empty in clear.
        auth: the outcome of AUTH; empty: not tried.
        utf8: whether MAIL had SMTPUTF8.
    """

    greeting: str
    tls: str = ""
    auth: str = ""
    utf8: bool = False

    @property
    def expected(self) -> str:
        """The type in the table of the RFCs."""
        if self.greeting == "HELO":
            return "SMTP"
        name = "LMTP" if self.greeting == "LHLO" else "SMTP" if self.utf8 else "ESMTP"
        letters = "S" * bool(self.tls) + "A" * (self.auth == "good")
        return "UTF8" * self.utf8 + name + letters


def rows() -> Iterator[Row]:
    yield from (Row("HELO", tls) for tls in ("", "STARTTLS", "implicit"))
    for parts in product(
        ("EHLO", "LHLO"),
        ("", "STARTTLS", "implicit"),
        ("", "bad", "good", "before STARTTLS"),
        (False, True),
    ):
        row = Row(*parts)
        if row.auth != "before STARTTLS" or row.tls == "STARTTLS":
            yield row


class Writer:
    """The body of a message, in memory (`interfaces.BodyWriter`)."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, content: bytes) -> None:
        self._pieces.append(content)

    def seal(self) -> MemoryBody:
        return MemoryBody(b"".join(self._pieces))

    def discard(self) -> None:
        self._pieces.clear()


class WithTypes(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor
        self.messages: list[Message] = []
        ids = count(1)
        intake = Intake(
            IntakePolicy(hostname="mx.example", local_domains=("mx.example",)),
            accept=self.accept,
            new_body=lambda _: Writer(),
            exists=lambda _: True,
            ids=lambda: QueueId(next(ids)),
            wall_time=lambda: 1_790_000_000.0,
            capacity=Capacity(
                memory=1 << 30, share=1, minimum_free=0, free=lambda: 1 << 40, clock=reactor
            ),
        )
        portal = Portal(AccountRealm())
        portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret"))
        judge = Authenticator(portal=portal, clock=self.reactor, secret=b"x" * 32)
        nonces = count()
        settings = SessionSettings(
            hostname="mx.example",
            extensions=(*standard_extensions(1 << 20, 100), AUTH),
            auth=judge.settings(in_clear=True, nonce=lambda: f"nonce{next(nonces)}"),
        )
        self.announced = [each.keyword for each in settings.extensions]
        self.ports: dict[tuple[bool, bool], int] = {}
        for lmtp, implicit in product((False, True), (False, True)):
            factory = ListenerFactory(
                intake,
                settings=evolve(settings, dialect=LMTP if lmtp else SMTP),
                tls=server_context(),
                clock=reactor,
                auth="any",
                authenticator=judge,
            )
            served: Any = ImplicitTLSFactory(factory) if implicit else factory
            port = self.reactor.listenTCP(0, served, interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            self.addCleanup(factory.abandon, at_once=True)
            self.ports[lmtp, implicit] = port.getHost().port

    def accept(self, message: Message) -> Deferred[None]:
        self.messages.append(message)
        return succeed(None)

    async def say(self, client: SMTPClientEnd, line: bytes, expected: bytes) -> None:
        await client.send(line + b"\r\n")
        while True:
            reply = await client.line()
            assert reply is not None, f"closed after {line!r}"
            self.assertTrue(reply.startswith(expected), f"{line!r}: {reply!r}")
            if reply[3:4] == b" ":
                return

    async def walk(self, row: Row) -> str:
        """Return the type in the trace field of a message that was sent as the row says."""
        client = SMTPClientEnd()
        port = self.ports[row.greeting == "LHLO", row.tls == "implicit"]
        await connectProtocol(TCP4ClientEndpoint(self.reactor, "127.0.0.1", port), client)
        if row.tls == "implicit":
            await client.start_tls()
        greeting = await client.line()
        self.assertEqual(greeting and greeting[:4], b"220 ")
        hello = f"{row.greeting} client.example".encode()
        await self.say(client, hello, b"250")
        if row.auth == "before STARTTLS":
            await self.say(client, b"AUTH PLAIN " + PLAIN, b"235")
        if row.tls == "STARTTLS":
            await self.say(client, b"STARTTLS", b"220")
            await client.start_tls()
            await self.say(client, hello, b"250")
        if row.auth == "bad":
            await self.say(client, b"AUTH PLAIN " + WRONG, b"535")
        elif row.auth == "good":
            await self.say(client, b"AUTH PLAIN " + PLAIN, b"235")
        parameter = b" SMTPUTF8" if row.utf8 else b""
        await self.say(client, b"MAIL FROM:<ann@client.example>" + parameter, b"250")
        await self.say(client, b"RCPT TO:<bob@mx.example>", b"250")
        await self.say(client, b"DATA", b"354")
        await self.say(client, b"Subject: Hi\r\n\r\nHello\r\n.", b"250")
        await self.say(client, b"QUIT", b"221")
        client.abort()
        await client.lost
        trace = b" ".join(self.messages[-1].trace.split()).decode()
        match = re.fullmatch(r"Received: .* by mx\.example with (\S+) id .*", trace)
        assert match is not None, trace
        self.assertEqual("(TLSv1." in trace, bool(row.tls), trace)
        return match[1]

    async def test_every_row_of_the_table_has_the_expected_reply(self) -> None:
        walked = {}
        for row in rows():
            if row.utf8 and "SMTPUTF8" not in self.announced:
                continue
            walked[row] = await self.walk(row)
        self.assertEqual(walked, {row: row.expected for row in walked})
        registered = [
            name for name in REGISTERED if "SMTPUTF8" in self.announced or "UTF8" not in name
        ]
        self.assertEqual(sorted(dict.fromkeys(walked.values())), sorted(registered))


class TraceUnderTLS(TestCase):
    """RFC 3848, S14 of RFC 3207: Received shows the state after the handshake alone.

    Over real connections.
    """

    async def trace(self, greeting: bytes, tls: str) -> bytes:
        """Return the trace field of a message; ``tls`` tells how TLS began."""
        from twisted.internet import reactor  # noqa: TID251

        queue = Queue()
        factory = ListenerFactory(
            queue.intake(), clock=reactor, settings=ServerOptions().settings(), tls=server_context()
        )
        served: Any = factory
        if tls == "implicit":
            served = TLSMemoryBIOFactory(server_context(), False, factory, reactor)
        port = reactor.listenTCP(0, served, interface="127.0.0.1")  # type: ignore[attr-defined]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await connectProtocol(endpoint, SMTPClientEnd())
        lines = [greeting, b"MAIL FROM:<>", b"RCPT TO:<u@mx.example>", b"DATA", b"x\r\n."]
        if tls == "implicit":
            await client.start_tls()
        elif tls == "first":
            lines.insert(0, b"STARTTLS")
        elif tls == "second":
            lines[:0] = [b"EHLO before.example", b"STARTTLS"]
        await client.line()
        for line in lines:
            await client.send(line + b"\r\n")
            while (reply := await client.line() or b"")[3:4] == b"-":
                pass
            self.assertIn(reply[:1], b"23", reply)
            if line == b"STARTTLS":
                await client.start_tls()
        client.abort()
        await factory.drain()
        await port.stopListening()
        (message,) = queue.messages
        return message.trace

    async def test_every_greeting_and_kind_of_tls_has_its_with_clause(self) -> None:
        for greeting, tls, protocol in (
            (b"HELO client.example", "", b"SMTP"),
            (b"HELO client.example", "first", b"SMTP"),
            (b"HELO client.example", "second", b"SMTP"),
            (b"HELO client.example", "implicit", b"SMTP"),
            (b"EHLO client.example", "", b"ESMTP"),
            (b"EHLO client.example", "first", b"ESMTPS"),
            (b"EHLO client.example", "second", b"ESMTPS"),
            (b"EHLO client.example", "implicit", b"ESMTPS"),
        ):
            trace = await self.trace(greeting, tls)
            self.assertIn(b" with " + protocol + b" id ", trace.replace(b"\r\n\t", b" "))
            self.assertEqual(b"TLSv1.3" in trace, bool(tls), trace)
            self.assertTrue(trace.startswith(b"Received: from client.example ([127.0.0.1])"))
            self.assertNotIn(b"before.example", trace)

    async def test_a_hostile_helo_cannot_end_the_field(self) -> None:
        trace = await self.trace("HELO )with(ESMTPSA;\\ü".encode(), "")
        self.assertTrue(trace.isascii())
        self.assertEqual(trace.count(b" with SMTP id "), 1)
        self.assertTrue(all(line[:1] in (b"\t", b"") for line in trace.split(b"\r\n")[1:]))
