"""What is special about some next hops, or about mail for some domains: ``[[destination]]``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Any, Literal

import attrs
from attrs import evolve, frozen

from ..mail.address import AddressError, domain_name
from ..mail.next_hop import Host
from ..mail.printable import printable
from . import setting as read
from .setting import ConfigError, setting, shown

_FILE = read.path("file")

TLS = read.choice("none", "may", "encrypt", "verify", not_built=("dane", "mta-sts"))
"""Reads what TLS a next hop must show."""

MEMORY = read.choice("alarm", "require")
"""Reads what the lack of TLS means where there was some before."""


@frozen
class Rate:
    """So many messages in so much time.

    Attributes:
        messages: how many.
        period: seconds.
    """

    messages: int
    period: float

    @property
    def interval(self) -> float:
        """Seconds from one message to the next, where they are spread evenly."""
        return self.period / self.messages

    def __str__(self) -> str:
        units = {seconds: unit for unit, seconds in _UNITS.items()}
        return f"{self.messages}/{units.get(self.period) or read.duration_text(self.period)}"


_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86400.0}
_RATE = re.compile(r"\s*([0-9]{1,9})\s*/\s*(s|sec|second|min|minute|h|hour|d|day)\s*")
_UNIT_NAMES = {
    **_UNITS,
    "sec": 1.0,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "d": 86400.0,
}


def rate(value: Any) -> Rate:
    """Return how many messages may go in how much time; ``"100/min"`` is a rate."""
    if isinstance(value, Rate):
        return value
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if not found or not int(found[1]):
        raise ValueError('not a rate; "10/s", "100/min", "1000/h" or "5000/day" would do')
    return Rate(int(found[1]), _UNIT_NAMES[found[2]])


def source_addresses(value: Any) -> tuple[str, ...]:
    """Return addresses to connect from, of one or of a list: one of each family at most."""
    if isinstance(value, str):
        value = [value]
    addresses: tuple[str, ...] = read.several(read.address, "addresses")(value)
    families = [ip_address(each).version for each in addresses]
    for family in (4, 6):
        if families.count(family) > 1:
            raise ValueError(f"two addresses of IPv{family}; one of each family would do")
    return addresses


_REMEMBERED = 4096  # answers

_EXAMPLES = "example.net, .example.net, * or relay.example.net:587 would do"
_PORT = re.compile(r"(.+):([0-9]{1,5})")


def pattern(value: Any) -> str:
    """Return the canonical form of what a destination is for.

    ``example.net``, ``.example.net``, ``*``; a next hop as ``host``, ``host:port`` or the path of a
    UNIX socket.
    """
    written: str = read.text("a domain, .domain, * or a next hop")(value).strip()
    if written == "*" or written.startswith("/"):
        return written
    dot, name = (".", written[1:]) if written.startswith(".") else ("", written)
    with_port = None if dot else _PORT.fullmatch(name)
    try:
        if with_port and not name.endswith("]"):
            port = read.number(1, 65535)(with_port[2])
            return str(Host(_host_name(with_port[1]), port))
        canonical = _domain(name)
        if dot and canonical.startswith("["):
            raise ValueError("an address has no domains below it")
    except ValueError as error:
        raise ValueError(f"{error}; {_EXAMPLES}") from None
    return dot + canonical


def _domain(text: str) -> str:
    """Return a canonical domain or literal; ``[2001:db8::1]`` is as good as with its tag."""
    try:
        return domain_name(text)
    except AddressError:
        if not text.startswith("["):
            raise
        return domain_name(f"[IPv6:{text[1:]}")


def _host_name(text: str) -> str:
    canonical = _domain(text)
    return canonical[1:-1].removeprefix("IPv6:") if canonical.startswith("[") else canonical


@frozen(kw_only=True)
class Destination:
    """What holds for some next hops; the file has a ``[[destination]]`` for each.

    What is None is as for all others: see `complete`.

    Raises:
        ConfigError: a value cannot be, or not beside another.
    """

    domain: str = setting(
        pattern,
        "whom this is for: a recipient's domain (example.net, .example.net, *), or a next hop that"
        " a route names (relay.example.net, relay.example.net:587), which comes first",
        said="to be given",
    )
    connections: int | None = setting(
        read.optional(read.count),
        "most connections with mail on them at a time",
        default=None,
        said="connections_per_hop of [queue]",
    )
    # RFC 5321 §4.5.3.1.8: a server takes 100 at least.
    recipients_per_message: int = setting(
        read.count, "most recipients of one transaction", default=100
    )
    messages_per_connection: int = setting(
        read.count, "transactions after which a connection is closed", default=100
    )
    rate: Rate | None = setting(  # noqa: RUF009
        read.optional(rate), 'most messages in some time, as "100/min"', default=None, said="none"
    )
    tls: Literal["none", "may", "encrypt", "verify"] | None = setting(
        read.optional(TLS),
        "TLS there: never, where it is offered, nothing without, or nothing without a certificate"
        " that proves the next hop's name",
        default=None,
        said="tls of [delivery]",
    )
    tls_memory: Literal["alarm", "require"] | None = setting(
        read.optional(MEMORY),
        "what is done where TLS was had before and cannot be now (RFC 3207 §6): delivered in clear"
        " with an alarm, or deferred",
        default=None,
        said="tls_memory of [delivery]",
    )
    authorities: str | None = setting(
        read.optional(_FILE),
        "PEM file with those who may sign certificates there, for tls = verify",
        default=None,
        said="authorities of [delivery]",
    )
    client_certificate: str | None = setting(
        read.optional(_FILE), "PEM file with the certificate that we show there", default=None
    )
    client_key: str | None = setting(
        read.optional(_FILE),
        "PEM file with its private key",
        default=attrs.Factory(lambda self: self.client_certificate, takes_self=True),
        said="the file of the certificate",
    )
    source_address: tuple[str, ...] | None = setting(
        read.optional(source_addresses),
        "address to connect from; a list may have one of each family",
        default=None,
        said="source_address of [delivery]",
    )
    username: str | None = setting(
        read.optional(read.text("the name of an account")),
        "account for AUTH there; never used in clear, so TLS is required",
        default=None,
    )
    password_file: str | None = setting(
        read.optional(_FILE), "file whose first line is its password", default=None
    )
    retry_minimum: float | None = setting(
        read.optional(read.period),
        "wait before the second attempt",
        default=None,
        said="retry_minimum of [queue]",
    )
    retry_maximum: float | None = setting(
        read.optional(read.period),
        "longest wait between two attempts",
        default=None,
        said="retry_maximum of [queue]",
    )
    lifetime: float | None = setting(
        read.optional(read.period),
        "how long mail is tried before it is returned",
        default=None,
        said="lifetime of [queue]",
    )

    def __attrs_post_init__(self) -> None:
        for name, other in (
            ("username", "password_file"),
            ("password_file", "username"),
            ("client_key", "client_certificate"),
        ):
            value = getattr(self, name)
            if value is not None and getattr(self, other) is None:
                raise self._error(name, f"without {other}; both, or neither, would do")
        if self.username is not None and not self.username.isprintable():
            raise self._error("username", "it holds characters that cannot be seen")
        if self.tls == "none":
            for name in ("username", "client_certificate"):
                if getattr(self, name) is not None:
                    raise self._error(name, 'not with tls = "none"; tls = "encrypt" would do')
        if self.authorities is not None and self.tls not in (None, "verify"):
            raise self._error("authorities", 'nothing is verified; tls = "verify" would do')
        low, high = self.retry_minimum, self.retry_maximum
        if low is not None and high is not None and low > high:
            raise self._error(
                "retry_minimum",
                f"longer than retry_maximum = {shown(read.duration_text(high))};"
                " at most as long would do",
            )

    def _error(self, name: str, problem: str) -> ConfigError:
        value = getattr(self, name)
        written = read.duration_text(value) if isinstance(value, float) else value
        return ConfigError(
            f"[[destination]] {printable(self.domain)}, {name} = {shown(written)}: {problem}"
        )


def complete(
    destination: Destination, defaults: Destination, authorities: str | None = None
) -> Destination:
    """Return a destination in which what was left out is as in ``defaults``.

    Args:
        destination: what was given.
        defaults: what holds for all others.
        authorities: whose certificates count where something is verified.

    Raises:
        ConfigError: what it says does not go with those.
    """
    fields = attrs.fields(Destination)
    missing = {
        field.name: getattr(defaults, field.name)
        for field in fields
        if getattr(destination, field.name) is None
    }
    low, high = destination.retry_minimum, destination.retry_maximum
    if low is not None and high is None:
        missing["retry_maximum"] = max(low, missing["retry_maximum"])
    elif high is not None and low is None:
        missing["retry_minimum"] = min(high, missing["retry_minimum"])
    level = missing.get("tls") or destination.tls
    missing["authorities"] = destination.authorities
    if level == "verify" and destination.authorities is None:
        missing["authorities"] = authorities
    if level == "may" and destination.username is not None:
        missing["tls"] = "encrypt"  # RFC 4954 §4: credentials are not for everybody on the way
    return evolve(destination, **missing)


class Destinations:
    """Finds what holds for a next hop; each answer is complete.

    Args:
        destinations: in any order.
        defaults: what holds where nothing else does; complete but for what may be None.
        authorities: see `complete`.

    Raises:
        ConfigError: two are for the same, or one contradicts the defaults.
    """

    def __init__(
        self,
        destinations: Iterable[Destination],
        defaults: Destination,
        authorities: str | None = None,
    ) -> None:
        self._defaults = defaults
        self._by_pattern: dict[str, Destination] = {}
        for each in destinations:
            if each.domain in self._by_pattern:
                raise ConfigError(
                    f"[[destination]] domain = {shown(each.domain)}: there are two; one would do"
                )
            self._by_pattern[each.domain] = complete(each, defaults, authorities)
        self._found: dict[tuple[str, tuple[Host, ...]], Destination] = {}

    def all(self) -> Sequence[Destination]:
        """Return each of them, complete, and last what holds for all others."""
        return (*self._by_pattern.values(), self._defaults)

    def of(self, domain: str, hosts: tuple[Host, ...] = ()) -> Destination:
        """Return what holds for mail to ``domain`` by one of ``hosts``; see `pattern`.

        Args:
            domain: of the recipient, canonical.
            hosts: that a route names; the first that a destination is for decides.
        """
        if not self._by_pattern:
            return self._defaults
        found = self._found.get((domain, hosts))
        if found is None:
            if len(self._found) == _REMEMBERED:
                self._found.clear()
            found = self._found[domain, hosts] = self._find(domain, hosts)
        return found

    def _find(self, domain: str, hosts: tuple[Host, ...]) -> Destination:
        for key in (*_host_keys(hosts), *_domain_keys(domain)):
            found = self._by_pattern.get(key)
            if found is not None:
                return found
        return self._defaults


def _host_keys(hosts: tuple[Host, ...]) -> Iterator[str]:
    for host in hosts:
        yield str(host)
        if ":" in host.name:
            yield f"[IPv6:{host.name}]"
        yield host.name
        yield f"[{host.name}]"  # an IPv4 address may be written as a literal


def _domain_keys(domain: str) -> Iterator[str]:
    yield domain
    if not domain.startswith("["):
        at = domain.find(".")
        while at >= 0:
            yield domain[at:]  # the nearest first, so the longest
            at = domain.find(".", at + 1)
    yield "*"
