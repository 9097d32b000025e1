"""AUTH, the server's side (RFC 4954): one exchange after the other in a session, pure.

A mechanism speaks octets (`sasl_server`); here is what travels: base64, one line each, `=` for an
initial response that is empty, `*` for giving up. The session reads the lines and says the replies;
the shell judges the evidence.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from ...mail.reply import Reply
from ..command import CommandError
from ..sasl.client import Nonce, SASLError
from ..sasl.server import Circumstances, NewMechanism, Said, ScramSalt, ServerMechanism
from . import replies
from .settings import AUTH_RESPONSE
from .step import Authenticate

if TYPE_CHECKING:
    from .session import Session


@frozen
class Challenge:
    """What the client is to answer."""

    octets: bytes

    @property
    def wire(self) -> bytes:
        """The line to send."""
        return b"334 " + b64encode(self.octets) + b"\r\n"


@frozen
class Granted:
    """Who the client is, now that the evidence was found to be good."""

    identity: str


Verdict = Granted | ScramSalt | Reply
"""What evidence came to: who it is, the salt that was asked for, or why not."""


Next = Challenge | Authenticate | Reply
"""What is to be said or judged next; a reply ends the exchange."""


@frozen(kw_only=True)
class AuthSettings:
    """What a listener offers.

    Attributes:
        mechanisms: those that can be judged, by name, in the order in which they are announced.
        in_clear: whether AUTH is offered in clear too.
        required: whether nothing is sent without.
        max_failures: of one session, after which it is ended.
        nonce: makes what is used once.
    """

    mechanisms: Mapping[str, NewMechanism]
    nonce: Nonce
    in_clear: bool = False
    required: bool = False
    max_failures: int = 5


class ServerAuth:
    """AUTH in one session.

    Attributes:
        failures: exchanges that came to nothing because of what the client said.
        mechanism: the name of the one that was last begun; empty before.
        binding: returns the channel binding of that name; None where there is no such.

    Args:
        session: whose.
    """

    def __init__(self, session: Session) -> None:
        self.failures = 0
        self.mechanism = ""
        self.binding: Callable[[str], bytes | None] | None = None
        self._session = session
        self._exchange: ServerMechanism | None = None
        self._pending: Granted | Reply | None = None  # said when the last word was answered

    @property
    def required(self) -> bool:
        """Whether nothing is sent before AUTH, and there was none."""
        settings = self._session.settings.auth
        return settings is not None and settings.required and self._session.identity is None

    @property
    def exhausted(self) -> bool:
        """Whether the client has failed often enough."""
        settings = self._session.settings.auth
        return settings is not None and self.failures >= settings.max_failures

    def offered(self) -> Sequence[str]:
        """Return the names of the mechanisms that may be used here and now."""
        session = self._session
        settings, tls = session.settings.auth, session.tls
        if settings is None or (tls is None and not settings.in_clear):
            return ()
        usable = []
        for name in settings.mechanisms:
            if name == "EXTERNAL" and (tls is None or not tls.peer_verified):
                continue
            # What a proxy has bound is its own channel, and not the client's.
            if name.endswith("-PLUS") and (self.binding is None or session.proxy is not None):
                continue
            usable.append(name)
        return usable

    def begin(self, argument: str) -> Next:
        """Obey AUTH.

        Raises:
            CommandError: it cannot be obeyed.
        """
        session = self._session
        settings = session.settings.auth
        if settings is None:
            raise CommandError(replies.AUTH_NOT_OFFERED)
        if session.identity is not None:
            raise CommandError(replies.AUTHENTICATED_ALREADY)  # RFC 4954 §4
        if session.greeting == "HELO":
            raise CommandError(replies.MISPLACED["AUTH"])
        words = argument.split()
        if not 1 <= len(words) <= 2:
            raise CommandError(replies.AUTH_SYNTAX)
        name = words[0].upper()
        if name not in settings.mechanisms:
            raise CommandError(replies.NO_SUCH_MECHANISM)
        if session.tls is None and not settings.in_clear:
            raise CommandError(replies.ENCRYPT_FIRST)
        offered = self.offered()
        if name not in offered:
            raise CommandError(replies.NO_SUCH_MECHANISM)
        initial = None
        if len(words) == 2:
            initial = b"" if words[1] == "=" else _decoded(words[1].encode())  # RFC 4954 §4
        self.mechanism = name
        exchange = settings.mechanisms[name](
            Circumstances(
                hostname=session.settings.hostname,
                nonce=settings.nonce,
                tls=session.tls,
                binding=self.binding or (lambda name: None),
                plus=any(each.endswith("-PLUS") for each in offered),
            )
        )
        self._exchange, self._pending = exchange, None
        return self._say(lambda: exchange.begin(initial))

    def respond(self, line: bytes) -> Next:
        """Take the answer to a challenge, without its CR LF."""
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
        return self._say(lambda: exchange.respond(response))

    def answer(self, verdict: Verdict) -> Next:
        """Take what was judged of the evidence."""
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

    def _say(self, speak: Callable[[], Said]) -> Next:
        try:
            said = speak()
        except SASLError:
            return self._end(replies.NOT_AUTHENTICATED)
        return Challenge(said) if isinstance(said, bytes) else Authenticate(said)

    def _conclude(self, verdict: Granted | Reply) -> Reply:
        if isinstance(verdict, Reply):
            return self._end(verdict)
        self.cancel()
        self._session.identity = verdict.identity
        return replies.AUTHENTICATED

    def _end(self, reply: Reply) -> Reply:
        self.cancel()
        if reply.code == replies.NOT_AUTHENTICATED.code:
            self.failures += 1
        return reply


def _decoded(line: bytes) -> bytes:
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise CommandError(replies.NOT_BASE64) from None
