"""The settings of a server session: all that its listener demands and offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from attrs import field, frozen

from ...mail.tls_facts import TLSFacts
from ..command import ParameterReader
from ..extension import Extension
from ..extension.views import SessionView
from ..peer import Peer
from ..sasl.exchange import Nonce
from ..sasl.server import NewMechanism
from .dialect import SMTP, Dialect

COMMAND_LINE = 512
"""Octets of a command line with its CR LF (RFC 5321 §4.5.3.1.4); extensions add to it."""

AUTH_RESPONSE = 12_288
"""Octets of a response in base64, without its CR LF (RFC 4954 §4)."""

AUTH_LINE = AUTH_RESPONSE + 64
"""Octets of an AUTH command, whose initial response may be as long as any other."""


@frozen(kw_only=True)
class AuthSettings:
    """AUTH as a listener offers it (RFC 4954).

    Attributes:
        mechanisms: those that can be judged here, by name, in the order in which EHLO announces
            them.
        nonce: returns a new nonce.
        in_clear: whether AUTH is offered without TLS too.
        required: whether MAIL is refused before AUTH (RFC 6409 §4.3).
        max_failures: failed exchanges of one session, after which the session is ended.
    """

    mechanisms: Mapping[str, NewMechanism]
    nonce: Nonce
    in_clear: bool = False
    required: bool = False
    max_failures: int = 5


@frozen(kw_only=True)
class SessionSettings:
    """The settings of the sessions of a listener.

    Attributes:
        hostname: our name in the opening and in the reply to EHLO.
        dialect: SMTP or LMTP.
        extensions: in the order in which EHLO announces them.
        require_tls: whether all commands but EHLO (LHLO), NOOP, STARTTLS and QUIT are refused in
            clear (RFC 3207 §4).
        requires_tls_of: whether a peer is known to use TLS: then MAIL in clear is refused, and
            taken for a sign of an attack that hides STARTTLS (RFC 3207 §6).
        tls_suffices: whether what a handshake achieved is good enough (RFC 3207 §4.1).
        trusts: whether a client may relay through us, as far as is known at the time of the call.
            Devices among such clients cannot change, so commands that are malformed in one of the
            usual ways are obeyed: see `Session.lenient`.
        bare_newlines: what to do with a message that has a CR or LF outside CR LF, or a NUL; None:
            normalize it if the client is trusted, else reject it. Binary content (RFC 3030 §3) has
            no lines, so this and `long_lines` do not apply to it.
        long_lines: what to do with a message that has a line of more than 998 octets
            (RFC 5321 §4.5.3.1.6).
        decides_on_client: whether the delivery has a say on clients before they are greeted.
        decides_on_helo: whether it has a say on the name in EHLO, HELO and LHLO.
        max_message_size: octets of content.
        max_recipients: accepted RCPT commands of one transaction.
        max_errors: replies of 5yz since the last accepted message, after which the session is
            ended.
        auth: None where AUTH is not offered. Its extension has to be among ``extensions``.
    """

    hostname: str
    dialect: Dialect = SMTP
    extensions: tuple[Extension, ...] = ()
    require_tls: bool = False
    requires_tls_of: Callable[[Peer], bool] = field(default=lambda peer: False)
    tls_suffices: Callable[[TLSFacts], bool] = field(default=lambda facts: True)
    trusts: Callable[[SessionView], bool] = field(default=lambda session: False)
    bare_newlines: Literal["reject", "normalize"] | None = None
    long_lines: Literal["accept", "reject"] = "accept"
    decides_on_client: bool = False
    decides_on_helo: bool = False
    max_message_size: int = 50 * 1024 * 1024
    max_recipients: int = 1000
    max_errors: int = 20
    auth: AuthSettings | None = None

    # Gathered once for a listener, not once for a session.
    mail_readers: Mapping[str, ParameterReader] = field(init=False)
    rcpt_readers: Mapping[str, ParameterReader] = field(init=False)
    line_octets: Mapping[str, int] = field(init=False)
    commands: Mapping[str, Extension] = field(init=False)
    chunking: bool = field(init=False)
    longest_line: int = field(init=False)

    @mail_readers.default
    def _mail_readers(self) -> Mapping[str, ParameterReader]:
        return {key: read for each in self.extensions for key, read in each.mail.items()}

    @rcpt_readers.default
    def _rcpt_readers(self) -> Mapping[str, ParameterReader]:
        return {key: read for each in self.extensions for key, read in each.rcpt.items()}

    @commands.default
    def _commands(self) -> Mapping[str, Extension]:
        return {verb: each for each in self.extensions for verb in each.commands}

    @chunking.default
    def _chunking(self) -> bool:
        return any(each.keyword == "CHUNKING" for each in self.extensions)

    @line_octets.default
    def _line_octets(self) -> Mapping[str, int]:
        return {
            "MAIL": COMMAND_LINE + sum(each.mail_octets for each in self.extensions),
            "RCPT": COMMAND_LINE + sum(each.rcpt_octets for each in self.extensions),
            "AUTH": COMMAND_LINE if self.auth is None else AUTH_LINE,
        }

    @longest_line.default
    def _longest_line(self) -> int:
        return max(self.line_octets.values())
