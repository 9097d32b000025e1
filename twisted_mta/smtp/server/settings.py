"""What a session is told: who is at the other end, and what its listener demands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from ...mail.tls_facts import TLSFacts
from ..command import ParameterReader
from ..extension import Extension
from .dialect import SMTP, Dialect

if TYPE_CHECKING:
    from .auth import AuthSettings

COMMAND_LINE = 512
"""Octets of a command line with its CR LF (RFC 5321 §4.5.3.1.4); extensions add to it."""


AUTH_RESPONSE = 12_288
"""Octets of a response in base64, without its CR LF (RFC 4954 §4)."""

AUTH_LINE = AUTH_RESPONSE + 64
"""Octets of an AUTH command, whose initial response may be as long."""


@frozen
class Peer:
    """Who is at the other end: its address (None on a UNIX socket) and, if known, its name."""

    address: str | None = None
    port: int = 0
    name: str | None = None


@frozen(kw_only=True)
class SessionSettings:
    """What a listener demands of its sessions.

    Attributes:
        hostname: our name in the greeting and the reply to EHLO.
        dialect: what is spoken.
        extensions: what EHLO announces, in this order.
        require_tls: nothing but EHLO (LHLO), NOOP, STARTTLS and QUIT in clear (RFC 3207 §4).
        requires_tls_of: whether TLS is known to come from a peer: then it is no mail in clear
            that comes from it, whatever came of STARTTLS on the way (RFC 3207 §6).
        tls_suffices: whether the facts of a handshake are good enough (RFC 3207 §4.1).
        bare_newlines: what becomes of a CR or LF outside CR LF and of NUL in a message. Binary
            content (RFC 3030 §3) has no lines: neither this nor the next is asked of it.
        long_lines: what becomes of lines of more than 998 octets.
        max_message_size: octets of content.
        max_recipients: recipients of one transaction.
        max_errors: replies of 5yz after which the session is ended.
        auth: what AUTH there is; None: none. Its extension has to be among ``extensions``.
    """

    hostname: str
    dialect: Dialect = SMTP
    extensions: tuple[Extension, ...] = ()
    require_tls: bool = False
    requires_tls_of: Callable[[Peer], bool] = field(default=lambda peer: False)
    tls_suffices: Callable[[TLSFacts], bool] = field(default=lambda facts: True)
    bare_newlines: Literal["reject", "normalize"] = "reject"
    long_lines: Literal["accept", "reject"] = "accept"
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
