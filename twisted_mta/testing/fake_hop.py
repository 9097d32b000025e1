r"""A next hop that accepts mail, or fails on cue.

::

    hop = mta.hop("192.0.2.1").defer(2).then_accept()
    mta.submit(b"Subject: Hi\r\n\r\n", sender="", recipients=["bob@there.example"])
    mta.advance(hours=1)
    self.assertEqual(hop.received[0].to, ("bob@there.example",))

It is a server factory of Twisted: it listens on the network of a `MemoryMTA`, or on a real port.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Literal

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from ..inbox_message import InboxMessage
from ..interfaces import WallTime
from ..policy.dkim.body_hashes import BodyHashes
from ..policy.dkim.key_lookup import TextResolver
from ..policy.dkim.signed_header import SignedHeader
from ..policy.dkim.verification import Verification
from .tls import HopTLS, Shown

Stage = Literal["connect", "ehlo", "mail", "rcpt", "data", "dot"]
"""Where a step of the script acts: at a connection, a command, or the end of the content."""

_STAGES: tuple[Stage, ...] = ("connect", "ehlo", "mail", "rcpt", "data", "dot")
_LONGEST_LINE = 65_536
_PATH = re.compile(r"[^:]*:\s*<([^>]*)>")


class _Act(enum.Enum):
    """What a step of the script does."""

    ACCEPT = enum.auto()
    REPLY = enum.auto()
    HANG = enum.auto()
    DROP = enum.auto()


@define(eq=False)
class _Step:
    """A step of the script.

    Attributes:
        act: what it does.
        stage: from where on.
        reply: what it replies.
        to: at RCPT, the recipients that get the reply, as a pattern.
        left: how many transactions it still has; None: all.
    """

    act: _Act
    stage: int = 0
    reply: str = ""
    left: int | None = None
    to: str = "*"


@frozen
class _Seen:
    """An attempt that greylisting has seen: the client, the sender and the recipient."""

    client: str
    sender: str
    recipient: str


class FakeHop(Factory):
    """A next hop for tests: an SMTP server with STARTTLS that follows a script.

    Without a script it accepts everything. Each method of the script adds a step for the next
    ``times`` transactions, or for all that follow, and returns the hop; ``then_…`` reads better
    behind another step and is the same. A step for all that follow is replaced by the next one.
    After the last step, mail is accepted. A step at ``"connect"`` or ``"ehlo"`` counts connections.

    Args:
        clock: `IReactorTime`; for `slow`, `rate_limit` and `greylist`.
        resolver: the DNS, for the keys of `require_dkim`.
        wall_time: the time of day, for signatures that expire.

    Attributes:
        received: the accepted messages, in order; also those of a `drop` at the dot.
        commands: each line from a client, outside of a content, in order.
        connections: how many there were.
        transactions: how many were begun: the number of MAIL commands.
        name: of the server, in its greeting.
        extensions: the lines of its reply to EHLO, besides STARTTLS; may be changed.
        tls: the TLS of its connections.
    """

    noisy = False

    def __init__(
        self,
        clock: Any,
        *,
        resolver: TextResolver | None = None,
        wall_time: WallTime = lambda: 0.0,
        name: str = "mx.example",
    ) -> None:
        self.received: list[InboxMessage] = []
        self.commands: list[str] = []
        self.connections = 0
        self.transactions = 0
        self.name = name
        self.extensions = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"]
        self.tls = HopTLS()
        self._clock = clock
        self._resolver = resolver
        self._wall_time = wall_time
        self._steps: deque[_Step] = deque()
        self._delay = 0.0
        self._offers_tls = True
        self._breaks_tls = False
        self._rate: tuple[int, float] | None = None
        self._accepted_at: deque[float] = deque()
        self._greylist: float | None = None
        self._first_seen: dict[_Seen, float] = {}
        self._requires_dkim = False

    # The script.

    def accept(self, times: int | None = None) -> FakeHop:
        """Accept the next ``times`` transactions; None: all that follow."""
        return self._add(_Step(_Act.ACCEPT, left=times))

    def defer(
        self,
        times: int | None = None,
        reply: str = "451 4.3.0 Try again later",
        *,
        at: Stage = "rcpt",
        to: str = "*",
    ) -> FakeHop:
        """Reply 4yz to the next ``times`` transactions; None: to all that follow.

        Args:
            times: how many transactions; None: all that follow.
            reply: with its code; lines are separated by LF. After 421 the connection is closed.
            at: where; at ``"rcpt"`` each recipient gets the reply.
            to: with ``at="rcpt"``, only the recipients that match this pattern, with ``*`` and
                ``?``; the others are accepted.

        Raises:
            ValueError: the reply is no such reply, or there is no such stage.
        """
        return self._add(_reply_step("4", times, reply, at, to))

    def refuse(
        self,
        times: int | None = None,
        reply: str = "550 5.1.1 No such mailbox",
        *,
        at: Stage = "rcpt",
        to: str = "*",
    ) -> FakeHop:
        """Reply 5yz to the next ``times`` transactions; None: to all that follow (see `defer`)."""
        return self._add(_reply_step("5", times, reply, at, to))

    def hang(self, times: int | None = None, *, at: Stage = "dot") -> FakeHop:
        """Never answer, and leave the connection open."""
        return self._add(_Step(_Act.HANG, _stage(at), left=times))

    def drop(self, times: int | None = None, *, at: Stage = "dot") -> FakeHop:
        """Lose the connection instead of a reply.

        At ``"dot"`` the message has arrived and is in `received`, and its sender does not know it:
        the one case where SMTP delivers twice (RFC 5321 §4.2.5).
        """
        return self._add(_Step(_Act.DROP, _stage(at), left=times))

    def then_accept(self, times: int | None = None) -> FakeHop:
        """Accept from now on (`accept`)."""
        return self.accept(times)

    def then_defer(
        self,
        times: int | None = None,
        reply: str = "451 4.3.0 Try again later",
        *,
        at: Stage = "rcpt",
        to: str = "*",
    ) -> FakeHop:
        """Reply 4yz from now on (`defer`)."""
        return self.defer(times, reply, at=at, to=to)

    def then_refuse(
        self,
        times: int | None = None,
        reply: str = "550 5.1.1 No such mailbox",
        *,
        at: Stage = "rcpt",
        to: str = "*",
    ) -> FakeHop:
        """Reply 5yz from now on (`refuse`)."""
        return self.refuse(times, reply, at=at, to=to)

    def then_hang(self, times: int | None = None, *, at: Stage = "dot") -> FakeHop:
        """Never answer from now on (`hang`)."""
        return self.hang(times, at=at)

    def then_drop(self, times: int | None = None, *, at: Stage = "dot") -> FakeHop:
        """Lose connections from now on (`drop`)."""
        return self.drop(times, at=at)

    # What it is like, at every step.

    def slow(self, seconds: float) -> FakeHop:
        """Take so many seconds for each reply."""
        self._delay = seconds
        return self

    def good_tls(self) -> FakeHop:
        """Offer STARTTLS with a certificate of `tls.authority_file`, as it does from the start."""
        self.tls.shown, self._offers_tls, self._breaks_tls = "trusted", True, False
        return self

    def no_tls(self) -> FakeHop:
        """Offer no STARTTLS."""
        self._offers_tls = False
        return self

    def bad_tls(
        self, why: Literal["untrusted", "expired", "wrong name", "broken"] = "untrusted"
    ) -> FakeHop:
        """Offer STARTTLS that does not verify.

        Args:
            why: its certificate is not of `tls.authority_file`, has expired, or is for another
                name; ``"broken"``: the handshake fails.

        Raises:
            ValueError: there is no such reason.
        """
        if why not in ("untrusted", "expired", "wrong name", "broken"):
            raise ValueError(
                f"found {why!r}, expected untrusted, expired, 'wrong name' or 'broken'"
            )
        self.good_tls()
        shown: Shown = "trusted" if why == "broken" else why
        self.tls.shown, self._breaks_tls = shown, why == "broken"
        return self

    # As large receivers behave.

    def rate_limit(self, messages: int, *, seconds: float = 3600.0) -> FakeHop:
        """Reply 421 4.7.28, and close, after so many messages in so many seconds."""
        self._rate = messages, seconds
        return self

    def greylist(self, seconds: float = 300.0) -> FakeHop:
        """Defer a client, sender and recipient that were first seen less than ``seconds`` ago."""
        self._greylist = seconds
        return self

    def require_dkim(self) -> FakeHop:
        """Refuse with 550 5.7.26 mail without a valid DKIM signature of its From domain.

        A signature of a domain above or below counts, as in relaxed alignment (RFC 9989 §4.4).
        Keys are looked up in the zone.
        """
        self._requires_dkim = True
        return self

    # As a factory.

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Make the server of a new connection (called by Twisted)."""
        self.connections += 1
        return _Session(self, getattr(addr, "host", ""))

    def _add(self, step: _Step) -> FakeHop:
        if step.left is not None and step.left < 1:
            raise ValueError(f"times: found {step.left}, expected 1 or more, or None")
        if self._steps and self._steps[-1].left is None:
            self._steps.pop()
        self._steps.append(step)
        return self

    def _step(self, *, connecting: bool) -> _Step | None:
        """Return the step of a connection or a transaction, and count it; None: none is for it."""
        if not self._steps:
            return None
        step = self._steps[0]
        if connecting and (step.act is _Act.ACCEPT or step.stage > _STAGES.index("ehlo")):
            return None
        if step.left is not None:
            step.left -= 1
            if not step.left:
                self._steps.popleft()
        return step

    def _over_rate(self) -> bool:
        if self._rate is None:
            return False
        messages, seconds = self._rate
        while self._accepted_at and self._accepted_at[0] <= self._clock.seconds() - seconds:
            self._accepted_at.popleft()
        return len(self._accepted_at) >= messages

    def _greylisted(self, seen: _Seen) -> float:
        """Return for how many seconds a recipient is still deferred."""
        if self._greylist is None:
            return 0.0
        now = self._clock.seconds()
        left: float = self._first_seen.setdefault(seen, now) + self._greylist - now
        return left

    def _take(self, message: InboxMessage) -> None:
        self._accepted_at.append(self._clock.seconds())
        self.received.append(message)

    async def _is_signed(self, raw: bytes) -> bool:
        """Whether a signature of the From domain verifies."""
        section, _, body = raw.partition(b"\r\n\r\n")
        author = re.search(r"@([^\s>]+)", InboxMessage("", (), raw).header("From") or "")
        if author is None or self._resolver is None:
            return False
        bodies = BodyHashes()
        signatures = Verification(SignedHeader(section + b"\r\n"), bodies, self._wall_time())
        signatures.look_up(self._resolver)
        bodies.feed(body)
        return any(
            each.result == "pass" and _are_related(each.domain, author[1])
            for each in await signatures.results()
        )


def _are_related(one: str, other: str) -> bool:
    one, other = f".{one.lower()}", f".{other.lower()}"
    return one.endswith(other) or other.endswith(one)


def _stage(at: str) -> int:
    if at not in _STAGES:
        raise ValueError(f"at: found {at!r}, expected one of {', '.join(_STAGES)}")
    return _STAGES.index(at)


def _reply_step(first: str, times: int | None, reply: str, at: str, to: str) -> _Step:
    if not re.fullmatch(rf"{first}[0-5]\d [^\r]+", reply, re.DOTALL):
        raise ValueError(f"found reply {reply!r}, expected {first}yz, a space and a text")
    if to != "*" and at != "rcpt":
        raise ValueError(f"to: found {to!r} with at={at!r}, expected at='rcpt'")
    return _Step(_Act.REPLY, _stage(at), reply, times, to)


class _Session(Protocol):
    """The server's end of a connection to a `FakeHop`."""

    transport: Any

    def __init__(self, hop: FakeHop, client: str) -> None:
        self._hop = hop
        self._client = client
        self._buffer = bytearray()
        self._step: _Step | None = None  # of the connection, then of each transaction
        self._secure = False
        self._waiting = False  # for a reply that takes time, or for ever
        self._is_reading = False
        self._reading_content = False
        self._timer: Any = None
        self._reset()

    def _reset(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []

    # Octets.

    def connectionMade(self) -> None:
        """Greet (called by Twisted)."""
        self._step = self._hop._step(connecting=True)
        if not self._acts("connect"):
            self._reply(f"220 {self._hop.name} ESMTP")

    def dataReceived(self, data: bytes) -> None:
        """Read commands (called by Twisted)."""
        self._buffer += data
        self._read()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop (called by Twisted)."""
        self._waiting = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _read(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self._read_commands()
            self._is_reading = False

    def _read_commands(self) -> None:
        while not self._waiting:
            end = self._buffer.find(b"\r\n")
            if self._reading_content:
                # The content may be empty, and then begins with its end (RFC 5321 §4.1.1.4).
                end = 0 if self._buffer.startswith(b".\r\n") else self._buffer.find(b"\r\n.\r\n")
                if end < 0:
                    return
                content = bytes(self._buffer[: end + 2]) if end else b""
                del self._buffer[: end + 5 if end else 3]
                self._reading_content = False
                self._end_content(_unstuffed(content))
            elif end >= 0:
                line = self._buffer[:end].decode("utf-8", "surrogateescape")
                del self._buffer[: end + 2]
                self._hop.commands.append(line)
                self._command(line)
            else:
                if len(self._buffer) > _LONGEST_LINE:
                    self.transport.abortConnection()
                return

    def _reply(self, text: str, then: Callable[[], object] | None = None) -> None:
        """Reply, after the time that the hop takes; then call a function."""
        code, *lines = text[:3], *text[4:].split("\n")
        octets = "".join(
            f"{code}{' ' if number == len(lines) else '-'}{line}\r\n"
            for number, line in enumerate(lines, 1)
        ).encode()
        self._waiting = True

        def reply() -> None:
            self._waiting = False
            self.transport.write(octets)
            if then is not None:
                then()
            if code == "421" or text.startswith("221"):
                self._waiting = True
                self.transport.loseConnection()
            else:
                self._read()

        if self._hop._delay:
            self._timer = self._hop._clock.callLater(self._hop._delay, reply)
        else:
            reply()

    def _acts(self, stage: Stage) -> bool:
        """Do what the step says, if it acts at this stage; return whether it does."""
        step = self._step
        if step is None or step.act is _Act.ACCEPT or _STAGES.index(stage) < step.stage:
            return False
        if step.act is _Act.REPLY:
            self._reply(step.reply)
            return True
        self._waiting = True
        if step.act is _Act.DROP:
            self.transport.abortConnection()
        return True

    # Commands.

    def _command(self, line: str) -> None:
        verb = line.split(" ")[0].upper()
        if verb in ("EHLO", "HELO"):
            self._hello(verb)
        elif verb == "STARTTLS" and self._hop._offers_tls and not self._secure:
            self._reply("220 2.0.0 Go ahead", self._start_tls)
        elif verb == "MAIL":
            self._mail(line)
        elif verb == "RCPT":
            self._rcpt(line)
        elif verb == "DATA":
            self._data()
        elif verb == "RSET":
            self._reset()
            self._reply("250 2.0.0 Reset")
        elif verb == "NOOP":
            self._reply("250 2.0.0 Done")
        elif verb == "QUIT":
            self._reply(f"221 2.0.0 {self._hop.name} closes")
        else:
            self._reply("500 5.5.1 No such command")

    def _hello(self, verb: str) -> None:
        self._reset()
        if self._acts("ehlo"):
            return
        lines = [self._hop.name]
        if verb == "EHLO":
            lines += self._hop.extensions
            if self._hop._offers_tls and not self._secure:
                lines.append("STARTTLS")
        self._reply("250 " + "\n".join(lines))

    def _start_tls(self) -> None:
        self._buffer.clear()  # RFC 3207 §6: what came in clear does not count
        if self._hop._breaks_tls:
            self.transport.write(b"This is no TLS.\r\n")
            return
        self._secure = True
        self.transport.startTLS(self._hop.tls)

    def _mail(self, line: str) -> None:
        path = _PATH.match(line)
        if path is None or self._sender is not None:
            return self._reply("503 5.5.1 MAIL comes once, as MAIL FROM:<path>")
        self._hop.transactions += 1
        self._step = self._hop._step(connecting=False)
        if self._hop._over_rate():
            return self._reply("421 4.7.28 Unusual rate of mail from your address; come back later")
        if not self._acts("mail"):
            self._sender = path[1]
            self._reply("250 2.1.0 Sender taken")
        return None

    def _rcpt(self, line: str) -> None:
        path = _PATH.match(line)
        if path is None or self._sender is None:
            return self._reply("503 5.5.1 MAIL comes first")
        step = self._step
        if (step is None or fnmatchcase(path[1], step.to)) and self._acts("rcpt"):
            return None
        left = self._hop._greylisted(_Seen(self._client, self._sender, path[1]))
        if left > 0:
            return self._reply(f"451 4.7.1 Greylisted; try again in {left:.0f} seconds")
        self._recipients.append(path[1])
        return self._reply("250 2.1.5 Recipient taken")

    def _data(self) -> None:
        if not self._recipients:
            return self._reply("503 5.5.1 RCPT comes first")
        step = self._step
        if (step is None or step.to == "*") and self._acts("data"):
            return None
        self._reading_content = True
        return self._reply("354 Go ahead")

    def _end_content(self, raw: bytes) -> None:
        message = InboxMessage(self._sender or "", tuple(self._recipients), raw)
        self._reset()
        if self._step is not None and self._step.act is _Act.DROP:
            self._hop._take(message)
        if (self._step is None or self._step.to == "*") and self._acts("dot"):
            return
        if not self._hop._requires_dkim:
            self._accept(message)
            return
        self._waiting = True

        def judged(is_signed: bool) -> None:
            if is_signed:
                self._accept(message)
            else:
                self._reply("550 5.7.26 This mail has no valid DKIM signature of its From domain")

        judging = Deferred.fromCoroutine(self._hop._is_signed(raw))
        judging.addCallback(judged).addErrback(lambda _: self.transport.abortConnection())

    def _accept(self, message: InboxMessage) -> None:
        self._hop._take(message)
        self._reply("250 2.0.0 Accepted")


def _unstuffed(content: bytes) -> bytes:
    """Return a content without the dots of RFC 5321 §4.5.2."""
    content = content.replace(b"\r\n.", b"\r\n")
    return content[1:] if content.startswith(b".") else content
