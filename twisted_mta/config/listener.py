"""The settings of a listener: one place where mail comes in, with its limits."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal

import attrs
from attrs import frozen

from . import setting as read
from .certificates import RelayCertificate, SNICertificate, ciphers, relay_certificate, sni
from .endpoint import Endpoint, endpoint
from .setting import ConfigError, setting


@frozen(kw_only=True)
class Listener:
    """One place where mail comes in, with its limits; the file has a ``[[listener]]`` for each."""

    kind: Literal["smtp", "submission", "submissions", "lmtp"] = setting(
        read.choice("smtp", "submission", "submissions", "lmtp"),
        "what is spoken here: smtp is for mail from other hosts, submission for mail of our own"
        " users, submissions the same under TLS from the first octet, lmtp for mail to local"
        " mailboxes from servers beside us",
        default="smtp",
    )
    endpoint: str = setting(
        endpoint, "Twisted server endpoint string to listen on", said="to be given"
    )
    require_tls: bool = setting(
        read.flag,
        "refuse mail in clear; never on a public listener (RFC 3207 §4)",
        default=False,
    )
    implicit_tls: bool = setting(
        read.flag,
        "TLS from the first octet, without STARTTLS (RFC 8314 §3)",
        default=attrs.Factory(lambda self: self.kind == "submissions", takes_self=True),
        said="true for submissions, else false",
    )
    auth: Literal["off", "tls", "any"] = setting(
        read.choice("off", "tls", "any"),
        "where AUTH is offered: nowhere, under TLS, or in clear too",
        default=attrs.Factory(
            lambda self: "tls" if self.kind.startswith("submission") else "off", takes_self=True
        ),
        said="tls for submission and submissions, else off",
    )
    max_auth_failures: int = setting(
        read.count, "failed AUTH commands after which a session is ended", default=5, common=True
    )
    own_addresses: Literal["off", "envelope", "header"] = setting(
        read.choice("off", "envelope", "header"),
        "where those who have authenticated may use their own addresses alone: nowhere, in MAIL,"
        " or in MAIL, From and Sender",
        default="envelope",
        common=True,
    )
    add_sender: bool = setting(
        read.flag,
        "whether mail of those who have authenticated gets a Sender field where From is somebody"
        " else's (RFC 6409 §8.1)",
        default=False,
        common=True,
    )
    recipients_per_hour: int = setting(
        read.number(0, 10**6),
        "most recipients of one account in an hour; 0 is any number",
        default=0,
        common=True,
    )
    messages_per_hour: int = setting(
        read.number(0, 10**6),
        "most messages of one account in an hour; 0 is any number",
        default=0,
        common=True,
    )
    minimum_tls: Literal["1.2", "1.3"] = setting(
        read.choice("1.2", "1.3"), "the oldest TLS that mail comes by", default="1.2", common=True
    )
    minimum_cipher_bits: int = setting(
        read.number(0, 256),
        "the least strength of the cipher that mail comes by",
        default=0,
        common=True,
    )
    ciphers: str | None = setting(
        read.optional(ciphers),
        "suites of TLS 1.2 as OpenSSL's cipher list format has them; those of 1.3 are always on",
        default=None,
        said="suites with forward secrecy, then RSA with AES",
        common=True,
    )
    sni: tuple[SNICertificate, ...] = setting(
        sni, "certificates for names that clients ask for (SNI)", default=()
    )
    client_certificates: Literal["none", "ask", "require"] = setting(
        read.choice("none", "ask", "require"),
        "whether clients are asked for a certificate; with require, nothing but QUIT is obeyed"
        " without one that verifies (RFC 3207 §4.1)",
        default="none",
    )
    client_certificate_authorities: str | None = setting(
        read.optional(read.path("file")),
        "PEM file with the authorities that client certificates verify against",
        default=None,
    )
    relay_certificates: tuple[RelayCertificate, ...] = setting(
        read.several(relay_certificate, "fingerprints, or tables with issuer and subject"),
        "client certificates whose owners may send through us to anywhere",
        default=(),
    )
    require_tls_from: tuple[IPv4Network | IPv6Network, ...] = setting(
        read.several(read.network, "networks"),
        "networks from which TLS is known to come: MAIL in clear is refused, with an alarm"
        " (RFC 3207 §6)",
        default=(),
    )
    proxy_protocol_from: tuple[IPv4Network | IPv6Network, ...] = setting(
        read.several(read.network, "networks"),
        "load balancers that say who connects to them, by the PROXY protocol: believed, and"
        " required to",
        default=(),
    )
    # HAProxy asks for 3 seconds at least: a lost packet is sent again within them.
    proxy_protocol_timeout: float = setting(
        read.period, "longest wait for what they say", default=10.0, said="10 s", common=True
    )
    xclient_from: tuple[IPv4Network | IPv6Network, ...] = setting(
        read.several(read.network, "networks"),
        "proxies that may say for whom they speak, by XCLIENT",
        default=(),
    )
    vrfy_from: tuple[IPv4Network | IPv6Network, ...] = setting(
        read.several(read.network, "networks"),
        "networks whose clients may ask who is here, by VRFY",
        default=(),
    )
    expn_from: tuple[IPv4Network | IPv6Network, ...] = setting(
        read.several(read.network, "networks"),
        "networks whose clients may ask where an alias leads, by EXPN",
        default=(),
    )
    lmtp_delivery: Literal["queue", "direct"] = setting(
        read.choice("queue", "direct"),
        "what is done with a message that came by LMTP before it is answered: it is put into the"
        " queue, or delivered to the Maildirs",
        default="queue",
        common=True,
    )
    bare_newlines: Literal["reject", "normalize"] = setting(
        read.choice("reject", "normalize"),
        "what a message with bare CR, bare LF or NUL gets: 550 5.6.0, or clean line ends",
        default="reject",
        common=True,
    )
    long_lines: Literal["accept", "reject"] = setting(
        read.choice("accept", "reject"),
        "what a message with lines over 998 octets gets",
        default="accept",
        common=True,
    )
    # 50 MiB: Gmail and Outlook take 25 and 35 MiB of attachments, which base64 makes a third more.
    max_message_size: int = setting(
        read.size, "largest message (SIZE, RFC 1870)", default=50 << 20, said="50 MiB", common=True
    )
    # RFC 5321 §4.5.3.1.8: a public server takes 100 at least; Postfix and Sendmail take 1,000.
    max_recipients: int = setting(
        read.count, "most recipients of one transaction", default=1000, common=True
    )
    # RFC 5321 §6.3: a limit below 100 takes honest mail for a loop.
    max_hops: int = setting(
        read.number(1, 10**4),
        "most Received fields of a message; with more it is taken to loop",
        default=100,
        common=True,
    )
    max_header_size: int = setting(
        read.size, "largest header section", default=1 << 20, said="1 MiB", common=True
    )
    minimum_deliver_by: float = setting(
        read.duration,
        "shortest time in which mail may ask to be delivered or returned (BY=…;R, RFC 2852); 0 s"
        " is any",
        default=0.0,
        said="0 s",
        common=True,
    )
    max_future_release: float = setting(
        read.duration,
        "longest time for which a user may have mail held (FUTURERELEASE, RFC 4865), for submission"
        " alone; 0 s: not offered",
        default=30 * 86400.0,
        said="30 days",
        common=True,
    )
    max_connections: int = setting(
        read.count, "most connections at a time", default=1000, common=True
    )
    max_connections_per_peer: int = setting(
        read.count, "most connections at a time from one address", default=50, common=True
    )
    max_errors: int = setting(
        read.count, "errors after which a session is ended", default=20, common=True
    )
    slow_after_errors: int = setting(
        read.number(0, 10**9),
        "errors after which each further reply to one is held back by error_delay",
        default=5,
        common=True,
    )
    error_delay: float = setting(
        read.duration, "how long such a reply is held back", default=1.0, said="1 s", common=True
    )
    # RFC 5321 §4.5.3.2.7: a server waits for the next command 5 minutes at least.
    command_timeout: float = setting(
        read.period, "longest wait for a command", default=300.0, said="5 min", common=True
    )
    data_timeout: float = setting(
        read.period, "longest silence within a message", default=180.0, said="3 min", common=True
    )
    tls_handshake_timeout: float = setting(
        read.period, "longest TLS handshake", default=30.0, said="30 s", common=True
    )
    # A modem of 1994 had 1,800 octets a second.
    minimum_rate: int = setting(
        read.number(0, 10**9),
        "octets a second below which a message is not waited for, after rate_grace; 0 is any",
        default=500,
        common=True,
    )
    rate_grace: float = setting(
        read.period,
        "how long a message may come slower than minimum_rate",
        default=180.0,
        said="3 min",
        common=True,
    )

    @property
    def is_submission(self) -> bool:
        """Whether mail of our own users comes in here: nothing without AUTH (RFC 6409 §4.3)."""
        return self.kind in ("submission", "submissions")

    def __attrs_post_init__(self) -> None:
        if self.is_submission and self.auth == "off":
            raise ConfigError(
                f'auth = "off": nothing could be sent, since kind = {read.shown(self.kind)} asks'
                ' for AUTH; "tls", or kind = "smtp", would do'
            )
        if self.is_submission and self.implicit_tls != (self.kind == "submissions"):
            other = "submissions" if self.implicit_tls else "submission"
            raise ConfigError(
                f"implicit_tls = {read.shown(self.implicit_tls)}: that is what kind ="
                f" {read.shown(other)} does"
            )
        if self.implicit_tls and Endpoint.parse(self.endpoint).kind == "ssl":
            raise ConfigError(
                f"endpoint = {read.shown(self.endpoint)}: TLS twice, since implicit_tls is true;"
                " tcp: instead of ssl: would do"
            )
        if self.proxy_protocol_from and Endpoint.parse(self.endpoint).kind == "ssl":
            raise ConfigError(
                f"endpoint = {read.shown(self.endpoint)}: the PROXY protocol comes before TLS;"
                " tcp: with implicit_tls = true would do"
            )
        place = Endpoint.parse(self.endpoint)
        if self.kind == "lmtp" and place.port == "25" and place.kind != "unix":  # RFC 2033 §1
            raise ConfigError(
                f"endpoint = {read.shown(self.endpoint)}: port 25 is for SMTP alone;"
                " tcp:24 would do"
            )
        if self.kind == "lmtp" and self.relay_certificates:
            raise ConfigError(
                f"relay_certificates = {read.shown([str(one) for one in self.relay_certificates])}:"
                ' lmtp takes mail for local mailboxes alone; kind = "smtp" would do'
            )
        authorities = self.client_certificate_authorities
        if self.client_certificates == "none":
            for name in ("client_certificate_authorities", "relay_certificates"):
                if value := getattr(self, name):
                    raise ConfigError(
                        f"{name} = {read.shown(_plain(value))}: no client is asked for a"
                        ' certificate; client_certificates = "ask" would do'
                    )
        elif self.client_certificates == "require" and authorities is None:
            raise ConfigError(
                'client_certificates = "require": no certificate could verify;'
                " client_certificate_authorities with a PEM file would do"
            )
        for each in self.relay_certificates:
            if each.fingerprint is None and authorities is None:
                raise ConfigError(
                    f"relay_certificates = {read.shown([str(each)])}: it could not verify;"
                    " client_certificate_authorities with a PEM file would do"
                )


def _plain(value: Any) -> Any:
    return [str(each) for each in value] if isinstance(value, tuple) else value
