"""Pools of addresses that mail leaves from; ``[[source_pool]]``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import attrs
from attrs import frozen

from . import readers as read
from .setting import ConfigError, Problems, about, mistyped, setting, settings, shown

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EPOCH = date(1970, 1, 1).toordinal()


def pool_name(value: Any) -> str:
    """Read the name of a pool."""
    name: str = read.text("the name of a [[source_pool]]")(value)
    if _NAME.fullmatch(name) is None:
        raise ValueError("expected letters, digits, dots, - and _ alone, 64 of them at most")
    return name


def _warm_up(value: Iterable[int]) -> tuple[int, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise mistyped(value, "a list of numbers, such as [50, 100, 200, 500]")
    return tuple(read.read_each(read.count, tuple(value)))


def _date(value: Any) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError("expected a date such as 2026-12-01") from None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise mistyped(value, "a date such as 2026-12-01")
    return value


@frozen(kw_only=True, field_transformer=settings)
class SourceAddress:
    """An address of a pool; ``[[source_pool.address]]``."""

    address: str = setting(read.address, "IPv4 or IPv6 address of this machine")
    helo: str | None = setting(
        read.optional(read.host_name),
        "our name in EHLO from this address",
        default=None,
        default_text="helo of [delivery]",
    )
    warm_up: tuple[int, ...] = attrs.field(
        default=(),
        converter=_warm_up,
        metadata=about(
            "messages that may leave from it on the first day, the second, ...; afterwards there is"
            " no limit"
        ),
    )
    warm_up_since: date | None = setting(  # noqa: RUF009
        read.optional(_date), "the first of these days, in UTC", default=None
    )

    def limit(self, day: int) -> int | None:
        """Return how many messages may leave from it on a day; None: any number.

        Args:
            day: since the epoch, in UTC.
        """
        if self.warm_up_since is None:
            return None
        number = day - (self.warm_up_since.toordinal() - _EPOCH)
        if number < 0:
            return 0
        return self.warm_up[number] if number < len(self.warm_up) else None

    @property
    def version(self) -> int:
        """Its family: 4 or 6."""
        return 6 if ":" in self.address else 4


_TABLES = "tables, each below a line [[source_pool.address]]"


def _addresses(value: Iterable[SourceAddress | Mapping[str, Any]]) -> tuple[SourceAddress, ...]:
    if isinstance(value, str | Mapping):
        raise mistyped(value, _TABLES)
    addresses: Sequence[SourceAddress] = read.several(read.table(SourceAddress), _TABLES)(value)
    if not addresses:
        raise ValueError(f"expected {_TABLES}")
    problems = []
    for each in addresses:
        if bool(each.warm_up) is (each.warm_up_since is None):
            missing = "warm_up_since" if each.warm_up else "warm_up"
            problems.append(f"{each.address}: {missing} is missing; expected both or neither")
    if problems:
        raise Problems(problems)
    return tuple(addresses)


@frozen(kw_only=True, field_transformer=settings)
class SourcePool:
    """Addresses among which the mail of some destinations is spread; a ``[[source_pool]]``.

    Raises:
        ConfigError: a value is refused.
    """

    name: str = setting(
        pool_name, "name of the pool, for source_pool of destinations", default_text="required"
    )
    address: tuple[SourceAddress, ...] = attrs.field(
        converter=_addresses,
        metadata=about(
            "its addresses, each in a table [[source_pool.address]] with address, and maybe helo"
            " (our name in EHLO from there) and warm_up (messages a day, from the first day on)"
            " with warm_up_since (that day, such as 2026-12-01)",
            default_text="required",
        ),
    )


def source_pools(value: Iterable[SourcePool]) -> tuple[SourcePool, ...]:
    """Return pools, of which no two have the same name, or an address in common.

    Raises:
        ConfigError: two have, or one is no `SourcePool`.
    """
    pools = tuple(value)
    names: set[str] = set()
    owners: dict[str, str] = {}
    for pool in pools:
        if not isinstance(pool, SourcePool):
            raise ConfigError(f"source_pools = {shown(value)}: expected a list of SourcePool")
        if pool.name in names:
            raise ConfigError(f"[[source_pool]] name = {shown(pool.name)}: found two; expected one")
        names.add(pool.name)
        for each in pool.address:
            if each.address in owners:
                raise ConfigError(
                    f"[[source_pool]] {pool.name}, address = {shown(each.address)}: found it in"
                    f" {owners[each.address]} too; expected it in one pool, once"
                )
            owners[each.address] = pool.name
    return pools
