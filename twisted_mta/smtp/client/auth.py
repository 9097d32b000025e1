"""AUTH in a client session (RFC 4954 §4): the choice of a mechanism, and its exchange."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator

from attrs import frozen

from ...mail.reply import Reply
from ..sasl.client import (
    CLIENT_MECHANISMS,
    TOKEN_MECHANISMS,
    ClientMechanism,
    Credentials,
    Derivation,
    TokenCredentials,
    client_mechanism,
)
from ..sasl.exchange import Nonce, SASLError

LINE_LIMIT = 512
"""Octets of an AUTH command with its CR LF (RFC 5321 §4.5.3.1.4, RFC 4954 §4)."""

RESPONSE_LIMIT = 12_288
"""Octets of a challenge or response in base64 (RFC 4954 §4)."""

CANCEL = b"*\r\n"
"""The line that cancels an exchange (RFC 4954 §4)."""


@frozen
class AuthEnd:
    """The end of AUTH.

    Attributes:
        accepted: whether the server has accepted our credentials.
        reply: the server's refusal, without secrets; None: AUTH failed without one.
        text: then why, without secrets.
        cancel: whether `CANCEL` has to be sent before any other command.
    """

    accepted: bool = False
    reply: Reply | None = None
    text: str = ""
    cancel: bool = False


class ClientAuth:
    """The AUTH exchanges of one session: the mechanisms in common, the strongest first.

    Every line that it returns is secret.

    Args:
        credentials: ours at the server.
        offered: the parameters of AUTH in the EHLO reply; None where AUTH is not announced.
        nonce: returns a new nonce; None rules out SCRAM.
    """

    def __init__(
        self,
        credentials: Credentials | TokenCredentials,
        offered: str | None,
        *,
        nonce: Nonce | None = None,
    ) -> None:
        names = (offered or "").upper().split()
        self._credentials = credentials
        self._offered = offered
        self._nonce = nonce
        with_token = isinstance(credentials, TokenCredentials)
        ours = TOKEN_MECHANISMS if with_token else CLIENT_MECHANISMS
        self._names: Iterator[str] = (name for name in ours if name in names)
        self._mechanism: ClientMechanism | None = None
        self._held: bytes | None = None  # the initial response, if too long for the AUTH line
        self._sent: list[str] = []

    def begin(self) -> bytes | AuthEnd:
        """Return the AUTH command."""
        if self._offered is None:
            return AuthEnd(text="AUTH is not offered, and there are credentials for it")
        text = f"AUTH is offered with no mechanism that we can use: {self._offered}"
        return self._next(AuthEnd(text=text))

    def take(self, reply: Reply) -> bytes | Derivation | AuthEnd:
        """Return the line that answers a reply, or the end of AUTH.

        The response of a `Derivation` is for `derived`.
        """
        assert self._mechanism is not None
        reply = self.discreet(reply)
        if reply.code == 334:
            try:
                return self._answer(reply, self._mechanism)
            except SASLError as error:
                return _broken_off(error)
        if reply.code == 235:
            if self._held is None and self._mechanism.complete:
                return AuthEnd(accepted=True)
            # RFC 5802 §5: a server that has not proved itself may be an impostor.
            return AuthEnd(text="AUTH succeeded before the exchange was complete")
        if reply.code in (504, 534):  # RFC 4954 §4, §6: of the mechanism, not of the credentials
            return self._next(AuthEnd(reply=reply))
        if reply.code >= 400:
            return AuthEnd(reply=reply)
        return AuthEnd(text=f"not a reply to AUTH: {reply}")

    def derived(self, response: bytes) -> bytes | AuthEnd:
        """Return the line with the response of a `Derivation`."""
        try:
            return self._line(response)
        except SASLError as error:
            return _broken_off(error)

    def discreet(self, reply: Reply) -> Reply:
        """Return a reply that may be logged: without its text if that repeats a secret."""
        secrets = (self._credentials.secret, *self._sent)
        if reply.code != 334 and any(each in line for line in reply.lines for each in secrets):
            return Reply.of(reply.code, reply.status, "(text left out: it repeats a secret)")
        return reply

    def _next(self, otherwise: AuthEnd) -> bytes | AuthEnd:
        for name in self._names:
            try:
                mechanism = client_mechanism(name, self._credentials, self._nonce)
            except SASLError as error:
                return AuthEnd(text=f"our credentials cannot be used: {error}")
            if mechanism is not None:
                self._mechanism = mechanism
                return self._command(name, mechanism.initial())
        return otherwise

    def _command(self, name: str, initial: bytes | None) -> bytes:
        self._held = None
        if initial is not None:
            # RFC 4954 §4: one without any octets would be "="; no mechanism here has that.
            line = b"AUTH %s %s\r\n" % (name.encode(), self._coded(initial))
            if len(line) <= LINE_LIMIT:
                return line
            self._held = initial
        return b"AUTH %s\r\n" % name.encode()

    def _answer(self, challenge: Reply, mechanism: ClientMechanism) -> bytes | Derivation:
        if len(challenge.lines) != 1:
            raise SASLError("not a challenge")
        try:
            octets = b64decode(challenge.lines[0].strip(" "), validate=True)
        except ValueError:  # of which binascii.Error is one; text outside ASCII raises another
            raise SASLError("the challenge is not base64") from None
        held, self._held = self._held, None
        response = mechanism.respond(octets) if held is None else held
        return response if isinstance(response, Derivation) else self._line(response)

    def _line(self, response: bytes) -> bytes:
        line = self._coded(response) + b"\r\n"
        if len(line) > RESPONSE_LIMIT:
            raise SASLError("the response would be too long")
        return line

    def _coded(self, response: bytes) -> bytes:
        octets = b64encode(response)
        if octets:
            self._sent.append(octets.decode("ascii"))
        return octets


def _broken_off(error: SASLError) -> AuthEnd:
    return AuthEnd(text=f"AUTH was broken off: {error}", cancel=True)
