"""The settings themselves: frozen values, each field with its meaning, default and reader."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal

import attrs
from attrs import frozen

from ..mail.next_hop import Host
from . import setting as read
from .checker import CheckerSpec, checker_spec
from .destination import MEMORY, TLS, Destination, Destinations, source_addresses
from .endpoint import Endpoint, endpoint_or_off, endpoints, routes
from .listener import Listener
from .setting import ConfigError, Setting, setting

DEFAULT_SMTP = "tcp:2525:interface=127.0.0.1"
DEFAULT_WEB = "tcp:8025:interface=127.0.0.1"
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@frozen(kw_only=True)
class QueueSettings:
    """Where mail waits, and how often it is tried; ``[queue]``."""

    url: Literal["sqlite:"] = setting(
        lambda value: _queue_url(value),
        "where mail waits: sqlite: in the state directory",
        default="sqlite:",
        said="sqlite:",
        option="queue",
        metavar="URL",
        table="mta",
        key="queue",
    )
    retry_minimum: float = setting(
        read.period, "wait before the second attempt", default=300.0, said="5 min"
    )
    retry_maximum: float = setting(
        read.period, "longest wait between two attempts", default=3600.0, said="1 h"
    )
    # RFC 5321 §4.5.4.1: the give-up time is at least 4-5 days.
    lifetime: float = setting(
        read.period,
        "how long mail is tried before it is returned",
        default=432000.0,
        said="5 days",
    )
    delay_warning: float | None = setting(
        read.or_off(read.period),
        "when a sender is told that mail is delayed, once for each recipient; off: never",
        default=14400.0,
        said="4 h",
    )
    bounce_postmaster: bool = setting(
        read.flag,
        "whether postmaster of the first local domain is sent what has no sender, such as notices,"
        " and cannot be delivered",
        default=False,
        said="false",
    )
    small_body: int = setting(
        read.size,
        "messages up to this size are kept in the database, larger ones in files",
        default=65536,
        said="64 KiB",
    )
    commit_messages: int = setting(read.number(1, 1000), "most messages in one commit", default=64)
    commit_octets: int = setting(
        read.size, "most octets of messages in one commit", default=4 << 20, said="4 MiB"
    )
    concurrency: int = setting(read.count, "most deliveries to other hosts at a time", default=300)
    connections_per_hop: int = setting(
        read.count, "most connections at a time to one next hop", default=20
    )

    def __attrs_post_init__(self) -> None:
        if self.retry_minimum > self.retry_maximum:
            raise ConfigError(
                f"retry_minimum = {read.shown(read.duration_text(self.retry_minimum))}: longer than"
                f" retry_maximum = {read.shown(read.duration_text(self.retry_maximum))};"
                " at most as long would do"
            )


def _queue_url(value: Any) -> str:
    if isinstance(value, str) and value.split(":")[0] in ("postgresql", "postgres"):
        raise ValueError('postgresql is not built yet; "sqlite:" would do')
    if value != "sqlite:":
        raise ValueError('"sqlite:" would do: the database is in the state directory')
    return "sqlite:"


@frozen(kw_only=True)
class DeliverySettings:
    """How mail is handed to other hosts; ``[delivery]``."""

    port: int = setting(
        read.number(1, 65535), "port of mail exchangers and of routes without one", default=25
    )
    helo: str | None = setting(
        read.optional(read.host_name), "our name in EHLO", default=None, said="the hostname"
    )
    source_address: tuple[str, ...] | None = setting(
        read.optional(source_addresses),
        "address to connect from; a list may have one of each family",
        default=None,
        said="the system's choice",
    )
    tls: Literal["none", "may", "encrypt", "verify"] = setting(
        TLS,
        "TLS to other hosts: never, where they offer it, nothing without, or nothing without a"
        " certificate that proves the next hop's name",
        default="may",
    )
    tls_memory: Literal["alarm", "require"] = setting(
        MEMORY,
        "what is done where TLS was had before and cannot be now (RFC 3207 §6): delivered in clear"
        " with an alarm, or deferred",
        default="alarm",
    )
    authorities: str | None = setting(
        read.optional(read.path("file")),
        "PEM file with those who may sign certificates of next hops, for tls = verify",
        default=None,
        said="those that the system trusts",
    )


@frozen(kw_only=True)
class DNSSettings:
    """Who answers questions about names; ``[dns]``."""

    nameservers: tuple[Host, ...] | None = setting(
        read.optional(lambda value: _nameservers(value)),
        "addresses of DNS servers, with :port where that is not 53",
        default=None,
        said="those of the system",
    )
    timeout: float = setting(read.period, "longest wait for an answer", default=10.0, said="10 s")


def _nameservers(value: Any) -> tuple[Host, ...]:
    hosts: tuple[Host, ...] = read.several(read.nameserver, "addresses")(value)
    if not hosts:
        raise ValueError('at least one, such as ["127.0.0.1:5353"], would do')
    return hosts


@frozen(kw_only=True)
class LogSettings:
    """How the log of ``twistd mta`` is written; ``[log]``."""

    format: Literal["text", "json"] = setting(
        read.choice("text", "json"),
        "what a line of the log is: text as twistd writes it, or an object of JSON",
        default="text",
    )


LISTENING: Mapping[str, Setting] = {
    "submission": Setting(
        "where our own users send mail, with AUTH, under TLS by STARTTLS (RFC 6409): likewise",
        endpoints,
        "none",
        option="submission",
        metavar="ENDPOINT",
        repeatable=True,
    ),
    "submissions": Setting(
        "the same under TLS from the first octet (RFC 8314): likewise",
        endpoints,
        "none",
        option="submissions",
        metavar="ENDPOINT",
        repeatable=True,
    ),
    "lmtp": Setting(
        "where LMTP is listened for, for mail to local mailboxes (RFC 2033): likewise",
        endpoints,
        "none",
        option="lmtp",
        metavar="ENDPOINT",
        repeatable=True,
    ),
}
"""What makes listeners of other kinds than smtp, by the kind, which is the key in the file too."""


def _listeners(value: Iterable[Listener]) -> tuple[Listener, ...]:
    listeners = tuple(value)
    if not all(isinstance(listener, Listener) for listener in listeners):
        raise ValueError("a list of Listener would do")
    return listeners


def _destinations(value: Iterable[Destination]) -> tuple[Destination, ...]:
    destinations = tuple(value)
    if not all(isinstance(each, Destination) for each in destinations):
        raise ConfigError(f"destinations = {read.shown(value)}: a list of Destination would do")
    return destinations


_DIRECTORY = read.path("directory")
_FILE = read.path("file")


@frozen(kw_only=True)
class Config:
    """All settings of one mail transfer agent; what is not given has its default.

    ``Config()`` is complete and listens nowhere: the listeners that ``twistd mta`` starts with, the
    machine's name and ``$STATE_DIRECTORY`` come in by `config.load`.

    Attributes:
        queue: ``[queue]``.
        delivery: ``[delivery]``.
        dns: ``[dns]``.
        log: ``[log]``.
        destinations: the ``[[destination]]`` tables.

    Raises:
        ConfigError: a value cannot be.
    """

    hostname: str = setting(
        read.host_name,
        "our name in the greeting, EHLO, Received and reports",
        default="localhost",
        said="the machine's full name, else localhost",
        option="hostname",
        metavar="NAME",
    )
    state_dir: str = setting(
        _DIRECTORY,
        "directory of the queue and of what is remembered; made with mode 0700",
        default="mta-state",
        said="$STATE_DIRECTORY, else ./mta-state",
        option="state-dir",
        metavar="DIR",
    )
    listeners: tuple[Listener, ...] = setting(
        endpoints,
        "where SMTP is listened for: a Twisted server endpoint string, or off",
        convert=_listeners,
        default=(),
        said=DEFAULT_SMTP,
        option="smtp",
        metavar="ENDPOINT",
        repeatable=True,
        key="smtp",
    )
    web: str | None = setting(
        endpoint_or_off,
        "where the status page is: a Twisted server endpoint string, or off",
        default=None,
        said=DEFAULT_WEB,
        option="web",
        metavar="ENDPOINT",
    )
    tls_certificate: str | None = setting(
        read.optional(_FILE),
        "PEM file with our certificate and its chain",
        default=None,
        said="a self-signed one, made once in the state directory",
        option="tls-certificate",
        metavar="FILE",
    )
    tls_key: str | None = setting(
        read.optional(_FILE),
        "PEM file with its private key",
        default=attrs.Factory(lambda self: self.tls_certificate, takes_self=True),
        said="the file of the certificate",
        option="tls-key",
        metavar="FILE",
    )
    local_domains: tuple[str, ...] = setting(
        read.several(read.domain, "domains"),
        "mail for this domain is delivered here",
        default=attrs.Factory(lambda self: ("localhost", self.hostname), takes_self=True),
        said="localhost and the hostname",
        option="local-domain",
        metavar="DOMAIN",
        repeatable=True,
    )
    maildir: str = setting(
        _DIRECTORY,
        "mail is delivered to DIR/<domain>/<local-part>/{tmp,new,cur}",
        default=attrs.Factory(
            lambda self: os.path.join(self.state_dir, "maildir"), takes_self=True
        ),
        said="maildir in the state directory",
        option="maildir",
        metavar="DIR",
    )
    recipients: Literal["any", "existing"] = setting(
        read.choice("any", "existing"),
        "which local parts exist: any, or those with a Maildir, an alias or an account",
        default=attrs.Factory(lambda self: self._default_recipients(), takes_self=True),
        said="any while all listeners are on loopback, else existing",
        option="recipients",
        metavar="any|existing",
    )
    relay_from: tuple[IPv4Network | IPv6Network, ...] = setting(
        read.several(read.network, "networks"),
        "network whose hosts may send through us to anywhere; loopback means UNIX sockets too",
        default=_LOOPBACK,
        said="127.0.0.0/8 and ::1/128",
        option="relay-from",
        metavar="CIDR",
        repeatable=True,
    )
    routes: tuple[tuple[str, str], ...] = setting(
        routes,
        "next hop by the recipient's domain; PATTERN is example.net, .example.net or *, URL is"
        " smtp://host[:port], smtps://host[:port], lmtp://host:port or lmtp+unix:/path (several by"
        " commas), maildir:, discard: or error:5.1.1 text",
        default=(),
        said="the domain's mail exchangers",
        option="route",
        metavar="PATTERN=URL",
        repeatable=True,
    )
    aliases: str | None = setting(
        read.optional(_FILE),
        "file of aliases: lines such as root: ann, bob@example.org",
        default=None,
    )
    virtual_domains: tuple[str, ...] = setting(
        read.several(read.domain, "domains"),
        "domains whose every mailbox is an alias; nothing else exists there",
        default=(),
    )
    missing_members: Literal["notice", "refuse"] = setting(
        read.choice("notice", "refuse"),
        "what becomes of mail for an alias of which some members do not exist: the others get it,"
        " and the sender, or the alias owner-NAME where there is one, a notice; or it is refused",
        default="notice",
    )
    srs_domain: str | None = setting(
        lambda value: None if value is None or value == read.OFF else read.domain(value),
        "domain of ours in the reverse-path of mail that aliases forward to others (SRS), where"
        " notices come back; off leaves reverse-paths as they are",
        default=attrs.Factory(lambda self: self._default_srs_domain(), takes_self=True),
        said="the first local domain with a dot in it; off without one",
    )
    users: str | None = setting(
        read.optional(_FILE),
        "file of accounts for AUTH, made by twisted-mta users add",
        default=None,
        option="users",
        metavar="FILE",
    )
    auth: CheckerSpec | None = setting(  # noqa: RUF009
        read.optional(checker_spec),
        "a checker of twisted.cred for AUTH, such as file:/etc/mta/passwords, for what the accounts"
        " of a file cannot do",
        default=None,
        option="auth",
        metavar="SPEC",
        secret=True,
    )
    auth_failures_per_account: int = setting(
        read.number(0, 10**6),
        "failed AUTH commands of one account in auth_failure_period after which none is heard; 0 is"
        " any number",
        default=20,
    )
    auth_failures_per_address: int = setting(
        read.number(0, 10**6),
        "likewise from one IPv4 address, or one /64 of IPv6",
        default=50,
    )
    auth_failure_period: float = setting(
        read.period, "how long a failure counts", default=600.0, said="10 min"
    )
    auth_failure_delay: float = setting(
        read.duration,
        "how long the answer to the first failure of a session is held back, the second twice as"
        " long, and so on; 5 s at most",
        default=1.0,
        said="1 s",
    )
    # A queue id has six bits for the worker that made it.
    workers: int = setting(
        read.number(1, 64),
        "processes that share the listeners",
        default=1,
        option="workers",
        metavar="N",
    )
    # A message in memory holds small_body (64 KiB) at most: 1,024 of them at a time.
    message_memory: int = setting(
        read.size,
        "memory for messages on their way in, all together",
        default=64 << 20,
        said="64 MiB",
    )
    minimum_free_disk: int = setting(
        lambda value: 0 if value == 0 else read.size(value),
        "room on the disk below which no mail is taken; 0 is none",
        default=attrs.Factory(lambda self: self._three_messages(), takes_self=True),
        said="3 times the largest max_message_size",
    )
    drain_timeout: float = setting(
        read.duration,
        "how long open transactions may go on when it is stopped",
        default=10.0,
        said="10 s",
    )
    queue: QueueSettings = attrs.field(factory=QueueSettings)
    delivery: DeliverySettings = attrs.field(factory=DeliverySettings)
    dns: DNSSettings = attrs.field(factory=DNSSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
    destinations: tuple[Destination, ...] = attrs.field(factory=tuple, converter=_destinations)

    def _three_messages(self) -> int:
        return 3 * max((each.max_message_size for each in self.listeners), default=50 << 20)

    def _default_srs_domain(self) -> str | None:
        # localhost, or a name without a domain, leads nobody back to us.
        return next((name for name in self.local_domains if "." in name and name[0] != "["), None)

    def _default_recipients(self) -> str:
        everywhere = (Endpoint.parse(listener.endpoint) for listener in self.listeners)
        return "any" if all(place.on_loopback for place in everywhere) else "existing"

    def __attrs_post_init__(self) -> None:
        self._found.all()  # what contradicts itself is said now
        if self.tls_key and not self.tls_certificate:
            raise ConfigError(
                f"tls_key = {read.shown(self.tls_key)}: a key without tls_certificate;"
                " both, or neither, would do"
            )
        if not self.local_domains:
            # The <postmaster> without a domain has to be somebody (RFC 5321 §4.5.1).
            raise ConfigError(
                'local_domains = []: at least one, such as ["mail.example.net"], would do'
            )
        for name in self.virtual_domains:
            if name in self.local_domains:
                raise ConfigError(
                    f"virtual_domains = {read.shown(self.virtual_domains)}: {name} is among"
                    " local_domains as well; one of the two would do"
                )
        if self.virtual_domains and self.aliases is None:
            raise ConfigError(
                f"virtual_domains = {read.shown(self.virtual_domains)}: no mailbox exists there;"
                " aliases with a file of them would do"
            )
        seen: dict[str, str] = {}
        for name, place in self._places():
            if Endpoint.parse(place).port != "0" and place in seen:
                raise ConfigError(
                    f"{name} = {read.shown(place)}: {seen[place]} listens there already;"
                    " another endpoint would do"
                )
            seen[place] = name

    def _places(self) -> Sequence[tuple[str, str]]:
        places = [(listener.kind, listener.endpoint) for listener in self.listeners]
        return [*places, ("web", self.web)] if self.web else places

    @cached_property
    def _found(self) -> Destinations:
        queue, delivery = self.queue, self.delivery
        defaults = Destination(
            domain="*",
            connections=queue.connections_per_hop,
            tls=delivery.tls,
            tls_memory=delivery.tls_memory,
            authorities=delivery.authorities if delivery.tls == "verify" else None,
            source_address=delivery.source_address,
            retry_minimum=queue.retry_minimum,
            retry_maximum=queue.retry_maximum,
            lifetime=queue.lifetime,
        )
        return Destinations(self.destinations, defaults, authorities=delivery.authorities)

    def destination_for(self, domain: str, hosts: tuple[Host, ...] = ()) -> Destination:
        """Return what holds for mail to ``domain``, what was left out filled in.

        A host that a route names and a destination is for comes first; then the domain itself, the
        longest ``.suffix``, and ``*``.

        Args:
            domain: of the recipient, canonical.
            hosts: of the next hop, where a route names them.
        """
        return self._found.of(domain, hosts)

    @property
    def all_destinations(self) -> Sequence[Destination]:
        """Each destination, what was left out filled in; the last is for all others."""
        return self._found.all()

    @property
    def helo(self) -> str:
        """Our name in EHLO to other hosts."""
        return self.delivery.helo or self.hostname
