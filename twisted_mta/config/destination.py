"""A destination: settings for some domains or next hops; ``[[destination]]``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Literal

import attrs
from attrs import frozen

from ..mail.address import AddressError, domain_name
from ..mail.next_hop import Host, is_delivery_name
from ..mail.printable import printable
from ..mail.tls_policy import TLSSetting
from . import readers as read
from .amounts import Rate, duration_text, period, rate
from .setting import ConfigError, about, setting, settings, shown
from .source_pool import pool_name
from .token_account import TokenAccount, TokenCommand, TokenFile, TokenGrant, TokenSource

TLS = read.choice("auto", "none", "may", "encrypt", "verify", "dane", "mta-sts")
"""Reads the TLS level of a next hop."""

MEMORY = read.choice("alarm", "require")
"""Reads the action if a host that has offered TLS before offers none."""

EIGHT_BIT_HEADERS = read.choice("return", "send")
"""Reads the action for header fields with octets over 127 if a next hop lacks 8BITMIME."""


def source_addresses(value: str | Iterable[str]) -> tuple[str, ...]:
    """Read an address to connect from, or a list with at most one of each family."""
    if isinstance(value, str):
        value = [value]
    addresses: tuple[str, ...] = read.several(read.address, "addresses")(value)
    families = [ip_address(each).version for each in addresses]
    for family in (4, 6):
        if families.count(family) > 1:
            raise ValueError(f"two addresses of IPv{family}; expected at most one of each family")
    return addresses


def command(value: Any) -> tuple[str, ...]:
    """Read a command: a program and its arguments, quoted as in a shell, which is not run."""
    if isinstance(value, tuple):
        return value  # read before
    written: str = read.text("a command")(value)
    try:
        words = tuple(shlex.split(written))
    except ValueError as error:
        problem = str(error).lower()  # "No closing quotation"
        raise ValueError(f"{problem}; expected a program and its arguments") from None
    if not words or not words[0] or "\0" in written:
        raise ValueError("expected a program and its arguments")
    return words


SECRETS = ("password_file", "token_file", "token_command", "oauth_token_url")
"""Settings of which each says where the secret of an account is."""

GRANT = (
    "oauth_client_id",
    "oauth_client_secret_file",
    "oauth_refresh_token_file",
    "oauth_scope",
    "oauth_authorities",
)
"""The other settings of a token server."""

_EXAMPLES = "expected example.net, .example.net, *, relay.example.net:587 or deliver:name"
_DELIVER = "deliver:"
_PORT = re.compile(r"(.+):([0-9]{1,5})")


def pattern(value: Any) -> str:
    """Read the pattern of a destination; return its canonical form.

    It is a recipient's domain (``example.net``, ``.example.net``, ``*``), or a next hop: ``host``,
    ``host:port``, the path of a UNIX socket, or ``deliver:name``.
    """
    written: str = read.text("a domain, .domain, * or a next hop")(value).strip()
    if written == "*" or written.startswith("/"):
        return written
    if written.startswith(_DELIVER) and is_delivery_name(written.removeprefix(_DELIVER)):
        return written
    dot, name = (".", written[1:]) if written.startswith(".") else ("", written)
    with_port = None if dot else _PORT.fullmatch(name)
    try:
        if with_port and not name.endswith("]"):
            port = read.number(1, 65535)(with_port[2])
            return str(Host(_host_name(with_port[1]), port))
        canonical = _domain(name)
        if dot and canonical.startswith("["):
            raise ValueError("an address literal has no subdomains")
    except ValueError as error:
        raise ValueError(f"{error}; {_EXAMPLES}") from None
    return dot + canonical


def _pattern_or_none(value: Any) -> str:
    return "" if value == "" else pattern(value)


def dotted_name(value: Any) -> str:
    """Read a domain or host, or ``.suffix`` for all below one; return its canonical form."""
    written: str = read.text("a name such as example.net, or .example.net")(value).strip()
    dot, name = (".", written[1:]) if written.startswith(".") else ("", written)
    return dot + str(read.dns_name(name))


def is_below(pattern: str, name: str) -> bool:
    """Whether a domain or host is that of a pattern (`dotted_name`), or below its ``.suffix``."""
    return name == pattern or (pattern.startswith(".") and name.endswith(pattern))


def _domain(text: str) -> str:
    """Return a canonical domain or address literal; the tag ``IPv6:`` may be missing."""
    try:
        return domain_name(text)
    except AddressError:
        if not text.startswith("["):
            raise
        return domain_name(f"[IPv6:{text[1:]}")


def _host_name(text: str) -> str:
    canonical = _domain(text)
    return canonical[1:-1].removeprefix("IPv6:") if canonical.startswith("[") else canonical


VERIFYING: tuple[TLSSetting, ...] = ("auto", "mta-sts", "verify")
"""The levels of TLS that may verify certificates by authorities."""


@frozen(kw_only=True, field_transformer=settings)
class Destination:
    """Settings for some domains or next hops; a ``[[destination]]`` of the file.

    None stands for the setting of all others, which `destination_table.complete` fills in.

    Raises:
        ConfigError: a value is refused, or contradicts another.
    """

    domain: str = setting(
        _pattern_or_none,
        "a recipient's domain (example.net, .example.net, *), or a next hop that a route names"
        " (relay.example.net, relay.example.net:587, deliver:name), which comes first",
        default="",
        default_text="required, or exchanger",
    )
    exchanger: str | None = setting(
        read.optional(dotted_name),
        "instead of domain: a mail exchanger (mx.example.net), or all below a name (.example.net);"
        " all domains whose most preferred exchanger it is share one set of limits. A table with"
        " domain = example.net or .example.net comes first",
        default=None,
    )
    connections: int | None = setting(
        read.optional(read.count),
        "most connections that carry mail at a time",
        default=None,
        default_text="connections_per_hop of [queue]",
    )
    # RFC 5321 §4.5.3.1.8: a server takes 100 at least.
    recipients_per_message: int = setting(
        read.count, "most recipients of one transaction", default=100
    )
    messages_per_connection: int = setting(
        read.count, "transactions after which a connection is closed", default=100
    )
    rate: Rate | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(rate),
        metadata=about('most messages in a period, such as "100/min"', default_text="none"),
    )
    tls: TLSSetting | None = setting(  # noqa: RUF009
        read.optional(TLS),
        "TLS to it: the best that it publishes (auto), never, if offered, required, required with a"
        " certificate that proves the next hop's name, or with the policy that it must publish by"
        " DANE or MTA-STS",
        default=None,
        default_text="tls of [delivery]",
    )
    tls_memory: Literal["alarm", "require"] | None = setting(
        read.optional(MEMORY),
        "action if a host had TLS before and has none now (RFC 3207 §6): deliver in clear with an"
        " alarm, or defer",
        default=None,
        default_text="tls_memory of [delivery]",
    )
    eight_bit_headers: Literal["return", "send"] | None = setting(
        read.optional(EIGHT_BIT_HEADERS),
        "mail with octets over 127 in its header, where 8BITMIME is not offered: return it, or send"
        " the header as it came",
        default=None,
        default_text="eight_bit_headers of [delivery]",
    )
    authorities: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with the authorities that certificates there verify against, where they must"
            " be verified",
            default_text="authorities of [delivery]",
        ),
    )
    client_certificate: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about("PEM file with our client certificate there"),
    )
    client_key: str | None = attrs.field(
        default=attrs.Factory(lambda self: self.client_certificate, takes_self=True),
        converter=attrs.converters.optional(read.file),
        metadata=about("PEM file with the private key", default_text="the file of the certificate"),
    )
    source_address: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(source_addresses),
        metadata=about(
            "address to connect from; a list may have one of each family",
            default_text="source_address of [delivery]",
        ),
    )
    source_pool: str | None = setting(
        read.optional(pool_name),
        "name of the [[source_pool]] whose addresses mail leaves from",
        default=None,
        default_text="source_pool of [delivery]",
    )
    username: str | None = setting(
        read.optional(read.text("the name of an account")),
        "account for AUTH there; never sent in clear, so TLS is required",
        default=None,
    )
    password_file: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about("file whose first line is the password"),
    )
    token_file: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "instead of a password: file whose first line is an OAuth access token, which another"
            " program renews"
        ),
    )
    token_command: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(command),
        metadata=about("likewise: command that prints an access token"),
    )
    oauth_token_url: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.https_url),
        metadata=about("likewise: server that grants access tokens (RFC 6749)"),
    )
    oauth_client_id: str | None = setting(
        read.optional(read.text("a client id")), "our client id there", default=None
    )
    oauth_client_secret_file: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about("file whose first line is the secret of our client there"),
    )
    oauth_refresh_token_file: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "file whose first line is a refresh token",
            default_text="none: the grant is by client credentials",
        ),
    )
    oauth_scope: str | None = setting(
        read.optional(read.text("scopes")), "what the tokens are for", default=None
    )
    oauth_authorities: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with the authorities that the token server's certificate verifies against",
            default_text="the system's",
        ),
    )
    retry_minimum: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(period),
        metadata=about("wait before the second attempt", default_text="retry_minimum of [queue]"),
    )
    retry_maximum: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(period),
        metadata=about(
            "longest wait between two attempts", default_text="retry_maximum of [queue]"
        ),
    )
    lifetime: float | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(period),
        metadata=about(
            "age at which undelivered mail is returned", default_text="lifetime of [queue]"
        ),
    )

    @property
    def name(self) -> str:
        """The pattern that it is for, which no two destinations share."""
        return self.domain if self.exchanger is None else f"exchanger {self.exchanger}"

    def without_account(self) -> Destination:
        """Return the same settings without those of an account."""
        nothing: dict[str, Any] = dict.fromkeys(("username", *SECRETS, *GRANT))
        return attrs.evolve(self, **nothing)

    def __attrs_post_init__(self) -> None:
        if bool(self.domain) is (self.exchanger is not None):
            found = "found both" if self.domain else "found neither"
            raise ConfigError(
                f"[[destination]] domain = {shown(self.domain)},"
                f" exchanger = {shown(self.exchanger)}: {found}; expected one of them"
            )
        for name, other in (
            ("password_file", "username"),
            ("token_file", "username"),
            ("token_command", "username"),
            ("oauth_token_url", "username"),
            ("oauth_token_url", "oauth_client_id"),
            ("client_key", "client_certificate"),
        ):
            value = getattr(self, name)
            if value is not None and getattr(self, other) is None:
                raise self._error(name, f"{other} is missing; expected both or neither")
        self._check_account()
        if self.username is not None and not self.username.isprintable():
            raise self._error(
                "username", "unprintable characters in it; expected the name of an account"
            )
        if self.source_pool is not None and self.source_address is not None:
            raise self._error("source_pool", "found source_address too; expected one of them")
        if self.tls == "none":
            for name in ("username", "client_certificate"):
                if getattr(self, name) is not None:
                    raise self._error(name, 'not with tls = "none"; expected tls = "encrypt"')
        if self.authorities is not None and self.tls not in (None, *VERIFYING):
            raise self._error("authorities", 'nothing is verified; expected tls = "verify"')
        low, high = self.retry_minimum, self.retry_maximum
        if low is not None and high is not None and low > high:
            raise self._error(
                "retry_minimum",
                f"longer than retry_maximum = {shown(duration_text(high))};"
                " expected at most as long",
            )

    def _check_account(self) -> None:
        given = [each for each in SECRETS if getattr(self, each) is not None]
        if self.username is not None and not given:
            raise self._error(
                "username", f"password_file is missing; expected one of {', '.join(SECRETS)}"
            )
        if len(given) > 1:
            raise self._error(given[1], f"{given[0]} is there too; expected one of them")
        if self.oauth_token_url is None:
            for name in GRANT:
                if getattr(self, name) is not None:
                    raise self._error(name, "oauth_token_url is missing; expected both or neither")
        elif self.oauth_client_secret_file is None and self.oauth_refresh_token_file is None:
            raise self._error(
                "oauth_token_url",
                "found neither oauth_client_secret_file nor oauth_refresh_token_file; expected one"
                " or both",
            )

    def _error(self, name: str, problem: str) -> ConfigError:
        value = getattr(self, name)
        written = duration_text(value) if isinstance(value, float) else value
        return ConfigError(
            f"[[destination]] {printable(self.name)}, {name} = {shown(written)}: {problem}"
        )


def token_account(destination: Destination) -> TokenAccount | None:
    """Return the account of a destination, where it logs in with tokens."""
    source: TokenSource
    if destination.username is None:
        return None
    if destination.token_file is not None:
        source = TokenFile(destination.token_file)
    elif destination.token_command is not None:
        source = TokenCommand(destination.token_command)
    elif destination.oauth_token_url is not None and destination.oauth_client_id is not None:
        source = TokenGrant(
            destination.oauth_token_url,
            destination.oauth_client_id,
            destination.oauth_client_secret_file,
            destination.oauth_refresh_token_file,
            destination.oauth_scope or "",
            destination.oauth_authorities,
        )
    else:
        return None
    return TokenAccount(destination.username, source)
