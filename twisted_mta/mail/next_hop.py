"""Where mail goes next: a next hop, its hosts, and the targets that they resolve to."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from attrs import Factory, evolve, field, frozen

from .reply import Reply


@frozen(cache_hash=True)
class Host:
    """A host that a route names.

    Attributes:
        name: a domain name; an IPv4 or IPv6 address without brackets; or the path of a UNIX socket,
            which begins with ``/``.
        port: TCP port; without meaning for a UNIX socket.
    """

    name: str
    port: int = 25

    def __str__(self) -> str:
        if self.name.startswith("/"):
            return self.name
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name}:{self.port}"


@frozen
class Target:
    """One address and port to connect to; a next hop resolves to a sequence of them.

    Attributes:
        name: the host's name, for certificates, SNI and logs; the address if it has none.
        address: an IPv4 or IPv6 address as text, or the path of a UNIX socket (``name`` too then).
        port: TCP port.
        equal: Whether other hosts of the next hop have the same preference (RFC 5321 §5.1).
        secure: whether DNSSEC proves the way from the next hop to one of ``tlsa_bases``: the MX
            records, where there are any, and the address of the host, or its alias.
        tlsa_bases: the names below which TLSA records of the host may stand, in the order to look
            them up (RFC 7672 §2.2.3); empty: DNSSEC proves nothing of the host.
        next_hop_names: the domain whose exchanger it is, and the end of its aliases, where DNSSEC
            proves that: names that a certificate may have as well (RFC 7672 §3.2.2).
    """

    name: str
    address: str
    port: int
    equal: bool = field(default=False, eq=False, repr=False)
    secure: bool = field(default=False, eq=False, repr=False)
    tlsa_bases: tuple[str, ...] = field(default=(), eq=False, repr=False)
    next_hop_names: tuple[str, ...] = field(default=(), eq=False, repr=False)

    def __str__(self) -> str:
        if self.address.startswith("/"):
            return self.address
        return f"{self.name}[{self.address}]:{self.port}"


_DELIVERY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_delivery_name(name: object) -> bool:
    """Whether an application's own delivery may have a name: letters, digits, hyphens, ``_``."""
    return isinstance(name, str) and _DELIVERY_NAME.fullmatch(name) is not None


Transport = Literal["smtp", "lmtp", "deliver", "maildir", "discard", "error"]
"""How a next hop takes mail."""


@frozen(cache_hash=True)  # a key of five look-ups for each message
class NextHop:
    """A destination that mail is relayed or delivered to.

    Recipients with equal next hops share transactions, delivery slots and suspensions.

    Attributes:
        transport: how the next hop takes mail.
        hosts: the hosts, in the order to try them; empty: the exchangers of ``domain``.
        domain: the domain whose exchangers to look up; empty where ``hosts`` are given.
        reply: the reply of an ``error`` route; None for every other transport.
        implicit_tls: Whether TLS begins with the first octet (``smtps:``).
        delivery: the name of the application's own delivery (``deliver:``); empty for every other
            transport.
        destination: the pattern of the ``[[destination]]`` in force, where a route names hosts and
            the domains sent there have different settings: a limit of one domain then does not
            delay the others. Empty: the settings for all domains.
        exchanger: the ``exchanger`` of the ``[[destination]]`` in force, where the exchangers of
            ``domain`` are known to be below it; empty: there is none, or they are not known.
        tls_optional: whether it is for mail with ``TLS-Required: No`` (RFC 8689 §3), which has its
            own limits and suspension: such mail goes where the TLS is at fault for other mail.
        rule: the routing rule that chose this next hop, for people; no part of its identity.
    """

    transport: Transport
    hosts: tuple[Host, ...] = ()
    domain: str = ""
    reply: Reply | None = None
    implicit_tls: bool = False
    delivery: str = ""
    destination: str = ""
    exchanger: str = ""
    tls_optional: bool = False
    rule: str = field(default="", eq=False)
    # Kept, since it is written several times for each message. It is no `cached_property`: with
    # slots, a class that has one gets a `__getattr__`, by which each read of a field takes longer.
    _name: str = field(
        default=Factory(lambda self: self._written(), takes_self=True),
        init=False,
        eq=False,
        repr=False,
    )

    def __str__(self) -> str:
        return self._name

    def _written(self) -> str:
        if self.transport in ("smtp", "lmtp"):
            scheme = "smtps" if self.implicit_tls else self.transport
            hosts = ",".join(map(str, self.hosts))
            return f"{scheme}:{hosts or self.domain or f'exchanger={self.exchanger}'}"
        if self.transport == "deliver":
            return f"deliver:{self.delivery}"
        return self.transport

    def for_mail(self, *, tls_optional: bool) -> NextHop:
        """Return this next hop for mail with ``TLS-Required: No``, or for other mail."""
        if self.tls_optional is tls_optional or not self.remote:
            return self
        return evolve(self, tls_optional=tls_optional)

    @property
    def shared(self) -> NextHop:
        """The next hop whose limits and suspension are its own: itself, or that of its exchangers.

        All domains with exchangers of one ``[[destination]]`` share one.
        """
        if not self.exchanger:
            return self
        return _of_exchangers(self.transport, self.exchanger, self.tls_optional)

    @property
    def limit_name(self) -> tuple[str, ...]:
        """The name of the next hop in limits, the same in all processes and machines.

        A destination has limits of its own.
        """
        shared = self.shared
        return (str(shared), shared.destination) if shared.destination else (str(shared),)

    @property
    def remote(self) -> bool:
        """Whether mail leaves for another program, by SMTP or LMTP."""
        return self.transport in ("smtp", "lmtp")

    @property
    def limited(self) -> bool:
        """Whether its transactions are limited in number, and it can be suspended.

        This is so wherever a transaction may wait for something outside of the program.
        """
        return self.transport in ("smtp", "lmtp", "deliver")


@lru_cache(maxsize=1000)
def _of_exchangers(transport: Transport, exchanger: str, tls_optional: bool) -> NextHop:
    return NextHop(transport, exchanger=exchanger, tls_optional=tls_optional)
