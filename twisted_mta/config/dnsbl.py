"""A list of addresses or domains in the DNS; ``[[dnsbl]]``."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

import attrs
from attrs import frozen

from . import readers as read
from .setting import ConfigError, about, setting, settings, shown

_ALL = IPv4Network("127.0.0.0/8")
# By these the operators of lists say that they refuse a query, and not that something is listed.
_REFUSALS = IPv4Network("127.255.255.0/24")
_SOME_REFUSALS = (IPv4Address("127.0.0.1"), IPv4Address("127.0.1.255"))
_LONGEST_ZONE = 180  # characters: what is asked about stands before it, up to 64 for IPv6
_EXPECTED = "addresses or networks in 127.0.0.0/8 such as 127.0.0.2/31"


def _answer(value: Any) -> IPv4Network:
    if isinstance(value, IPv4Network):
        network = value
    else:
        written = read.text(_EXPECTED)(value)
        try:
            network = IPv4Network(written)
        except ValueError:
            try:
                wider = IPv4Network(written, strict=False)
            except ValueError:
                raise ValueError(f"not a network of IPv4; expected {_EXPECTED}") from None
            raise ValueError(f"bits are set beyond the prefix; expected {wider}") from None
    # RFC 5782 §2.1
    if not network.subnet_of(_ALL):
        raise ValueError(f"not in 127.0.0.0/8; expected {_EXPECTED}")
    if network.subnet_of(_REFUSALS):
        raise ValueError(f"{_REFUSALS} means that a list refuses queries; expected {_EXPECTED}")
    return network


def _answers(value: Iterable[IPv4Network | str]) -> tuple[IPv4Network, ...]:
    answers: tuple[IPv4Network, ...] = read.several(_answer, "answers")(value)
    return answers


def _zone(value: Any) -> str:
    zone = read.dns_name(value)
    if len(zone) > _LONGEST_ZONE:
        raise ValueError(f"{len(zone)} characters; expected at most {_LONGEST_ZONE}")
    return zone


@frozen(kw_only=True, field_transformer=settings)
class DNSBL:
    """A list in the DNS (RFC 5782) by which mail of strangers is judged; a ``[[dnsbl]]``.

    Raises:
        ConfigError: a value is refused.
    """

    zone: str = attrs.field(
        converter=_zone,
        repr=False,
        metadata=about(
            "zone of the list; a key of its operator may be part of it, and it is never shown",
            default_text="required",
            secret=True,
        ),
    )
    name: str = setting(
        read.dns_name,
        "name of the list in replies and in the log",
        default=attrs.Factory(lambda self: self.zone, takes_self=True),
        default_text="the zone",
    )
    of: Literal["client", "sender", "helo"] = setting(
        read.choice("client", "sender", "helo"),
        "what is looked up: the client's address, the domain of the reverse-path, or the name in"
        " EHLO",
        default="client",
    )
    answers: tuple[IPv4Network, ...] = attrs.field(
        default=(),
        converter=_answers,
        metadata=about(
            "answers that are hits; 127.255.255.0/24, by which a list refuses a query, never is",
            default_text="127.0.0.0/8 but 127.0.0.1 and 127.0.1.255",
        ),
    )
    action: Literal["refuse", "defer", "mark"] = setting(
        read.choice("refuse", "defer", "mark"),
        "what follows from a hit: 550 5.7.1 at RCPT, 451 4.7.1, or a field X-Listed-By",
        default="refuse",
    )

    def is_hit(self, answer: IPv4Address) -> bool:
        """Whether an answer of the list is a hit."""
        if self.refuses(answer):
            return False
        return any(answer in each for each in self.answers or (_ALL,))

    def refuses(self, answer: IPv4Address) -> bool:
        """Whether the operator of the list refuses the query by an answer."""
        if answer in _SOME_REFUSALS:
            return not any(answer in each for each in self.answers)
        return answer in _REFUSALS


def dnsbls(value: Iterable[DNSBL]) -> tuple[DNSBL, ...]:
    """Return lists, of which no two have the same zone and look up the same.

    Raises:
        ConfigError: two have, or one is no `DNSBL`.
    """
    lists = tuple(value)
    seen = set()
    for each in lists:
        if not isinstance(each, DNSBL):
            raise ConfigError(f"dnsbl = {shown(value)}: expected a list of DNSBL")
        if (each.zone, each.of) in seen:
            raise ConfigError(
                f"[[dnsbl]] name = {shown(each.name)}, of = {shown(each.of)}: found two of its"
                " zone; expected one, with all answers"
            )
        seen.add((each.zone, each.of))
    return lists
