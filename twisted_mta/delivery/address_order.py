"""Order the addresses of one host: by RFC 6724, then the two families alternating (RFC 8305 §4)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import groupby
from typing import TypeAlias

from attrs import frozen

from ..mail.next_hop import Target

SourceOf = Callable[[str], str | None]
"""Returns the source address of a connection to an address, None where it is unreachable."""

Address: TypeAlias = IPv4Address | IPv6Address

# RFC 6724 §2.1: prefix, precedence, label; the longest matching prefix counts.
_POLICY: tuple[tuple[IPv6Network, int, int], ...] = tuple(
    sorted(
        (
            (IPv6Network(prefix), precedence, label)
            for prefix, precedence, label in (
                ("::1/128", 50, 0),
                ("::/0", 40, 1),
                ("::ffff:0:0/96", 35, 4),
                ("2002::/16", 30, 2),
                ("2001::/32", 5, 5),
                ("fc00::/7", 3, 13),
                ("::/96", 1, 3),
                ("fec0::/10", 1, 11),
                ("3ffe::/16", 1, 12),
            )
        ),
        key=lambda row: -row[0].prefixlen,
    )
)
_SITE_LOCAL = ip_network("fec0::/10")
_LINK_LOCAL, _SITE, _GLOBAL = 2, 5, 14  # RFC 6724 §3.1: the scopes of multicast addresses


def in_order(addresses: Sequence[str], source_of: SourceOf | None = None) -> list[str]:
    """Return the addresses of one host in the order to try them.

    Sorted by RFC 6724 §6 without the rules that only a kernel can apply; then the families
    alternate, beginning with that of the best address (RFC 8305 §4). Loopback addresses keep their
    order.

    Args:
        addresses: IPv4 and IPv6, as text.
        source_of: without it, only precedence and scope decide.
    """
    if len(addresses) < 2:
        return list(addresses)
    parsed = [ip_address(address.partition("%")[0]) for address in addresses]
    if all(each.is_loopback for each in parsed):
        return list(addresses)
    places = sorted(
        range(len(addresses)),
        key=lambda place: _rank(
            parsed[place], source_of(addresses[place]) if source_of else addresses[place]
        ),
    )
    best = parsed[places[0]].version
    first = [addresses[place] for place in places if parsed[place].version == best]
    second = [addresses[place] for place in places if parsed[place].version != best]
    ordered = []
    for number in range(max(len(first), len(second))):
        ordered += first[number : number + 1] + second[number : number + 1]
    return ordered


@frozen(order=True)
class _Rank:
    """The rules of RFC 6724 §6 in their order; the smallest rank is tried first.

    Rules 3, 4 and 7 need facts that only the kernel has. Rule 9 defeats load balancing by DNS
    (RFC 6724 §10.3), so equals keep their order.
    """

    unusable: bool  # rule 1
    other_scope: bool  # rule 2
    other_label: bool  # rule 5
    precedence: int  # rule 6, negative: the higher the better
    scope: int  # rule 8


def _rank(destination: Address, source: str | None) -> _Rank:
    precedence, label = _policy(destination)
    scope = _scope(destination)
    if source is None:
        return _Rank(True, False, False, -precedence, scope)
    ours = ip_address(source.partition("%")[0])
    return _Rank(False, _scope(ours) != scope, _policy(ours)[1] != label, -precedence, scope)


def _policy(address: Address) -> tuple[int, int]:
    mapped = address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")
    for network, precedence, label in _POLICY:
        if mapped in network:
            return precedence, label
    raise AssertionError("::/0 has all addresses")


def _scope(address: Address) -> int:
    if address.is_link_local or address.is_loopback:
        return _LINK_LOCAL  # RFC 6724 §3.1, §3.2: 169.254/16 and 127/8 too
    return _SITE if address in _SITE_LOCAL else _GLOBAL


def kernel_source(address: str) -> str | None:
    """Return the source address that the kernel selects (`SourceOf`); nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            probe.connect((address, 25))
            return str(probe.getsockname()[0])
    except (OSError, ValueError):
        return None


def in_order_of_hosts(
    targets: Iterable[Target], source_of: SourceOf | None = None
) -> Iterator[Target]:
    """Yield targets in the order of their hosts, the addresses of each host by `in_order`."""
    for _, group in groupby(targets, key=lambda target: (target.name, target.port)):
        of_host = {target.address: target for target in group}
        if len(of_host) == 1:
            yield from of_host.values()
        else:
            for address in in_order(list(of_host), source_of):
                yield of_host[address]
