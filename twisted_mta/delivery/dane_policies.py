"""Find the TLSA records of a host, and the TLS that they demand (RFC 7672 §2.2)."""

from __future__ import annotations

from collections import OrderedDict

from ..dns import LookupFailed, NoSuchDomain
from ..interfaces import Resolver, WallTime
from ..mail.next_hop import NextHop, Target
from ..mail.printable import printable
from ..mail.tls_policy import TLSPolicy
from ..mail.tlsa import TLSA
from ..tls import dane

_MOST_KNOWN = 10_000  # names whose records are remembered


class DANEPolicies:
    """Looks up what hosts publish by DANE.

    Args:
        resolver: the DNS.
        wall_time: seconds since the epoch.
    """

    def __init__(self, resolver: Resolver, wall_time: WallTime) -> None:
        self._resolver = resolver
        self._wall_time = wall_time
        # The records of each name, and since when this process has seen them.
        self._known: OrderedDict[str, tuple[tuple[TLSA, ...], float]] = OrderedDict()

    async def find(self, next_hop: NextHop, target: Target) -> TLSPolicy | str:
        """Return the policy of a host, or, as a text for people, why it has none.

        A policy without usable records is of level ``encrypt`` (RFC 7672 §2.2). A look-up that
        fails is a policy with a problem: it may be the work of an attacker (§2.1.2).

        Args:
            next_hop: that the host belongs to.
            target: one of the addresses of the host.
        """
        names = [f"_{target.port}._tcp.{base}" for base in target.tlsa_bases]
        if not names:
            # RFC 7672 §2.2.2: TLSA records are looked up below secure addresses alone. Many name
            # servers of zones that are not signed answer such queries badly.
            return f"DNSSEC does not prove the address of {printable(target.name)}"
        for base, name in zip(target.tlsa_bases, names, strict=True):
            try:
                found = await self._resolver.tlsa(name)
            except NoSuchDomain:
                continue
            except LookupFailed as failure:
                return TLSPolicy(
                    level="dane",
                    source=f"DANE: {name}",
                    problem=f"its TLSA records cannot be looked up: {printable(str(failure))}",
                    kind="tlsa",
                    domain=base,
                    trouble="dnssec-invalid",
                )
            if found.secure and found.records:
                return self._policy(next_hop, target, base, name, found.records)
        return f"it has no TLSA record that DNSSEC proves: {' and '.join(map(printable, names))}"

    def _policy(
        self,
        next_hop: NextHop,
        target: Target,
        base: str,
        name: str,
        records: tuple[TLSA, ...],
    ) -> TLSPolicy:
        since = self._since(name, records)
        usable = dane.usable(records)
        strings = tuple(each.text for each in records)
        if not usable:
            # RFC 7672 §2.2: the operator there has TLS, and it cannot be verified.
            return TLSPolicy(
                level="encrypt",
                source=f"DANE: {name}, no usable TLSA record",
                since=since,
                kind="tlsa",
                domain=base,
                strings=strings,
                trouble="tlsa-invalid",
                trouble_reason="none of its TLSA records is usable",
            )
        return TLSPolicy(
            level="dane",
            source=f"DANE: {name}" + ("" if target.secure else ", MX records not secure"),
            since=since,
            server_name=base,  # RFC 7672 §8.1
            tlsa=usable,
            names=_names(next_hop, target, base),
            unproven_host=not target.secure,
            kind="tlsa",
            domain=base,
            strings=strings,
        )

    def _since(self, name: str, records: tuple[TLSA, ...]) -> float:
        """Return since when these records are seen here."""
        content = tuple(sorted(records, key=lambda each: (each.usage, each.selector, each.data)))
        known = self._known.get(name)
        since = known[1] if known is not None and known[0] == content else self._wall_time()
        self._known[name] = content, since
        self._known.move_to_end(name)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return since


def _names(next_hop: NextHop, target: Target, base: str) -> tuple[str, ...]:
    """Return the names one of which a certificate must have, with usage DANE-TA.

    RFC 7672 §3.2.2: the TLSA base domain and, where DNSSEC proves the way from it, the domain of
    the mail; of a host that no MX record names, the names before and after its aliases.
    """
    names = [base, *target.next_hop_names]
    if next_hop.hosts or target.name == next_hop.domain:
        names += target.tlsa_bases
    return tuple(dict.fromkeys(names))
