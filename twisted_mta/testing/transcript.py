r"""Transcripts: dialogues with the server, for people to read and for tests to play.

::

    # RFC 3207 §4: STARTTLS takes no parameter, and the session goes on in clear.
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250-*
    S? STARTTLS
    C: STARTTLS now
    S: 501 5.5.4 *

The lines of a transcript:

=======================  ==========================================================================
``# text``               a comment; the first is the title, with the section of the RFC
``@ option value``       before the dialogue; see `ServerOptions`
``C: text``              the client sends a line; consecutive lines are one write
``C> octets``            the client sends octets, with the escapes of Python and nothing appended
``C* count octets``      the same, repeated
``S: pattern``           the server sends a line that matches (``*``, ``?``, ``[…]`` as in file
                         names); ``250-*`` stands for a whole reply of several lines
``S? keyword``           the last reply has a line that begins with this word
``S! keyword``           the last reply has no such line
``TLS``                  a handshake completes
``CLOSED``               the server has closed the connection
``M: from <> to <…> …``  after the dialogue: a message was received, with these paths
``M> octets``            and with this content; several lines are joined
=======================  ==========================================================================

Anything beyond the transcript is an error: one more reply, message or violation.

`Transcript.play_pure` plays it against the session alone: whole, octet by octet, and with each
write of the client in two pieces, cut at every place. `play_in_memory` plays it against the
protocol, with real TLS, on a clock; `play_over_tcp` over a real connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, Protocol

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol as BaseProtocol
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..mail.reply import Reply
from ..server.factory import ListenerFactory
from ..server.timeouts import Timeouts
from ..tls.server import ServerTLS
from .client import SMTPClientEnd
from .delivery import RecordingDelivery
from .network import MemoryNetwork, address
from .pure_wire import PureWire
from .server_options import ServerOptions

_LONGEST_REPLY = 510  # octets of a line without CR LF (RFC 5321 §4.5.3.1.5)
_ALL_CUTS = 600  # octets of a write that is cut everywhere, not only near line ends


class TranscriptError(AssertionError):
    """A dialogue deviates from its transcript; names file, line, the expected and the found."""


@define
class _Entry:
    """A line of the dialogue; consecutive writes of the client are one."""

    number: int
    kind: Literal["C", "S:", "S?", "S!", "TLS", "CLOSED"]
    text: str = ""
    octets: bytes = b""


@define
class _Expected:
    """A message that the transcript expects."""

    paths: str
    content: bytes = b""


class Wire(Protocol):
    """The client's end of a connection to any server."""

    async def send(self, octets: bytes) -> None:
        """Write octets, in one piece."""
        ...

    async def line(self) -> bytes | None:
        """Return the next line of the server without its CR LF; None: the connection has ended."""
        ...

    async def start_tls(self) -> None:
        """Do a TLS handshake."""
        ...


class Transcript:
    """A transcript.

    Attributes:
        name: the name of its file, for errors.
        title: the first comment.
        options: the options of the server.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.title = ""
        self.options = ServerOptions()
        self._entries: list[_Entry] = []
        self._messages: list[_Expected] = []
        self._at = 0
        for number, line in enumerate(text.split("\n"), 1):
            self._at = number
            try:
                self._read(number, line)
            except (ValueError, TypeError, IndexError, UnicodeError) as error:
                raise self._error(f"a line of a transcript, not {line!r}", str(error)) from None

    @classmethod
    def load(cls, path: Path) -> Transcript:
        """Read the transcript in a file."""
        return cls(path.read_text(encoding="utf-8"), path.name)

    def _read(self, number: int, line: str) -> None:
        start, rest = line[:2], line[3:]
        if not line.strip():
            return
        if line[0] == "#":
            self.title = self.title or line[1:].strip()
        elif line[0] == "@":
            self._option(*line[1:].strip().partition(" ")[::2])
        elif start == "C:":
            self._write(number, rest.encode() + b"\r\n")
        elif start == "C>":
            self._write(number, _octets(rest))
        elif start == "C*":
            count, _, repeated = rest.partition(" ")
            self._write(number, int(count) * _octets(repeated))
        elif start == "S:":
            self._entries.append(_Entry(number, "S:", rest))
        elif start == "S?" or start == "S!":
            self._entries.append(_Entry(number, "S?" if start == "S?" else "S!", rest))
        elif line == "TLS" or line == "CLOSED":
            self._entries.append(_Entry(number, "TLS" if line == "TLS" else "CLOSED"))
        elif start == "M:":
            self._messages.append(_Expected(rest))
        elif start == "M>":
            self._messages[-1].content += _octets(rest)
        else:
            raise ValueError("expected a line that begins with # @ C S TLS CLOSED or M")

    def _option(self, name: str, value: str) -> None:
        if name == "refuse":
            refusal = re.fullmatch(r"<(.*?)> (\d{3}) (.*)", value)
            if refusal is None:
                raise ValueError("expected: refuse <path> 550 5.1.1 text")
            key = {"DATA": "", "": "<>"}.get(refusal[1], refusal[1])
            self.options.refusals[key] = Reply.from_lines(int(refusal[2]), (refusal[3],))
            return
        default = getattr(ServerOptions(), name, None)
        if not isinstance(default, str | int):
            raise ValueError(f"there is no option {name}")
        typed: Any = True if isinstance(default, bool) else type(default)(value)
        self.options = evolve(self.options, **{name: typed})

    def _write(self, number: int, octets: bytes) -> None:
        if self._entries and self._entries[-1].kind == "C":
            self._entries[-1].octets += octets
        else:
            self._entries.append(_Entry(number, "C", octets=octets))

    # Playing.

    def play_pure(self) -> int:
        """Play against the session alone, cut everywhere; return the number of plays.

        Raises:
            TranscriptError: the dialogue deviates.
        """
        plays: list[dict[int, Sequence[int]]] = [{}]
        if not self.options.whole:
            groups = [entry for entry in self._entries if entry.kind == "C"]
            plays.append({each.number: range(1, len(each.octets)) for each in groups})
            plays += [{each.number: (cut,)} for each in groups for cut in _cuts(each.octets)]
        for cuts in plays:
            delivery = RecordingDelivery(refusals=self.options.refusals)
            wire = PureWire(self.options, delivery)
            outcome: list[Any] = []
            Deferred.fromCoroutine(self.play(wire, cuts)).addBoth(outcome.append)
            try:
                if outcome[0] is not None:
                    outcome[0].raiseException()
                if wire.output:
                    raise self._error("nothing more", repr(wire.output))
                self.check(delivery, wire.violations)
            except TranscriptError as error:
                raise TranscriptError(f"{error}{_shown(cuts)}") from None
        return len(plays)

    def play_in_memory(self, tls: ServerTLS, *, late: float = 0.0) -> None:
        """Play against the protocol on a clock, with real TLS.

        Args:
            tls: TLS for the server.
            late: seconds until each decision on a path or message.

        Raises:
            TranscriptError: the dialogue deviates, or leaves a timer or a connection behind.
        """
        network = MemoryNetwork()

        def when() -> Deferred[None]:
            later: Deferred[None] = Deferred()
            network.callLater(late, later.callback, None)
            return later

        delivery = RecordingDelivery(refusals=self.options.refusals, when=when if late else None)
        factory = self._factory(delivery, network, tls)
        client = SMTPClientEnd(self.options.client_tls)
        server = factory.buildProtocol(None)
        if self.options.tls == "implicit":
            wrapper = TLSMemoryBIOFactory(tls.creator, False, factory, network)
            server = wrapper.buildProtocol(None)
        network.join(client, server, "127.0.0.1", 25)
        outcome: list[Any] = []
        Deferred.fromCoroutine(self._converse(client)).addBoth(outcome.append)
        for _ in range(200):
            network.advance(late / 2)
            if outcome:
                break
        else:
            raise self._error("progress", f"none ({bytes(client.unread)!r} is unread)")
        if outcome[0] is not None:
            outcome[0].raiseException()
        client.abort()
        network.settle()
        self.check(delivery, factory.violations)
        if network.getDelayedCalls():
            raise self._error("no timer after the end", repr(network.getDelayedCalls()))

    async def play_over_tcp(self, reactor: Any, tls: ServerTLS) -> None:
        """Play over a connection of the loopback interface.

        Raises:
            TranscriptError: the dialogue deviates, or takes more than ten seconds.
        """
        delivery = RecordingDelivery(refusals=self.options.refusals)
        factory = self._factory(delivery, reactor, tls)
        served: Any = factory
        if self.options.tls == "implicit":
            served = TLSMemoryBIOFactory(tls.creator, False, factory, reactor)
        port = reactor.listenTCP(0, served, interface="127.0.0.1")
        client = SMTPClientEnd(self.options.client_tls)
        given_up = reactor.callLater(10, client.abort)
        try:
            there = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
            await connectProtocol(there, client)
            await self._converse(client)
            client.abort()
            await client.lost
            await factory.drain()
            self.check(delivery, factory.violations)
        finally:
            client.abort()
            if given_up.active():
                given_up.cancel()
            factory.abandon()
            await port.stopListening()

    def _factory(self, delivery: RecordingDelivery, clock: Any, tls: ServerTLS) -> ListenerFactory:
        served: ServerTLS | None = tls
        if self.options.tls == "none":
            served = None
        elif self.options.tls == "failed":
            served = Unloaded(tls)
        return _FromElsewhere(
            self.options.peer,
            delivery,
            clock=clock,
            settings=self.options.settings(),
            tls=served,
            timeouts=Timeouts(error_delay=0),
            authenticator=None if self.options.auth == "off" else self.options.authenticator(clock),
        )

    async def _converse(self, client: SMTPClientEnd) -> None:
        if self.options.tls == "implicit":
            await client.start_tls()
        await self.play(client)
        if client.unread:
            raise self._error("nothing more", repr(bytes(client.unread)))

    async def play(self, wire: Wire, cuts: dict[int, Sequence[int]] | None = None) -> None:
        """Play the dialogue on ``wire``; ``cuts`` has, by line, the places to cut a write."""
        reply: list[str] = []
        for entry in self._entries:
            self._at = entry.number
            if entry.kind == "C":
                start = 0
                for cut in (cuts or {}).get(entry.number, ()):
                    await wire.send(entry.octets[start:cut])
                    start = cut
                await wire.send(entry.octets[start:])
            elif entry.kind == "S:":
                reply = [line async for line in self._reply(wire, entry.text)]
            elif entry.kind == "TLS":
                await wire.start_tls()
            elif entry.kind == "CLOSED":
                line = await wire.line()
                if line is not None:
                    raise self._error("the end of the connection", repr(line))
            else:
                here = any(f"{line[4:]} ".startswith(f"{entry.text} ") for line in reply)
                if here != (entry.kind == "S?"):
                    raise self._error(f"{entry.kind} {entry.text}", "\n".join(reply))

    async def _reply(self, wire: Wire, pattern: str) -> Any:
        several, first = pattern[3:4] == "-", True
        while True:
            octets = await wire.line()
            if octets is None:
                raise self._error(pattern, "the end of the connection")
            line = octets.decode("latin-1")
            if len(octets) > _LONGEST_REPLY or not re.fullmatch(r"\d{3}[ -][\x20-\x7e]*", line):
                raise self._error("a reply line of RFC 5321 §4.2", repr(octets))
            yield line
            if not fnmatchcase(line, pattern):
                if several and not first and line[:4] == f"{pattern[:3]} ":
                    return
                raise self._error(pattern, line)
            if not several:
                return
            first = False

    def check(self, delivery: RecordingDelivery, violations: int) -> None:
        """Compare the received messages and violations with the expected ones.

        Raises:
            TranscriptError: they differ.
        """
        expected = [(each.paths, each.content) for each in self._messages]
        received = [
            (
                f"from <{each.reverse_path or ''}> to "
                + " ".join(f"<{mailbox}>" for mailbox in each.recipients),
                each.content,
            )
            for each in delivery.messages
        ]
        for number, pair in enumerate(zip_longest(expected, received, fillvalue="none"), 1):
            if pair[0] != pair[1]:
                raise self._error(f"as message {number} {pair[0]}", str(pair[1]))
        if violations != self.options.violations:
            raise self._error(f"{self.options.violations} violations", str(violations))
        if delivery.open_sinks:
            raise self._error("no content without an end", f"{delivery.open_sinks}")

    def _error(self, expected: str, found: str) -> TranscriptError:
        return TranscriptError(f"{self.name}:{self._at}: found {found}, expected {expected}")


def _octets(escaped: str) -> bytes:
    text = escaped.encode("latin-1", "backslashreplace").decode("unicode_escape")
    return text.encode("latin-1")


def _cuts(octets: bytes) -> Iterator[int]:
    for cut in range(1, len(octets)):
        near = octets[max(0, cut - 4) : cut + 4]
        if len(octets) <= _ALL_CUTS or b"\r" in near or b"\n" in near or cut == 1:
            yield cut


def _shown(cuts: dict[int, Sequence[int]]) -> str:
    places = [f"line {line} at {list(where)}" for line, where in cuts.items()]
    return f" (cut: {', '.join(places)[:200]})" if places else ""


class _FromElsewhere(ListenerFactory):
    """A factory that treats every connection as one from ``peer``."""

    def __init__(self, peer: str, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._peer = address(peer, 50_000)

    def buildProtocol(self, addr: IAddress | None) -> BaseProtocol:
        """Make the protocol of a new connection."""
        return super().buildProtocol(self._peer)


class Unloaded:
    """TLS whose certificate could not be loaded."""

    ready = False

    def __init__(self, tls: ServerTLS) -> None:
        self.creator = tls.creator
        self.facts = tls.facts
