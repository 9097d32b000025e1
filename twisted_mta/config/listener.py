"""A listener: an endpoint where mail arrives, with its rules and limits; ``[[listener]]``."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import attrs
from attrs import frozen

from ..smtp.sasl.server import MECHANISMS
from . import readers as read
from .amounts import duration, period, size
from .certificates import RelayCertificate, SNICertificate, ciphers, relay_certificates, sni
from .endpoint import Endpoint, endpoint
from .setting import ConfigError, about, setting, settings, shown


def _mechanism(value: Any) -> str:
    name = str(read.text(f"one of {', '.join(MECHANISMS)}")(value)).upper()
    if name not in MECHANISMS:
        raise ValueError(f"expected {', '.join(MECHANISMS)}")
    return name


def _mechanisms(value: Iterable[str]) -> tuple[str, ...]:
    names: tuple[str, ...] = read.several(_mechanism, "mechanisms")(value)
    if not names and isinstance(value, list):
        raise ValueError('expected at least one mechanism, or auth = "off"')
    return names


# Settings without effect where there is no TLS.
_NEED_TLS = (
    *("implicit_tls", "require_tls", "require_tls_from", "client_certificates", "sni"),
    "minimum_cipher_bits",
)


@frozen(kw_only=True, field_transformer=settings)
class Listener:
    """An endpoint where mail arrives, with its rules and limits; a ``[[listener]]`` of the file.

    Raises:
        ConfigError: a value is refused, or contradicts another.
    """

    kind: Literal["smtp", "submission", "submissions", "lmtp", "local_submission"] = setting(
        read.choice("smtp", "submission", "submissions", "lmtp", "local_submission"),
        "protocol: smtp for mail from other hosts, submission for mail of our own users,"
        " submissions the same under implicit TLS, lmtp for mail to local mailboxes from servers"
        " beside us, local_submission for twisted-mta-sendmail on a UNIX socket",
        default="smtp",
    )
    endpoint: str = setting(
        endpoint, "Twisted server endpoint string to listen on", default_text="required"
    )
    tls: Literal["none", "may"] = setting(
        read.choice("none", "may"),
        "none: no TLS at all, for applications on this host that refuse a certificate which they"
        " cannot verify",
        default=attrs.Factory(
            lambda self: "none" if self.kind == "local_submission" else "may", takes_self=True
        ),
        default_text="none for local_submission, else may",
    )
    require_tls: bool = setting(
        read.flag,
        "whether mail in clear is refused; never on a public listener (RFC 3207 §4)",
        default=False,
    )
    implicit_tls: bool = setting(
        read.flag,
        "whether TLS begins at the first octet, without STARTTLS (RFC 8314 §3)",
        default=attrs.Factory(lambda self: self.kind == "submissions", takes_self=True),
        default_text="true for submissions, else false",
    )
    auth: Literal["off", "tls", "any"] = setting(
        read.choice("off", "tls", "any"),
        "where AUTH is offered: never, under TLS, or in clear too",
        default=attrs.Factory(
            lambda self: "tls" if self.kind.startswith("submission") else "off", takes_self=True
        ),
        default_text="tls for submission and submissions, else off",
    )
    auth_mechanisms: tuple[str, ...] = attrs.field(
        default=(),
        converter=_mechanisms,
        metadata=about(
            "mechanisms of AUTH that are offered, in this order; others are withheld, for clients"
            " that choose one which they cannot complete",
            default_text="all that the accounts allow",
        ),
    )
    max_auth_failures: int = setting(
        read.count, "failed AUTH commands after which a session ends", default=5, common=True
    )
    own_addresses: Literal["off", "envelope", "header"] = setting(
        read.choice("off", "envelope", "header"),
        "where authenticated users may use only their own addresses: nowhere, in MAIL, or in MAIL,"
        " From and Sender",
        default="envelope",
        common=True,
    )
    add_sender: bool = setting(
        read.flag,
        "whether mail of an authenticated user gets a Sender field if From is another's address"
        " (RFC 6409 §8.1)",
        default=False,
        common=True,
    )
    hide_client_address: bool = setting(
        read.flag,
        "whether the Received field of an authenticated user's mail leaves out the name and address"
        " of the client; the log has them in any case",
        default=False,
        common=True,
    )
    recipients_per_hour: int = setting(
        read.number(0, 10**6),
        "most recipients of one account in an hour; 0: no limit",
        default=0,
        common=True,
    )
    messages_per_hour: int = setting(
        read.number(0, 10**6),
        "most messages of one account in an hour; 0: no limit",
        default=0,
        common=True,
    )
    minimum_tls: Literal["1.2", "1.3"] = setting(
        read.choice("1.2", "1.3"), "lowest version of TLS for mail", default="1.2", common=True
    )
    minimum_cipher_bits: int = setting(
        read.number(0, 256),
        "least strength of the cipher for mail",
        default=0,
        common=True,
    )
    ciphers: str | None = setting(
        read.optional(ciphers),
        "suites of TLS 1.2 in OpenSSL's cipher list format; those of TLS 1.3 are always on",
        default=None,
        default_text="suites with forward secrecy, then RSA with AES",
        common=True,
    )
    tls_tickets: bool = setting(
        read.flag,
        "whether clients may resume TLS sessions, by tickets that they are given; some clients end"
        " the connection when they get one",
        default=True,
        common=True,
    )
    sni: tuple[SNICertificate, ...] = attrs.field(
        default=(),
        converter=sni,
        metadata=about("certificates for the server names that clients ask for (SNI)"),
    )
    client_certificates: Literal["none", "ask", "require"] = setting(
        read.choice("none", "ask", "require"),
        "whether clients are asked for a certificate; require: without a verified one, every"
        " command but QUIT is refused (RFC 3207 §4.1)",
        default="none",
    )
    client_certificate_authorities: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about("PEM file with the authorities that client certificates verify against"),
    )
    relay_certificates: tuple[RelayCertificate, ...] = attrs.field(
        default=(),
        converter=relay_certificates,
        metadata=about("client certificates whose owners may relay through us"),
    )
    require_tls_from: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=(),
        converter=read.networks,
        metadata=about(
            "networks whose clients are known to use TLS: MAIL in clear is refused, with an alarm"
            " (RFC 3207 §6)"
        ),
    )
    proxy_protocol_from: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=(),
        converter=read.networks,
        metadata=about(
            "load balancers that must name the client by the PROXY protocol, and are believed"
        ),
    )
    # HAProxy asks for 3 seconds at least: a lost packet is sent again within them.
    proxy_protocol_timeout: float = attrs.field(
        default=10.0,
        converter=period,
        metadata=about(
            "longest wait for the header of the PROXY protocol", default_text="10 s", common=True
        ),
    )
    xclient_from: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=(),
        converter=read.networks,
        metadata=about("proxies that may name the client by XCLIENT"),
    )
    vrfy_from: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=(),
        converter=read.networks,
        metadata=about("networks whose clients may ask for mailboxes by VRFY"),
    )
    expn_from: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=(),
        converter=read.networks,
        metadata=about("networks whose clients may ask for the members of an alias by EXPN"),
    )
    lmtp_delivery: Literal["queue", "direct"] = setting(
        read.choice("queue", "direct"),
        "where a message that arrives by LMTP is stored before the reply: in the queue, or in the"
        " Maildirs",
        default="queue",
        common=True,
    )
    bare_newlines: Literal["reject", "normalize"] | None = setting(
        read.optional(read.choice("reject", "normalize")),
        "whether a message with bare CR, bare LF or NUL is rejected (550 5.6.0), or its line ends"
        " are repaired",
        default=None,
        default_text="normalize for clients that may relay and on submission, else reject",
        common=True,
    )
    long_lines: Literal["accept", "reject"] = setting(
        read.choice("accept", "reject"),
        "whether a message with lines over 998 octets is accepted",
        default="accept",
        common=True,
    )
    # 50 MiB: Gmail and Outlook take 25 and 35 MiB of attachments, which base64 makes a third more.
    max_message_size: int = attrs.field(
        default=50 << 20,
        converter=size,
        metadata=about("largest message (SIZE, RFC 1870)", default_text="50 MiB", common=True),
    )
    # RFC 5321 §4.5.3.1.8: a public server takes 100 at least; Postfix and Sendmail take 1,000.
    max_recipients: int = setting(
        read.count, "most recipients of one transaction", default=1000, common=True
    )
    # RFC 5321 §6.3: a limit below 100 takes honest mail for a loop.
    max_hops: int = setting(
        read.number(1, 10**4),
        "most Received fields of a message; with more it is refused as a loop",
        default=100,
        common=True,
    )
    max_header_size: int = attrs.field(
        default=1 << 20,
        converter=size,
        metadata=about("largest header section", default_text="1 MiB", common=True),
    )
    minimum_deliver_by: float = attrs.field(
        default=0.0,
        converter=duration,
        metadata=about(
            "shortest deadline that a client may set (BY=…;R, RFC 2852); 0 s: no limit",
            default_text="0 s",
            common=True,
        ),
    )
    max_future_release: float = attrs.field(
        default=30 * 86400.0,
        converter=duration,
        metadata=about(
            "longest time for which a user may have mail held on submission (FUTURERELEASE, RFC"
            " 4865); 0 s: not offered",
            default_text="30 days",
            common=True,
        ),
    )
    max_connections: int = setting(
        read.count, "most connections at a time", default=1000, common=True
    )
    max_connections_per_peer: int = setting(
        read.count, "most connections at a time from one address", default=50, common=True
    )
    max_errors: int = setting(
        read.count, "errors after which a session ends", default=20, common=True
    )
    slow_after_errors: int = setting(
        read.number(0, 10**9),
        "errors after which the reply to each further one is delayed by error_delay",
        default=5,
        common=True,
    )
    error_delay: float = attrs.field(
        default=1.0,
        converter=duration,
        metadata=about("delay of such a reply", default_text="1 s", common=True),
    )
    # RFC 5321 §4.5.3.2.7: a server waits for the next command 5 minutes at least.
    command_timeout: float = attrs.field(
        default=300.0,
        converter=period,
        metadata=about("longest wait for a command", default_text="5 min", common=True),
    )
    data_timeout: float = attrs.field(
        default=180.0,
        converter=period,
        metadata=about("longest pause within a message", default_text="3 min", common=True),
    )
    tls_handshake_timeout: float = attrs.field(
        default=30.0,
        converter=period,
        metadata=about("longest TLS handshake", default_text="30 s", common=True),
    )
    # A modem of 1994 transferred 1,800 octets a second.
    minimum_rate: int = setting(
        read.number(0, 10**9),
        "octets a second below which the transfer of a message is ended, after rate_grace; 0: no"
        " limit",
        default=500,
        common=True,
    )
    rate_grace: float = attrs.field(
        default=180.0,
        converter=period,
        metadata=about(
            "how long a message may be slower than minimum_rate", default_text="3 min", common=True
        ),
    )

    @property
    def is_submission(self) -> bool:
        """Whether this is for mail of our own users, who authenticate (RFC 6409 §4.3)."""
        return self.kind in ("submission", "submissions")

    @property
    def is_local_submission(self) -> bool:
        """Whether this is for programs of this machine, known by their user ids."""
        return self.kind == "local_submission"

    def __attrs_post_init__(self) -> None:
        if self.is_local_submission:
            self._check_local()
        if self.is_submission and self.auth == "off":
            raise ConfigError(
                f'auth = "off": kind = {shown(self.kind)} requires AUTH;'
                ' expected "tls", or kind = "smtp"'
            )
        if self.is_submission and self.implicit_tls != (self.kind == "submissions"):
            other = "submissions" if self.implicit_tls else "submission"
            raise ConfigError(
                f"implicit_tls = {shown(self.implicit_tls)}: contradicts kind ="
                f" {shown(self.kind)}; expected kind = {shown(other)}"
            )
        if self.auth_mechanisms and self.auth == "off":
            raise ConfigError(
                f"auth_mechanisms = {shown(_plain(self.auth_mechanisms))}: AUTH is not offered;"
                ' expected auth = "tls"'
            )
        if self.tls == "none":
            self._check_without_tls()
        if self.implicit_tls and Endpoint.parse(self.endpoint).kind == "ssl":
            raise ConfigError(
                f"endpoint = {shown(self.endpoint)}: TLS twice, since implicit_tls is true;"
                " expected tcp: instead of ssl:"
            )
        if self.proxy_protocol_from and Endpoint.parse(self.endpoint).kind == "ssl":
            raise ConfigError(
                f"endpoint = {shown(self.endpoint)}: the PROXY protocol precedes TLS;"
                " expected tcp: with implicit_tls = true"
            )
        place = Endpoint.parse(self.endpoint)
        if self.kind == "lmtp" and place.port == "25" and place.kind != "unix":  # RFC 2033 §1
            raise ConfigError(
                f"endpoint = {shown(self.endpoint)}: port 25 is for SMTP alone;"
                " expected another, such as tcp:24"
            )
        if self.kind == "lmtp" and self.relay_certificates:
            raise ConfigError(
                f"relay_certificates = {shown([str(each) for each in self.relay_certificates])}:"
                ' lmtp does not relay; expected kind = "smtp"'
            )
        authorities = self.client_certificate_authorities
        if self.client_certificates == "none":
            for name in ("client_certificate_authorities", "relay_certificates"):
                if value := getattr(self, name):
                    raise ConfigError(
                        f"{name} = {shown(_plain(value))}: no client is asked for a"
                        ' certificate; expected client_certificates = "ask"'
                    )
        elif self.client_certificates == "require" and authorities is None:
            raise ConfigError(
                'client_certificates = "require": no certificate can be verified;'
                " expected client_certificate_authorities, a PEM file"
            )
        for each in self.relay_certificates:
            if each.fingerprint is None and authorities is None:
                raise ConfigError(
                    f"relay_certificates = {shown([str(each)])}: it cannot be verified;"
                    " expected client_certificate_authorities, a PEM file"
                )

    def _check_local(self) -> None:
        if Endpoint.parse(self.endpoint).kind not in ("unix", "systemd", "fd"):
            raise ConfigError(
                f"endpoint = {shown(self.endpoint)}: only a UNIX socket tells the user of a"
                " program; expected one such as unix:/run/mta/submission.sock"
            )
        if self.auth != "off" or self.proxy_protocol_from or self.xclient_from:
            raise ConfigError(
                f"kind = {shown(self.kind)}: the user of a program is known by the socket;"
                ' expected auth = "off", and neither proxy_protocol_from nor xclient_from'
            )

    def _check_without_tls(self) -> None:
        if self.auth == "tls":
            raise ConfigError(
                'tls = "none": auth = "tls" offers AUTH under TLS alone, so no user could send;'
                ' expected auth = "any", which takes passwords in clear'
            )
        for name in _NEED_TLS:
            value = getattr(self, name)
            if value not in (False, "none", 0, ()):
                raise ConfigError(f'tls = "none": contradicts {name}; expected tls = "may"')


def _plain(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, tuple) else value
