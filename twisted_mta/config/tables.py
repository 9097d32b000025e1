"""The tables ``[queue]``, ``[delivery]``, ``[dns]``, … without a file of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import attrs
from attrs import frozen

from ..mail.next_hop import Host
from ..mail.tls_policy import TLSSetting
from . import readers as read
from .amounts import duration_text, period, size
from .destination import EIGHT_BIT_HEADERS, MEMORY, TLS, source_addresses
from .setting import ConfigError, about, mistyped, setting, settings, shown
from .source_pool import pool_name


def queue_url(value: Any) -> str:
    """Return the URL of a queue.

    Raises:
        ValueError: it is none, or has a password in it.
    """
    expected = (
        'expected "sqlite:", the database in the state directory, or "postgresql://HOST/DATABASE",'
        " one that several machines share"
    )
    if not isinstance(value, str):
        raise mistyped(value, expected.replace("expected", "one string,"))
    if value.startswith("postgresql://"):
        parts = urlsplit(value)
        if parts.password is not None or "password" in parse_qs(parts.query):
            raise ValueError(
                "a password is in it; expected none: libpq reads it from the file that passfile= or"
                " PGPASSFILE names"
            )
        return value
    if value != "sqlite:":
        raise ValueError(expected)
    return "sqlite:"


def _period_or_off(value: float | str | None) -> float | None:
    return None if value is None or value == read.OFF else period(value)


@frozen(kw_only=True, field_transformer=settings)
class QueueSettings:
    """Where the queue is kept, and when delivery is retried; ``[queue]``."""

    url: str = setting(
        queue_url,
        "where the queue is kept: sqlite: in the state directory, or postgresql://HOST/DATABASE,"
        " which several machines share",
        default="sqlite:",
        default_text="sqlite:",
        option="queue",
        metavar="URL",
        table="mta",
        key="queue",
        secret=True,
    )
    retry_minimum: float = attrs.field(
        default=300.0,
        converter=period,
        metadata=about("wait before the second attempt", default_text="5 min"),
    )
    retry_maximum: float = attrs.field(
        default=3600.0,
        converter=period,
        metadata=about("longest wait between two attempts", default_text="1 h"),
    )
    # RFC 5321 §4.5.4.1: the give-up time is at least 4-5 days.
    lifetime: float = attrs.field(
        default=432000.0,
        converter=period,
        metadata=about("age at which undelivered mail is returned", default_text="5 days"),
    )
    delay_warning: float | None = attrs.field(
        default=14400.0,
        converter=_period_or_off,
        metadata=about(
            "age at which a sender is told of a delay, once for each recipient; off: never",
            default_text="4 h",
        ),
    )
    age_warning: float | None = attrs.field(
        default=86400.0,
        converter=_period_or_off,
        metadata=about(
            "age of waiting mail that is reported as a trouble; off: none is",
            default_text="1 day",
        ),
    )
    bounce_postmaster: bool = setting(
        read.flag,
        "whether undeliverable mail without a sender, such as notices, goes to postmaster of the"
        " first local domain",
        default=False,
        default_text="false",
    )
    small_body: int = attrs.field(
        default=65536,
        converter=size,
        metadata=about(
            "messages up to this size are kept in the database, larger ones in files",
            default_text="64 KiB",
        ),
    )
    commit_messages: int = setting(read.number(1, 1000), "most messages in one commit", default=64)
    commit_octets: int = attrs.field(
        default=4 << 20,
        converter=size,
        metadata=about("most octets of messages in one commit", default_text="4 MiB"),
    )
    concurrency: int = setting(
        read.count, "most transactions with other hosts at a time", default=300
    )
    connections_per_hop: int = setting(
        read.count, "most connections to one next hop at a time", default=20
    )

    def __attrs_post_init__(self) -> None:
        if self.retry_minimum > self.retry_maximum:
            raise ConfigError(
                f"retry_minimum = {shown(duration_text(self.retry_minimum))}: longer than"
                f" retry_maximum = {shown(duration_text(self.retry_maximum))};"
                " expected at most as long"
            )

    @property
    def database(self) -> str | None:
        """The URL of the database that several machines share; None: the queue is here alone."""
        return None if self.url == "sqlite:" else self.url


@frozen(kw_only=True, field_transformer=settings)
class DeliverySettings:
    """How mail is relayed to other hosts; ``[delivery]``."""

    port: int = setting(
        read.number(1, 65535), "port of mail exchangers, and of routes without one", default=25
    )
    helo: str | None = setting(
        read.optional(read.host_name), "our name in EHLO", default=None, default_text="the hostname"
    )
    source_address: tuple[str, ...] | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(source_addresses),
        metadata=about(
            "address to connect from; a list may have one of each family",
            default_text="the system's choice",
        ),
    )
    source_pool: str | None = setting(
        read.optional(pool_name),
        "name of the [[source_pool]] whose addresses mail leaves from",
        default=None,
    )
    tls: TLSSetting = setting(  # noqa: RUF009
        TLS,
        "TLS to other hosts: the best that each publishes (auto: DANE, else MTA-STS, else may),"
        " never (none), if offered (may), required (encrypt), required with a certificate that"
        " proves the next hop's name (verify), or with the policy that the next hop must publish by"
        " DANE (dane) or MTA-STS (mta-sts)",
        default="auto",
    )
    tls_memory: Literal["alarm", "require"] = setting(
        MEMORY,
        "action if a host had TLS before and has none now (RFC 3207 §6): deliver in clear with an"
        " alarm, or defer",
        default="alarm",
    )
    eight_bit_headers: Literal["return", "send"] = setting(
        EIGHT_BIT_HEADERS,
        "mail with octets over 127 in its header, where 8BITMIME is not offered: return it, or send"
        " the header as it came",
        default="return",
    )
    authorities: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with the authorities that certificates of next hops verify against, where"
            " they must be verified",
            default_text="those that the system trusts",
        ),
    )

    def __attrs_post_init__(self) -> None:
        if self.source_pool is not None and self.source_address is not None:
            raise ConfigError(
                f"source_pool = {shown(self.source_pool)}: found source_address too; expected one"
                " of them"
            )


def _nameservers(value: Iterable[str | Host]) -> tuple[Host, ...]:
    hosts: tuple[Host, ...] = read.several(read.nameserver, "addresses")(value)
    if not hosts:
        raise ValueError('expected at least one, such as ["127.0.0.1:5353"]')
    return hosts


@frozen(kw_only=True, field_transformer=settings)
class DNSSettings:
    """The name servers that are asked; ``[dns]``."""

    nameservers: tuple[Host, ...] | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(_nameservers),
        metadata=about(
            "addresses of name servers, with :port if that is not 53",
            default_text="those of the system",
        ),
    )
    timeout: float = attrs.field(
        default=10.0,
        converter=period,
        metadata=about("longest wait for an answer", default_text="10 s"),
    )
    trust_ad: bool = setting(
        read.flag,
        "whether name servers that are not on loopback are believed too when they say that DNSSEC"
        " proves an answer (the AD bit)",
        default=False,
        default_text="false",
    )
    signed_name: str = setting(
        read.domain,
        "signed domain, for twisted-mta check: a name server that validates says that it is proven",
        default="iana.org",
    )
    bogus_name: str = setting(
        read.domain,
        "domain whose signatures are wrong on purpose, for twisted-mta check: a name server that"
        " validates does not answer about it",
        default="dnssec-failed.org",
    )


@frozen(kw_only=True, field_transformer=settings)
class WebSettings:
    """How the status page is served; ``[web]``."""

    hosts: tuple[str, ...] = attrs.field(
        default=(),
        converter=read.host_names,
        metadata=about(
            "names by which browsers may ask for the page, besides the hostname, localhost and"
            " addresses"
        ),
    )
    users: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "file of the accounts that may log in to the page, written by twisted-mta users add;"
            " each may read everything and act, so this is another file than users of [mta]",
        ),
    )
    tokens: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "file of the bearer tokens of programs, written by twisted-mta users token",
        ),
    )
    tls: bool = setting(
        read.flag,
        "whether the page is served by HTTPS, with the certificates of the listeners",
        default=False,
        default_text="false",
    )


@frozen(kw_only=True)
class TLSReportSettings:
    """Turns on daily reports on TLS to domains that ask for them (RFC 8460); ``[tls_report]``.

    The table has no keys: ``report_from`` and ``organization`` stand in ``[policy]``.
    """


@frozen(kw_only=True, field_transformer=settings)
class GreylistSettings:
    """Turns on greylisting (RFC 6647) of mail from strangers; ``[greylist]``."""

    delay: float = attrs.field(
        default=300.0,
        converter=period,
        metadata=about(
            "how long mail of an unknown network, sender and recipient is deferred; the table turns"
            " this on",
            default_text="5 min",
        ),
    )


@frozen(kw_only=True, field_transformer=settings)
class LogSettings:
    """How ``twistd mta`` writes its log; ``[log]``."""

    format: Literal["text", "json"] = setting(
        read.choice("text", "json"),
        "form of a line: text as twistd writes it, or a JSON object",
        default="text",
    )
