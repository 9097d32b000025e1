"""On which terms we talk to a next hop: connections are shared where these are equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import field, frozen

from ..config import Destination
from ..mail.address import literal_address
from ..mail.envelope import Recipient
from ..mail.message import Message
from ..mail.next_hop import Host, NextHop, Target
from ..smtp.client.step import Dialect, TLSLevel
from ..smtp.sasl.client import Credentials
from ..system.slices import Work
from ..tls.client import ClientContexts, ClientTLS, Loaded
from .credentials import LoadedCredentials, load_credentials

DestinationFor = Callable[[str, tuple[Host, ...]], Destination]
"""Says what holds for a recipient's domain and the hosts of a route: `Config.destination_for`."""


@frozen(kw_only=True, cache_hash=True)
class Terms:
    """What a connection must have and be like.

    Attributes:
        level: what TLS it must have.
        tls: how that TLS is.
        implicit_tls: whether it begins with the first octet.
        require_memory: whether TLS that was had before has to be had again.
        credentials: who we are there.
        source_addresses: where to connect from, one of each family at most.
        dialect: what is spoken.
        messages: transactions after which it is closed.
    """

    level: TLSLevel = "may"
    tls: ClientTLS = field(factory=ClientTLS)
    implicit_tls: bool = False
    require_memory: bool = False
    credentials: Credentials | None = None
    source_addresses: tuple[str, ...] = ()
    dialect: Dialect = "smtp"
    messages: int = 100


@frozen
class Prepared:
    """What the files of all destinations held.

    Attributes:
        contexts: for TLS.
        credentials: by the destination's pattern.
        warnings: lines for the log, printable.
    """

    contexts: Mapping[ClientTLS, Loaded]
    credentials: Mapping[str, LoadedCredentials]
    warnings: tuple[str, ...] = ()

    def date_warnings(self, now: float) -> list[str]:
        """Return what is wrong with the dates of certificates of ours at ``now`` (wall time)."""
        keys = [each.key for each in self.contexts.values() if each.key is not None]
        return list(dict.fromkeys(warning for key in keys for warning in key.warnings(now)))


def preparing(contexts: ClientContexts, destinations: Iterable[Destination]) -> Work[Prepared]:
    """Read the files of all destinations, without any effect.

    Args:
        contexts: what makes TLS contexts.
        destinations: each complete (`Config.all_destinations`).

    Raises:
        CertificateError: a certificate, key or authority cannot be used.
        ConfigError: a password file cannot.
    """
    credentials = {}
    wanted = []
    for destination in destinations:
        yield
        loaded = load_credentials(destination)
        if loaded is not None:
            credentials[destination.domain] = loaded
        wanted.append(client_tls(destination))
    prepared = yield from contexts.preparing(wanted)
    return Prepared(
        prepared,
        credentials,
        tuple(warning for each in credentials.values() for warning in each.warnings),
    )


def client_tls(destination: Destination) -> ClientTLS:
    """Return how the TLS of a destination is."""
    verify = destination.tls == "verify"
    return ClientTLS(
        verify=verify,
        authorities=destination.authorities if verify else None,
        certificate=destination.client_certificate,
        key=destination.client_key,
    )


@frozen
class Part:
    """Recipients of one next hop who are served on the same terms.

    Attributes:
        recipients: those of the message; all of them where `whole`.
        ways: the terms for each host of the next hop in their order, or the one for whatever mail
            exchangers it has.
        whole: whether it is the whole message.
    """

    recipients: tuple[Recipient, ...]
    ways: tuple[Terms, ...]
    whole: bool = True


class TermsBook:
    """Looks up terms.

    Args:
        destination_for: what holds where.
        credentials: what the password files held, by the destination's pattern.
    """

    def __init__(
        self,
        destination_for: DestinationFor,
        credentials: Mapping[str, LoadedCredentials] | None = None,
    ) -> None:
        self._destination_for = destination_for
        self._credentials = credentials or {}
        self._terms: dict[tuple[str, str, bool, bool], Terms] = {}

    def ways(self, next_hop: NextHop, domain: str) -> tuple[Terms, ...]:
        """Return the terms for mail to ``domain`` by ``next_hop``, as `Part` has them."""
        hosts: Sequence[Host] = next_hop.hosts
        if not hosts:
            return (self._of(next_hop, self._destination_for(domain, ()), False),)
        return tuple(
            self._of(next_hop, self._destination_for(domain, (host,)), host.name.startswith("/"))
            for host in hosts
        )

    def parts(self, next_hop: NextHop, message: Message) -> list[Part]:
        """Return who is served on which terms, in the order of the envelope."""
        recipients = message.envelope.recipients
        domains = dict.fromkeys(recipient.mailbox.domain for recipient in recipients)
        by_domain = {domain: self.ways(next_hop, domain) for domain in domains}
        kinds = dict.fromkeys(by_domain.values())
        if len(kinds) == 1:
            return [Part(recipients, next(iter(kinds)))]
        return [
            Part(
                tuple(each for each in recipients if by_domain[each.mailbox.domain] == ways),
                ways,
                False,
            )
            for ways in kinds
        ]

    def _of(self, next_hop: NextHop, destination: Destination, local: bool) -> Terms:
        # No two destinations have one pattern.
        key = destination.domain, next_hop.transport, next_hop.implicit_tls, local
        terms = self._terms.get(key)
        if terms is None:
            terms = self._terms[key] = self._make(next_hop, destination, local)
        return terms

    def _make(self, next_hop: NextHop, destination: Destination, local: bool) -> Terms:
        credentials = None
        if destination.username is not None:
            # KeyError: nobody read it. To go on without would be to speak as somebody else.
            credentials = self._credentials[destination.domain].credentials
        level: TLSLevel = destination.tls or "may"
        if local:
            level = "none"  # nobody is between us and a socket of this machine
        elif (next_hop.implicit_tls or credentials) and level in ("none", "may"):
            level = "encrypt"
        return Terms(
            level=level,
            tls=client_tls(destination) if level != "none" else ClientTLS(),
            implicit_tls=next_hop.implicit_tls,
            require_memory=destination.tls_memory == "require",
            credentials=credentials,
            source_addresses=destination.source_address or (),
            dialect="lmtp" if next_hop.transport == "lmtp" else "smtp",
            messages=destination.messages_per_connection,
        )


def way_to(target: Target, next_hop: NextHop, ways: tuple[Terms, ...]) -> Terms:
    """Return the terms for ``target``: those of the host that it belongs to."""
    if len(ways) > 1:
        for host, terms in zip(next_hop.hosts, ways, strict=True):
            name = literal_address(host.name) or host.name
            if name == target.name and (host.port == target.port or name.startswith("/")):
                return terms
    return ways[0]
