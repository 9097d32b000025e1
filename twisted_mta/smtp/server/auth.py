"""AUTH in a server session (RFC 4954): one exchange after the other, pure.

A mechanism (`sasl.server`) speaks octets. This is how they travel: base64, one line each, ``=`` for
an initial response of no octets, ``*`` to cancel. The session reads the lines and sends the
replies; the shell judges the evidence.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Callable, Sequence
from weakref import proxy

from attrs import frozen

from ...mail.reply import Reply
from ..command import CommandError
from ..extension.views import SessionView
from ..sasl.evidence import ScramSalt
from ..sasl.exchange import SASLError, SASLUnavailable
from ..sasl.server import ChallengeOrEvidence, Circumstances, ServerMechanism
from . import replies
from .settings import AUTH_RESPONSE, SessionSettings
from .step import Authenticate


@frozen
class Challenge:
    """A challenge that the client is to answer."""

    octets: bytes

    @property
    def wire(self) -> bytes:
        """The line to send."""
        return b"334 " + b64encode(self.octets) + b"\r\n"


@frozen
class Granted:
    """The identity of a client whose evidence is good."""

    identity: str


Verdict = Granted | ScramSalt | Reply
"""The result of judging evidence: the identity, the salt that was asked for, or the refusal."""


Next = Challenge | Authenticate | Granted | Reply
"""The next act of the session: a challenge, a judgment, or the end with success or refusal."""


class ServerAuth:
    """The AUTH exchanges of one session.

    Attributes:
        failures: exchanges that failed because of the client's credentials or responses.
        mechanism: the name of the mechanism that was begun last; empty before.
        binding: returns the channel binding of a name, None where there is none (RFC 5929).
    """

    def __init__(self, settings: SessionSettings, session: SessionView) -> None:
        self.failures = 0
        self.mechanism = ""
        self.binding: Callable[[str], bytes | None] | None = None
        self._hostname = settings.hostname
        self._settings = settings.auth
        # Not a cycle: a session that is over does not wait for the garbage collector.
        self._session: SessionView = proxy(session)
        self._exchange: ServerMechanism | None = None
        self._pending: Granted | Reply | None = None  # until the last challenge is answered

    @property
    def required(self) -> bool:
        """Whether MAIL is refused because the client has not authenticated."""
        settings = self._settings
        return settings is not None and settings.required and self._session.identity is None

    @property
    def exhausted(self) -> bool:
        """Whether the client has failed as often as a session may."""
        settings = self._settings
        return settings is not None and self.failures >= settings.max_failures

    def offered(self) -> Sequence[str]:
        """Return the names of the mechanisms that may be used here and now."""
        session, settings = self._session, self._settings
        tls = session.tls
        if settings is None or (tls is None and not settings.in_clear):
            return ()
        usable = []
        for name in settings.mechanisms:
            if name == "EXTERNAL" and (tls is None or not tls.peer_verified):
                continue
            # A proxy binds the channel between itself and us, and not the client's.
            if name.endswith("-PLUS") and (self.binding is None or session.proxy is not None):
                continue
            usable.append(name)
        return usable

    def begin(self, argument: str) -> Next:
        """Begin an exchange; ``argument`` is that of AUTH.

        Raises:
            CommandError: AUTH is refused, and no exchange has begun.
        """
        session, settings = self._session, self._settings
        if settings is None:
            raise CommandError(replies.AUTH_NOT_OFFERED)
        if session.identity is not None:
            raise CommandError(replies.AUTHENTICATED_ALREADY)  # RFC 4954 §4
        words = argument.split()
        if not 1 <= len(words) <= 2:
            raise CommandError(replies.AUTH_SYNTAX)
        name = words[0].upper()
        if name not in settings.mechanisms:
            raise CommandError(replies.NO_SUCH_MECHANISM)
        if session.tls is None and not settings.in_clear:
            raise CommandError(replies.ENCRYPT_FIRST)  # RFC 3207 §6: no password in clear
        offered = self.offered()
        if name not in offered:
            raise CommandError(replies.NO_SUCH_MECHANISM)
        initial = None
        if len(words) == 2:
            initial = b"" if words[1] == "=" else _decoded(words[1].encode())  # RFC 4954 §4
        self.mechanism = name
        circumstances = Circumstances(
            hostname=self._hostname,
            nonce=settings.nonce,
            tls=session.tls,
            binding=self.binding or (lambda name: None),
            plus=any(each.endswith("-PLUS") for each in offered),
        )

        def first_step() -> ChallengeOrEvidence:
            exchange = settings.mechanisms[name](circumstances)
            self._exchange, self._pending = exchange, None
            return exchange.begin(initial)

        return self._after(first_step)

    def respond(self, line: bytes) -> Next:
        """Take the client's response to a challenge, without its CR LF."""
        exchange, pending = self._exchange, self._pending
        assert exchange is not None
        if line == b"*" and (not isinstance(pending, Reply)):
            return self._end(replies.CANCELLED)  # RFC 4954 §4
        if len(line) > AUTH_RESPONSE:
            return self._end(replies.EXCHANGE_TOO_LONG)
        if pending is not None:
            if line not in (b"", b"=") and isinstance(pending, Granted):
                return self._end(replies.NOT_AUTHENTICATED)
            return self._conclude(pending)
        try:
            response = _decoded(line)
        except CommandError as error:
            return self._end(error.reply)
        return self._after(lambda: exchange.respond(response))

    def answer(self, verdict: Verdict) -> Next:
        """Take the verdict on the evidence."""
        exchange = self._exchange
        assert exchange is not None
        if isinstance(verdict, ScramSalt):
            return Challenge(exchange.salted(verdict))
        granted = isinstance(verdict, Granted)
        judged = granted or verdict == replies.NOT_AUTHENTICATED
        last = exchange.last_word(granted) if judged else None
        if last is None:
            return self._conclude(verdict)
        self._pending = verdict
        return Challenge(last)

    def cancel(self) -> None:
        """Forget the exchange that is under way, if there is one."""
        self._exchange = self._pending = None

    def _after(self, exchange_step: Callable[[], ChallengeOrEvidence]) -> Next:
        try:
            result = exchange_step()
        except SASLUnavailable:
            return self._end(replies.AUTH_UNAVAILABLE)
        except SASLError:
            return self._end(replies.NOT_AUTHENTICATED)
        return Challenge(result) if isinstance(result, bytes) else Authenticate(result)

    def _conclude(self, verdict: Granted | Reply) -> Granted | Reply:
        if isinstance(verdict, Reply):
            return self._end(verdict)
        self.cancel()
        return verdict

    def _end(self, reply: Reply) -> Reply:
        self.cancel()
        if reply.code == replies.NOT_AUTHENTICATED.code:
            self.failures += 1
        return reply


def _decoded(line: bytes) -> bytes:
    if len(line) % 4:  # ``AAAA=`` passes in strict mode too
        raise CommandError(replies.NOT_BASE64)
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise CommandError(replies.NOT_BASE64) from None
