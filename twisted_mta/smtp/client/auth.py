"""One AUTH dialogue from the client's side (RFC 4954 §4): which mechanism, and what is said."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator

from attrs import frozen

from ...mail.reply import Reply
from ..sasl.client import (
    CLIENT_MECHANISMS,
    ClientMechanism,
    Credentials,
    Derivation,
    client_mechanism,
)
from ..sasl.exchange import Nonce, SASLError

LINE_LIMIT = 512
"""Octets of an AUTH command with its CR LF (RFC 5321 §4.5.3.1.4, RFC 4954 §4)."""

RESPONSE_LIMIT = 12_288
"""Octets of a challenge or response in base64 (RFC 4954 §4)."""

CANCEL = b"*\r\n"


@frozen
class AuthEnd:
    """The dialogue is over.

    Attributes:
        accepted: whether the server has accepted our credentials.
        reply: of the server, that it cannot say at present; None where it is not that.
        text: else what is wrong, without a word of what is secret.
        cancel: whether `CANCEL` has to be said before anything else.
    """

    accepted: bool = False
    reply: Reply | None = None
    text: str = ""
    cancel: bool = False


class ClientAuth:
    """Tries the mechanisms that a server offers, the strongest first.

    Every line that it returns is secret.

    Args:
        credentials: who we are.
        offered: the parameters of AUTH in the EHLO reply, None where it is not there.
        nonce: without it there is no SCRAM.
    """

    def __init__(
        self, credentials: Credentials, offered: str | None, *, nonce: Nonce | None = None
    ) -> None:
        names = (offered or "").upper().split()
        self._credentials = credentials
        self._offered = offered
        self._nonce = nonce
        self._names: Iterator[str] = (name for name in CLIENT_MECHANISMS if name in names)
        self._mechanism: ClientMechanism | None = None
        self._held: bytes | None = None  # the initial response, where it was too long for AUTH
        self._said: list[str] = []

    def begin(self) -> bytes | AuthEnd:
        """Return the AUTH command to say."""
        if self._offered is None:
            return AuthEnd(text="AUTH is not offered, and we have credentials to show")
        return self._next(f"AUTH is offered with no mechanism that we know: {self._offered}")

    def take(self, reply: Reply) -> bytes | Derivation | AuthEnd:
        """Return the line that answers a reply, or what came of it all.

        What a `Derivation` makes is to be given to `derived`.
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
            # RFC 5802 §5: a server that does not prove itself is not what we hold it for.
            return AuthEnd(text="AUTH was answered with yes before its end")
        if reply.code in (504, 534):  # RFC 4954 §4, §6: of the mechanism, not of the credentials
            return self._next(f"AUTH was refused: {reply}")
        if 400 <= reply.code < 500:
            return AuthEnd(reply=reply)
        return AuthEnd(text=f"our credentials were refused: {reply}")

    def derived(self, response: bytes) -> bytes | AuthEnd:
        """Return the line with a response that took long to be made."""
        try:
            return self._line(response)
        except SASLError as error:
            return _broken_off(error)

    def discreet(self, reply: Reply) -> Reply:
        """Return a reply as it may be shown: without a text that repeats what is secret."""
        secrets = (self._credentials.password, *self._said)
        if reply.code != 334 and any(each in line for line in reply.lines for each in secrets):
            return Reply.of(reply.code, reply.status, "(its text repeats what is secret)")
        return reply

    def _next(self, reason: str) -> bytes | AuthEnd:
        for name in self._names:
            try:
                mechanism = client_mechanism(name, self._credentials, self._nonce)
            except SASLError as error:
                return AuthEnd(text=f"our credentials cannot be used: {error}")
            if mechanism is not None:
                self._mechanism = mechanism
                return self._command(name, mechanism.initial())
        return AuthEnd(text=reason)

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
        except ValueError:  # what is not ASCII is no binascii.Error, which is one of these
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
            self._said.append(octets.decode("ascii"))
        return octets


def _broken_off(error: SASLError) -> AuthEnd:
    return AuthEnd(text=f"AUTH was broken off: {error}", cancel=True)
