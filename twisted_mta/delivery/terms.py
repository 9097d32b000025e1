"""The terms of connections to a next hop: TLS, credentials, source addresses and dialect.

Connections are shared between messages whose terms are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from attrs import evolve, field, frozen

from ..config import Destination
from ..config.destination import token_account
from ..config.token_account import TokenAccount, TokenGrant
from ..mail.address import literal_address
from ..mail.envelope import Recipient
from ..mail.message import Message
from ..mail.next_hop import Host, NextHop, Target
from ..mail.printable import printable
from ..mail.tls_policy import TLSLevel, TLSPolicy, TLSSetting
from ..smtp.client.step import Dialect
from ..smtp.sasl.client import Credentials
from ..system.work import Work
from ..tls.client import ClientContexts, ClientTLS, LoadedContext, under_mta_sts
from .credentials import LoadedCredentials, load_credentials

Wish = Literal["", "required", "preferred", "optional"]
"""What the sender demands of the TLS (RFC 8689): REQUIRETLS, which is preferred of a notice, or
``TLS-Required: No``."""

DestinationFor = Callable[[str, tuple[Host, ...], str], Destination]
"""Returns the settings for a recipient's domain, the hosts of a route, and the group of the
exchangers: `Config.destination_for`."""


@frozen(kw_only=True, cache_hash=True)
class Terms:
    """The properties of a connection.

    Attributes:
        level: the TLS that the configuration demands.
        least: the level below which nothing found in the network may lead.
        tls: the files and checks of that TLS.
        verifying: the same where the certificate must be verified, though the configuration alone
            does not demand it.
        wish: what the sender of the message demands of the TLS; empty: nothing.
        implicit_tls: whether TLS begins with the first octet (RFC 8314), without STARTTLS.
        require_memory: whether a host that is known to do TLS must do it again.
        credentials: our account, with its password or the source of its tokens; None: no AUTH.
        source_addresses: addresses to connect from, one of each family at most.
        source_pool: name of the pool that ``source_addresses`` are chosen from for each message;
            then it never leaves from another address. Empty: there is none.
        helos: our names in EHLO by source address, where they have one of their own.
        dialect: SMTP or LMTP.
        messages: transactions after which it is closed.
        raw_headers: whether header fields with octets over 127 go as they are to a server without
            8BITMIME; else the message fails.
    """

    level: TLSSetting = "may"
    least: TLSLevel = "none"
    tls: ClientTLS = field(factory=ClientTLS)
    verifying: ClientTLS = field(default=ClientTLS(verify=True))
    wish: Wish = ""
    implicit_tls: bool = False
    require_memory: bool = False
    credentials: Credentials | TokenAccount | None = None
    source_addresses: tuple[str, ...] = ()
    source_pool: str = ""
    helos: tuple[tuple[str, str], ...] = ()
    dialect: Dialect = "smtp"
    messages: int = 100
    raw_headers: bool = False

    def source(self, target: Target) -> str | None:
        """Return the address to connect to a target from, of its family; None: any."""
        if target.address.startswith("/"):
            return None
        version = 6 if ":" in target.address else 4
        return next((each for each in self.source_addresses if _version(each) == version), None)

    def helo(self, target: Target) -> str | None:
        """Return our name in EHLO to a target; None: the general one."""
        return dict(self.helos).get(self.source(target) or "")

    def reaches(self, target: Target) -> bool:
        """Whether there is a source address for a target."""
        is_free = not self.source_pool or target.address.startswith("/")
        return is_free or self.source(target) is not None

    def tls_under(self, policy: TLSPolicy) -> ClientTLS:
        """Return the files and checks of a connection that must have the TLS of ``policy``."""
        if policy.level == "verify":
            return self.verifying
        # Whether the server is verified matters to REQUIRETLS alone.
        noted = self.wish == "preferred" and policy.level != "dane"
        return evolve(self.verifying, noted=True) if noted else self.tls


def _version(address: str) -> int:
    return 6 if ":" in address else 4


HostTerms = tuple[Terms, ...]
"""The terms with a next hop: one for each of its hosts in their order, or the only ones for all
exchangers of a domain."""


@frozen
class LoadedTerms:
    """The contents of the files that all destinations name.

    Attributes:
        contexts: the TLS contexts.
        credentials: accounts and passwords, by the destination's pattern.
        warnings: lines for the log, printable.
    """

    contexts: Mapping[ClientTLS, LoadedContext]
    credentials: Mapping[str, LoadedCredentials]
    warnings: tuple[str, ...] = ()

    def date_warnings(self, now: float) -> list[str]:
        """Return a line for each certificate of ours that is not valid, or soon will not be.

        Args:
            now: seconds since the epoch.
        """
        keys = [each.key for each in self.contexts.values() if each.key is not None]
        return list(dict.fromkeys(warning for key in keys for warning in key.warnings(now)))


def load_terms(
    contexts: ClientContexts,
    destinations: Iterable[Destination],
    *,
    mta_sts_authorities: str | None = None,
) -> Work[LoadedTerms]:
    """Read the files of all destinations, without any effect.

    Args:
        contexts: makes TLS contexts.
        destinations: each complete (`Config.all_destinations`).
        mta_sts_authorities: the path of the PEM file with the authorities of hosts under MTA-STS;
            None: those of the system.

    Raises:
        CertificateError: a certificate, key or authority cannot be used.
        ConfigError: a password file cannot be used.
    """
    credentials = {}
    settings = []
    for destination in destinations:
        yield
        loaded = load_credentials(destination)
        if loaded is not None:
            credentials[destination.name] = loaded
        tls = client_tls(destination)
        account = token_account(destination)
        if account is not None and isinstance(account.source, TokenGrant):
            settings.append(ClientTLS(verify=True, authorities=account.source.authorities))
        settings += [
            tls,
            verifying_tls(destination),
            evolve(verifying_tls(destination), noted=True),
            under_mta_sts(tls, mta_sts_authorities, testing=False),
            under_mta_sts(tls, mta_sts_authorities, testing=True),
        ]
    # The authorities of the system alone are read when a connection needs them.
    settings = [each for each in settings if each.files or each.verify is False]
    loaded_contexts = yield from contexts.load(settings)
    return LoadedTerms(
        loaded_contexts,
        credentials,
        tuple(warning for each in credentials.values() for warning in each.warnings),
    )


def client_tls(destination: Destination) -> ClientTLS:
    """Return the TLS settings of a destination."""
    verify = destination.tls == "verify"
    return ClientTLS(
        verify=verify,
        authorities=destination.authorities if verify else None,
        certificate=destination.client_certificate,
        key=destination.client_key,
    )


def verifying_tls(destination: Destination) -> ClientTLS:
    """Return the TLS settings of a destination where its certificate must be verified."""
    return evolve(client_tls(destination), verify=True, authorities=destination.authorities)


class RecipientGroup(NamedTuple):
    """Recipients of a message that one transaction serves: the terms are the same for all.

    Attributes:
        recipients: in the order of the envelope.
        host_terms: the terms with the next hop.
    """

    recipients: tuple[Recipient, ...]
    host_terms: HostTerms


_REMEMBERED = 1000  # domains whose terms are not looked up for each message


class TermsBook:
    """Looks up the terms of deliveries.

    Args:
        destination_for: the settings by domain and hosts.
        credentials: accounts and passwords, by the destination's pattern.
    """

    def __init__(
        self,
        destination_for: DestinationFor,
        credentials: Mapping[str, LoadedCredentials] | None = None,
    ) -> None:
        self._destination_for = destination_for
        self._credentials = credentials or {}
        self._terms: dict[tuple[str, str, bool, bool], Terms] = {}
        self._of_domain = lru_cache(maxsize=_REMEMBERED)(self._find)

    @property
    def token_accounts(self) -> Sequence[TokenAccount]:
        """The accounts that log in with tokens."""
        accounts = (each.credentials for each in self._credentials.values())
        return [each for each in accounts if isinstance(each, TokenAccount)]

    def changes(self, before: TermsBook) -> list[str]:
        """Return a line for each file of a password that has changed, printable."""
        return [
            f"{printable(new.file)}: a new password for the account"
            f" {printable(new.credentials.username)} ([[destination]] {printable(domain)})"
            for domain, new in self._credentials.items()
            if (old := before._credentials.get(domain)) is not None
            and old.file == new.file != ""
            and old.credentials != new.credentials
        ]

    def host_terms(self, next_hop: NextHop, domain: str) -> HostTerms:
        """Return the terms with ``next_hop`` for mail to ``domain``."""
        return self._of_domain(next_hop, domain)

    def _find(self, next_hop: NextHop, domain: str) -> HostTerms:
        hosts: Sequence[Host] = next_hop.hosts
        if not hosts:
            destination = self._destination_for(domain, (), next_hop.exchanger)
            return (self._terms_of(next_hop, destination, False),)
        return tuple(
            self._terms_of(
                next_hop, self._destination_for(domain, (host,), ""), host.name.startswith("/")
            )
            for host in hosts
        )

    def groups(self, next_hop: NextHop, message: Message) -> list[RecipientGroup]:
        """Divide the recipients of ``message`` by their terms, in the order of the envelope."""
        recipients = message.envelope.recipients
        if len(recipients) == 1:
            host_terms = self.host_terms(next_hop, recipients[0].mailbox.domain)
            return [RecipientGroup(recipients, host_terms)]
        domains = dict.fromkeys(recipient.mailbox.domain for recipient in recipients)
        by_domain = {domain: self.host_terms(next_hop, domain) for domain in domains}
        distinct = dict.fromkeys(by_domain.values())
        if len(distinct) == 1:
            return [RecipientGroup(recipients, next(iter(distinct)))]
        return [
            RecipientGroup(
                tuple(each for each in recipients if by_domain[each.mailbox.domain] == host_terms),
                host_terms,
            )
            for host_terms in distinct
        ]

    def _terms_of(self, next_hop: NextHop, destination: Destination, local: bool) -> Terms:
        # No two destinations have one pattern.
        key = destination.name, next_hop.transport, next_hop.implicit_tls, local
        terms = self._terms.get(key)
        if terms is None:
            terms = self._terms[key] = self._make(next_hop, destination, local)
        return terms

    def _make(self, next_hop: NextHop, destination: Destination, local: bool) -> Terms:
        credentials = None
        if destination.username is not None:
            # A KeyError is right where they were not loaded: mail is not sent without AUTH.
            credentials = self._credentials[destination.name].credentials
        level: TLSSetting = destination.tls or "auto"
        least: TLSLevel = "none"
        if local:
            level = "none"  # a UNIX socket does not leave this machine
        elif next_hop.implicit_tls or credentials:
            # A password is proved by challenge and response where both can; a token is handed over.
            least = "verify" if isinstance(credentials, TokenAccount) else "encrypt"
            level = "encrypt" if level in ("none", "may") else level
        return Terms(
            level=level,
            least=least,
            tls=client_tls(destination) if level != "none" else ClientTLS(),
            verifying=verifying_tls(destination),
            implicit_tls=next_hop.implicit_tls,
            require_memory=destination.tls_memory == "require",
            credentials=credentials,
            source_addresses=destination.source_address or (),
            source_pool=destination.source_pool or "",
            dialect="lmtp" if next_hop.transport == "lmtp" else "smtp",
            messages=destination.messages_per_connection,
            raw_headers=destination.eight_bit_headers == "send",
        )


def terms_for(target: Target, next_hop: NextHop, host_terms: HostTerms) -> Terms:
    """Return the terms with ``target``: those of the host that it is an address of."""
    if len(host_terms) > 1:
        for host, terms in zip(next_hop.hosts, host_terms, strict=True):
            name = literal_address(host.name) or host.name
            if name == target.name and (host.port == target.port or name.startswith("/")):
                return terms
    return host_terms[0]
