"""The whole configuration as one frozen value: `Config`, the table ``[mta]`` with all others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

import attrs
from attrs import frozen

from ..mail.address import Mailbox
from ..mail.next_hop import Host
from . import readers as read
from .account_limits import AccountLimit, AccountLimits, limits_of_accounts
from .acme import ACMESettings
from .amounts import duration, period, size
from .checker import CheckerSpec, checker_spec
from .destination import VERIFYING, Destination
from .destination_table import DestinationTable
from .dkim import DKIMKey, dkim_keys
from .dnsbl import DNSBL, dnsbls
from .endpoint import Endpoint, endpoint_or_off, endpoints
from .feedback import FeedbackSettings
from .listener import Listener
from .milter import MilterSettings, milters
from .mta_sts import MTASTSSettings
from .policy import PolicySettings
from .policy_service import PolicyServiceSettings, policy_services
from .reply_action import ReplyAction, reply_actions
from .routes import routes
from .setting import ConfigError, about, setting, settings, shown
from .source_pool import SourcePool, source_pools
from .suppression import SuppressionSettings
from .tables import (
    DeliverySettings,
    DNSSettings,
    GreylistSettings,
    LogSettings,
    QueueSettings,
    TLSReportSettings,
    WebSettings,
)
from .webhook import WebhookSettings, webhooks

DEFAULT_SMTP = "tcp:2525:interface=127.0.0.1"
DEFAULT_WEB = "tcp:8025:interface=127.0.0.1"
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def _listeners(value: Iterable[Listener]) -> tuple[Listener, ...]:
    listeners = tuple(value)
    if not all(isinstance(listener, Listener) for listener in listeners):
        raise ValueError("expected a list of Listener")
    return listeners


def _destinations(value: Iterable[Destination]) -> tuple[Destination, ...]:
    destinations = tuple(value)
    if not all(isinstance(destination, Destination) for destination in destinations):
        raise ConfigError(f"destinations = {shown(value)}: expected a list of Destination")
    return destinations


def _free_disk(value: int | str) -> int:
    return 0 if value == 0 else size(value)


@frozen(kw_only=True, field_transformer=settings)
class Config:
    """All settings of one mail transfer agent.

    ``Config()`` is complete and listens nowhere. The listeners of ``twistd mta``, the machine's
    name and ``$STATE_DIRECTORY`` are defaults of `config.load` alone.

    Attributes:
        queue: ``[queue]``.
        delivery: ``[delivery]``.
        dns: ``[dns]``.
        log: ``[log]``.
        web_page: ``[web]``.
        policy: ``[policy]``.
        mta_sts: ``[mta_sts]``.
        account_limits: ``[account_limits]``.
        limits_of_accounts: the ``[[account_limit]]`` tables.
        destinations: the ``[[destination]]`` tables.
        source_pools: the ``[[source_pool]]`` tables.
        reply_actions: the ``[[reply_action]]`` tables, in their order.
        dkim_keys: the ``[[dkim]]`` tables.
        dnsbl: the ``[[dnsbl]]`` tables.
        greylist: ``[greylist]``; None: there is no greylisting.
        feedback: ``[feedback]``; None: no reports of complaints are asked for.
        suppression: ``[suppression]``; None: there is no suppression list.
        milters: the ``[[milter]]`` tables, in their order.
        policy_services: the ``[[policy_service]]`` tables, in their order.
        webhooks: the ``[[webhook]]`` tables.
        tls_report: ``[tls_report]``; None: there are no reports on TLS.
        acme: ``[acme]``; None: certificates come from elsewhere.

    Raises:
        ConfigError: a value is refused, or contradicts another.
    """

    hostname: str = setting(
        read.host_name,
        "our name in the greeting, EHLO, Received and notices",
        default="localhost",
        default_text="the machine's full name, else localhost",
        option="hostname",
        metavar="NAME",
    )
    state_dir: str = attrs.field(
        default="mta-state",
        converter=read.directory,
        metadata=about(
            "directory of the queue, keys and TLS memory; made with mode 0700",
            default_text="$STATE_DIRECTORY, else ./mta-state",
            option="state-dir",
            metavar="DIR",
        ),
    )
    listeners: tuple[Listener, ...] = attrs.field(
        default=(),
        converter=_listeners,
        metadata=about(
            "where to listen for SMTP: a Twisted server endpoint string, or off",
            read=endpoints,
            default_text=DEFAULT_SMTP,
            option="smtp",
            metavar="ENDPOINT",
            repeatable=True,
            key="smtp",
        ),
    )
    web: str | None = setting(
        endpoint_or_off,
        "where to serve the status page: a Twisted server endpoint string, or off",
        default=None,
        default_text=DEFAULT_WEB,
        option="web",
        metavar="ENDPOINT",
    )
    capture: bool = setting(
        read.flag,
        "a capture server for tests: mail for every recipient is taken into a Maildir, nothing is"
        " relayed, and the page shows what came",
        default=False,
        default_text="off",
        option="capture",
    )
    tls_certificate: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with our certificate and its chain",
            default_text="a self-signed one, made once in the state directory",
            option="tls-certificate",
            metavar="FILE",
        ),
    )
    tls_key: str | None = attrs.field(
        default=attrs.Factory(lambda self: self.tls_certificate, takes_self=True),
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "PEM file with the private key",
            default_text="the file of the certificate",
            option="tls-key",
            metavar="FILE",
        ),
    )
    local_domains: tuple[str, ...] = attrs.field(
        default=attrs.Factory(lambda self: ("localhost", self.hostname), takes_self=True),
        converter=read.domains,
        metadata=about(
            "domain whose mail is delivered here",
            default_text="localhost and the hostname",
            option="local-domain",
            metavar="DOMAIN",
            repeatable=True,
        ),
    )
    maildir: str = attrs.field(
        default=attrs.Factory(
            lambda self: os.path.join(self.state_dir, "maildir"), takes_self=True
        ),
        converter=read.directory,
        metadata=about(
            "local mail is delivered to DIR/<domain>/<local-part>/{tmp,new,cur}",
            default_text="maildir in the state directory",
            option="maildir",
            metavar="DIR",
        ),
    )
    recipients: Literal["any", "existing"] = setting(
        read.choice("any", "existing"),
        "which local parts exist: any, or those with a Maildir, alias or account",
        default=attrs.Factory(lambda self: self._default_recipients(), takes_self=True),
        default_text="any while all listeners are on loopback or with capture, else existing",
        option="recipients",
        metavar="any|existing",
    )
    relay_from: tuple[IPv4Network | IPv6Network, ...] = attrs.field(
        default=_LOOPBACK,
        converter=read.networks,
        metadata=about(
            "network whose hosts may relay through us; loopback includes UNIX sockets",
            default_text="127.0.0.0/8 and ::1/128",
            option="relay-from",
            metavar="CIDR",
            repeatable=True,
        ),
    )
    routes: tuple[tuple[str, str], ...] = attrs.field(
        default=(),
        converter=routes,
        metadata=about(
            "next hop of a recipient's domain; PATTERN is example.net, .example.net or *, URL is"
            " smtp://host[:port], smtps://host[:port], lmtp://host:port or lmtp+unix:/path (several"
            " hosts separated by commas), maildir:, discard:, deliver:name (in an application) or"
            " error:5.1.1 text",
            default_text="the domain's mail exchangers",
            option="route",
            metavar="PATTERN=URL",
            repeatable=True,
        ),
    )
    aliases: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about("file of aliases, with lines such as root: ann, bob@example.org"),
    )
    virtual_domains: tuple[str, ...] = attrs.field(
        default=(),
        converter=read.domains,
        metadata=about("domains that have aliases and no mailboxes"),
    )
    relay_domains: tuple[str, ...] = attrs.field(
        default=(),
        converter=read.dns_names,
        metadata=about(
            "domains of others that all hosts may send to through us, as a backup mail exchanger"
            " does; aliases, accounts and mailboxes here are not for them"
        ),
    )
    relay_recipients: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "file of the addresses that exist in relay_domains, one a line, @DOMAIN for all of a"
            " domain; others are refused",
            default_text="all exist",
        ),
    )
    missing_members: Literal["notice", "refuse"] = setting(
        read.choice("notice", "refuse"),
        "mail for an alias with members that do not exist: the others get it, and the sender (or"
        " the alias owner-NAME, if there is one) a notice; or it is refused",
        default="notice",
    )
    srs_domain: str | None = setting(
        lambda value: None if value is None or value == read.OFF else read.domain(value),
        "our domain in the reverse-path of mail that aliases forward to other domains (SRS), so"
        " that notices come back here; off: reverse-paths stay",
        # Notices from elsewhere cannot find localhost or another name without a dot.
        default=attrs.Factory(lambda self: self._first_full_domain(), takes_self=True),
        default_text="the first local domain with a dot in it; off without one",
    )
    users: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.file),
        metadata=about(
            "file of accounts for AUTH, written by twisted-mta users add",
            option="users",
            metavar="FILE",
        ),
    )
    auth: CheckerSpec | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(checker_spec),
        metadata=about(
            "checker of twisted.cred for AUTH beside the file of accounts, such as"
            " file:/etc/mta/passwords",
            option="auth",
            metavar="SPEC",
            secret=True,
        ),
    )
    auth_failures_per_account: int = setting(
        read.number(0, 10**6),
        "failed AUTH commands of one account in auth_failure_period after which further ones are"
        " refused; 0: no limit",
        default=20,
    )
    auth_failures_per_address: int = setting(
        read.number(0, 10**6),
        "the same of one IPv4 address, or one /64 of IPv6",
        default=50,
    )
    auth_failure_period: float = attrs.field(
        default=600.0,
        converter=period,
        metadata=about("how long a failed AUTH command counts", default_text="10 min"),
    )
    auth_failure_delay: float = attrs.field(
        default=1.0,
        converter=duration,
        metadata=about(
            "delay of the reply to the first failed AUTH command of a session; doubled with each"
            " further one, up to 5 s",
            default_text="1 s",
        ),
    )
    local_submission_directory: str | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(read.directory),
        metadata=about(
            "directory where mail of all local users waits while the MTA is down; made with mode"
            " 3733, below one that they may search",
            default_text="maildrop in the state directory, for its owner and root",
        ),
    )
    # A queue id has six bits for the worker that made it.
    workers: int = setting(
        read.number(1, 64),
        "worker processes that share the listeners",
        default=1,
        option="workers",
        metavar="N",
    )
    # A message in memory holds small_body (64 KiB) at most: 1,024 of them at a time.
    message_memory: int = attrs.field(
        default=64 << 20,
        converter=size,
        metadata=about("memory for all messages being received", default_text="64 MiB"),
    )
    minimum_free_disk: int = attrs.field(
        default=attrs.Factory(lambda self: self._default_free_disk(), takes_self=True),
        converter=_free_disk,
        metadata=about(
            "free disk space below which mail is deferred; 0: no limit",
            default_text="3 times the largest max_message_size",
        ),
    )
    drain_timeout: float = attrs.field(
        default=10.0,
        converter=duration,
        metadata=about("how long open transactions may go on after a stop", default_text="10 s"),
    )
    queue: QueueSettings = attrs.field(factory=QueueSettings)
    delivery: DeliverySettings = attrs.field(factory=DeliverySettings)
    dns: DNSSettings = attrs.field(factory=DNSSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
    web_page: WebSettings = attrs.field(factory=WebSettings)
    policy: PolicySettings = attrs.field(factory=PolicySettings)
    mta_sts: MTASTSSettings = attrs.field(factory=MTASTSSettings)
    tls_report: TLSReportSettings | None = None
    greylist: GreylistSettings | None = None
    suppression: SuppressionSettings | None = None
    feedback: FeedbackSettings | None = None
    account_limits: AccountLimits = attrs.field(factory=AccountLimits)
    limits_of_accounts: tuple[AccountLimit, ...] = attrs.field(
        factory=tuple, converter=limits_of_accounts
    )
    acme: ACMESettings | None = None
    destinations: tuple[Destination, ...] = attrs.field(factory=tuple, converter=_destinations)
    source_pools: tuple[SourcePool, ...] = attrs.field(factory=tuple, converter=source_pools)
    reply_actions: tuple[ReplyAction, ...] = attrs.field(factory=tuple, converter=reply_actions)
    dkim_keys: tuple[DKIMKey, ...] = attrs.field(factory=tuple, converter=dkim_keys)
    dnsbl: tuple[DNSBL, ...] = attrs.field(factory=tuple, converter=dnsbls)
    milters: tuple[MilterSettings, ...] = attrs.field(factory=tuple, converter=milters)
    policy_services: tuple[PolicyServiceSettings, ...] = attrs.field(
        factory=tuple, converter=policy_services
    )
    webhooks: tuple[WebhookSettings, ...] = attrs.field(factory=tuple, converter=webhooks)

    def _default_free_disk(self) -> int:
        return 3 * max((listener.max_message_size for listener in self.listeners), default=50 << 20)

    def _first_full_domain(self) -> str | None:
        """Return the first local domain that hosts elsewhere may find: one with a dot."""
        return next((name for name in self.local_domains if "." in name and name[0] != "["), None)

    def _default_recipients(self) -> str:
        endpoints = (Endpoint.parse(listener.endpoint) for listener in self.listeners)
        return "any" if self.capture or all(each.on_loopback for each in endpoints) else "existing"

    def __attrs_post_init__(self) -> None:
        contradictions = list(self._contradictions())
        if contradictions:
            raise ConfigError(contradictions[0], [*map(ConfigError, contradictions[1:])])

    def _contradictions(self) -> Iterator[str]:
        try:
            self._destination_table.all()
        except ConfigError as error:
            yield str(error)
        yield from self._source_contradictions()
        if self.tls_key and not self.tls_certificate:
            yield (
                f"tls_key = {shown(self.tls_key)}: tls_certificate is missing;"
                " expected both or neither"
            )
        if not self.local_domains:
            # <postmaster> without a domain needs a mailbox (RFC 5321 §4.5.1).
            yield 'local_domains = []: expected at least one, such as ["mail.example.net"]'
        for name in self.virtual_domains:
            if name in self.local_domains:
                yield (
                    f"virtual_domains = {shown(self.virtual_domains)}: {name} is one of"
                    " local_domains too; expected it in one of the two"
                )
        if self.virtual_domains and self.aliases is None:
            yield (
                f"virtual_domains = {shown(self.virtual_domains)}: no aliases exist;"
                " expected aliases, the path of a file"
            )
        yield from self._relay_contradictions()
        if self.feedback is not None:
            domain = self.feedback.address.domain
            if domain not in (*self.local_domains, *self.virtual_domains):
                yield (
                    f"[feedback] address = {shown(str(self.feedback.address))}: {domain} is not"
                    " ours; expected an address in local_domains"
                )
        if self.acme is not None:
            yield from self._acme_contradictions(self.acme)
        if self.capture:
            yield from self._capture_contradictions()
        owners: dict[str, str] = {}
        for name, endpoint in self._endpoints():
            if Endpoint.parse(endpoint).port != "0" and endpoint in owners:
                yield (
                    f"{name} = {shown(endpoint)}: {owners[endpoint]} listens there;"
                    " expected another endpoint"
                )
            owners[endpoint] = name

    def _capture_contradictions(self) -> Iterator[str]:
        """Name the settings that give mail another way than into a Maildir."""
        for name, value in (
            ("routes", self.routes),
            ("relay_domains", self.relay_domains),
            ("aliases", self.aliases),
            ("virtual_domains", self.virtual_domains),
        ):
            if value:
                yield (
                    f"capture = true: found {name} too; expected none, since all mail goes into a"
                    " Maildir"
                )
        if self.recipients != "any":
            yield f'capture = true: found recipients = {shown(self.recipients)}; expected "any"'
        if self.workers != 1:
            yield f"capture = true: found workers = {self.workers}; expected 1"

    def _acme_contradictions(self, acme: ACMESettings) -> Iterator[str]:
        if self.tls_certificate is not None:
            yield (
                f"tls_certificate = {shown(self.tls_certificate)}: found [acme] too; expected one"
                " of them"
            )
        if not acme.names and (self.hostname.startswith("[") or self.hostname == "localhost"):
            yield (
                f"[acme] names: none are given, and the hostname is {shown(self.hostname)};"
                ' expected names that the authority can look up, such as ["mx.example.net"]'
            )

    @property
    def certificate_names(self) -> Sequence[str]:
        """The names of the certificate from the authority of ``[acme]``."""
        names = () if self.acme is None else self.acme.names
        return names or (self.hostname.lower().removesuffix("."),)

    def _source_contradictions(self) -> Iterator[str]:
        pools = [each.name for each in self.source_pools]
        users = [("[delivery]", self.delivery.source_pool)]
        users += [(f"[[destination]] {each.name},", each.source_pool) for each in self.destinations]
        for where, pool in users:
            if pool is not None and pool not in pools:
                yield (
                    f"{where} source_pool = {shown(pool)}: there is no such [[source_pool]];"
                    f" expected {', '.join(pools) or 'none'}"
                )
        if not pools:
            for each in self.reply_actions:
                if each.action == "other_source":
                    yield f"[[reply_action]] {each}: there is no [[source_pool]]; expected one"

    def _relay_contradictions(self) -> Iterator[str]:
        for name in self.relay_domains:
            for ours, names in (
                ("local_domains", self.local_domains),
                ("virtual_domains", self.virtual_domains),
                ("srs_domain", (self.srs_domain,)),
            ):
                if name in names:
                    yield (
                        f"relay_domains = {shown(self.relay_domains)}: {name} is ours by {ours};"
                        " expected it in one of the two"
                    )
                    break
        if self.relay_recipients is not None and not self.relay_domains:
            yield (
                f"relay_recipients = {shown(self.relay_recipients)}: there are no relay_domains;"
                " expected at least one"
            )

    def _endpoints(self) -> Sequence[tuple[str, str]]:
        """Return (name, endpoint string) of all listeners, the status page and [acme]."""
        endpoints: list[tuple[str, str]] = [
            (listener.kind, listener.endpoint) for listener in self.listeners
        ]
        if self.web:
            endpoints.append(("web", self.web))
        if self.acme is not None:
            endpoints.append(("[acme] endpoint", self.acme.endpoint))
        return endpoints

    @cached_property
    def _destination_table(self) -> DestinationTable:
        queue, delivery = self.queue, self.delivery
        defaults = Destination(
            domain="*",
            connections=queue.connections_per_hop,
            tls=delivery.tls,
            tls_memory=delivery.tls_memory,
            eight_bit_headers=delivery.eight_bit_headers,
            authorities=delivery.authorities if delivery.tls in VERIFYING else None,
            source_address=delivery.source_address,
            source_pool=delivery.source_pool,
            retry_minimum=queue.retry_minimum,
            retry_maximum=queue.retry_maximum,
            lifetime=queue.lifetime,
        )
        return DestinationTable(self.destinations, defaults, authorities=delivery.authorities)

    def destination_for(
        self, domain: str, hosts: tuple[Host, ...] = (), exchanger: str = ""
    ) -> Destination:
        """Return the complete settings for mail to ``domain``: see `DestinationTable.find`."""
        return self._destination_table.find(domain, hosts, exchanger)

    def exchanger_of(self, domain: str, host: str) -> str:
        """Return the ``exchanger`` of the destination that has the mail exchanger of a domain.

        Empty: none has it, or another destination has the domain.
        """
        table = self._destination_table
        pattern = table.by_exchanger(host) if table.has_exchangers else ""
        return pattern if table.find(domain, (), pattern).exchanger == pattern else ""

    @property
    def all_destinations(self) -> Sequence[Destination]:
        """Each destination, complete; the last is that of all other domains."""
        return self._destination_table.all()

    @property
    def helo(self) -> str:
        """Our name in EHLO to other hosts."""
        return self.delivery.helo or self.hostname

    @property
    def authserv_id(self) -> str:
        """Our name in Authentication-Results (RFC 8601 §2.5)."""
        return self.policy.authserv_id or self.hostname

    @property
    def report_from(self) -> Mailbox:
        """The author of the reports that we send."""
        domain = self._first_full_domain() or self.local_domains[0]
        return self.policy.report_from or Mailbox("postmaster", domain)

    @property
    def organization(self) -> str:
        """Our name in the reports that we send."""
        return self.policy.organization or self.report_from.domain
