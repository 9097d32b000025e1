"""What a setting is: its doc text, its names outside, and how its value is read.

A setting is read by one function, whichever way its value comes: as text from an option, as a TOML
value from the file, as an argument in Python. Each reader takes what it returned before as well,
and says in its `ValueError` what was wrong and what would do.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, TypeVar

import attrs
from attrs import frozen

from ..mail.address import AddressError, domain_name
from ..mail.next_hop import Host
from ..mail.printable import printable

Read = Callable[[Any], Any]
"""Returns the value that text, TOML or Python gave; raises `ValueError` where it is none."""

_Table = TypeVar("_Table")

OFF = "off"
"""What stands for "none" instead of an endpoint."""


class ConfigError(ValueError):
    """A setting that cannot be: one printable line that says where, what, and what would do."""


@frozen
class Setting:
    """What a field of a class of settings says of itself.

    Attributes:
        doc: its meaning, for ``--help`` and the documentation; no full stop.
        read: makes its value of what the file or an option gave.
        default: the default, in words or as it would be written.
        option: the name of its option, without dashes; None where it has none.
        metavar: what stands for its value in the documentation of the option.
        repeatable: whether the option may be given several times.
        table: the table of the file in which it stands, if not that of its class.
        key: its key in the file, if not the name of the field.
        common: whether ``[mta]`` may give it for all listeners.
        secret: whether its value may hold something that is not to be shown.
    """

    doc: str
    read: Read
    default: str
    option: str | None = None
    metavar: str = ""
    repeatable: bool = False
    table: str | None = None
    key: str | None = None
    common: bool = False
    secret: bool = False


def setting(
    read: Read,
    doc: str,
    *,
    default: Any = attrs.NOTHING,
    said: str | None = None,
    convert: Read | None = None,
    option: str | None = None,
    metavar: str = "",
    repeatable: bool = False,
    table: str | None = None,
    key: str | None = None,
    common: bool = False,
    secret: bool = False,
) -> Any:
    """Return an attrs field that is a `Setting`.

    Args:
        read: reads the value from the file or the options; from Python too without ``convert``.
        doc: its meaning.
        default: as `attrs.field` takes it.
        said: the default in words, where the value does not say it.
        convert: reads the value that Python gives, where that is not of the same form.
        option: see `Setting`, as for all that follow.
        metavar: likewise.
        repeatable: likewise.
        table: likewise.
        key: likewise.
        common: likewise.
        secret: likewise.
    """
    described = Setting(
        doc=doc,
        read=read,
        default=shown(default) if said is None else said,
        option=option,
        metavar=metavar,
        repeatable=repeatable,
        table=table,
        key=key,
        common=common,
        secret=secret,
    )
    return attrs.field(
        default=default,
        metadata={Setting: described},
        converter=attrs.Converter(_named(convert or read, secret), takes_field=True),
    )


HIDDEN = "..."
"""What is shown of a value that may hold a secret."""


def _named(read: Read, secret: bool) -> Callable[[Any, attrs.Attribute[Any]], Any]:
    def converted(value: Any, attribute: attrs.Attribute[Any]) -> Any:
        try:
            return read(value)
        except ConfigError:
            raise
        except ValueError as error:
            said = HIDDEN if secret else shown(value)
            raise ConfigError(f"{attribute.name} = {said}: {error}") from None

    return converted


def settings_of(cls: type[attrs.AttrsInstance]) -> dict[str, Setting]:
    """Return the settings among the fields of an attrs class, by field name, in their order."""
    return {
        name: attribute.metadata[Setting]
        for name, attribute in attrs.fields_dict(cls).items()
        if Setting in attribute.metadata
    }


def shown(value: object) -> str:
    """Return a value as the file would write it, on one printable line of moderate length."""
    if value is None or value is attrs.NOTHING:
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:76] + " ..."


def quoted(text: str) -> str:
    """Return text that someone typed, in quotes and printable."""
    return f'"{printable(text)}"'


# Durations and sizes. A month or a year is no fixed number of seconds, so neither is a unit.
_SECONDS = {"s": 1, "min": 60, "h": 3600, "days": 86400, "weeks": 604800}
_DURATION_NAMES = {
    **_SECONDS,
    **dict.fromkeys(("sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "minute", "minutes"), 60),
    **dict.fromkeys(("hour", "hours"), 3600),
    **dict.fromkeys(("d", "day"), 86400),
    **dict.fromkeys(("w", "week"), 604800),
}
_OCTETS = {"octets": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE_NAMES = {
    **{name.lower(): octets for name, octets in _OCTETS.items()},
    **dict.fromkeys(("b", "octet", "byte", "bytes"), 1),
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def _amount(value: object, units: Mapping[str, int]) -> float | None:
    """Return a number with a unit in the base unit, exact where it is whole; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if math.isfinite(value) and value >= 0 else None
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not found:
        return None
    unit = units.get(found[2].lower()) if found[2] else 1
    if unit is None:
        return None
    return float(found[1]) * unit if "." in found[1] else int(found[1]) * unit


def duration(value: Any) -> float:
    """Return seconds; ``"5 min"``, ``"90"`` and 300 are durations, never negative."""
    seconds = _amount(value, _DURATION_NAMES)
    if seconds is None or seconds > 10**10:  # three centuries: nothing overflows on the way
        raise ValueError('not a duration; "30 s", "5 min", "1 h" or "5 days" would do')
    return float(seconds)


def period(value: Any) -> float:
    """Return a duration that is longer than nothing."""
    seconds = duration(value)
    if not seconds:
        raise ValueError('it has to last; "30 s", "5 min", "1 h" or "5 days" would do')
    return seconds


def size(value: Any) -> int:
    """Return octets; ``"50 MiB"``, ``"65536"`` and 65536 are sizes, of one octet at least."""
    octets = _amount(value, _SIZE_NAMES)
    if octets is None or octets != int(octets) or not 1 <= octets < 1 << 62:
        raise ValueError('not a size; "64 KiB", "50 MiB", "1 GiB" or a number of octets would do')
    return int(octets)


def duration_text(seconds: float) -> str:
    """Return a duration in the largest unit that keeps it exact."""
    return _whole(seconds, _SECONDS) or f"{seconds!r} s"


def size_text(octets: int) -> str:
    """Return a size in the largest unit that keeps it exact."""
    return _whole(octets, _OCTETS) or f"{octets} octets"


def _whole(amount: float, units: dict[str, int]) -> str | None:
    for unit, worth in reversed(units.items()):
        if amount >= worth and amount % worth == 0:
            return f"{int(amount // worth)} {unit}"
    return None


def number(low: int, high: int) -> Read:
    """Return a reader of whole numbers between two, these included."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high} would do")
        return value

    return read


def count(value: Any) -> int:
    """Return a whole number of things, at least one."""
    return int(number(1, 10**9)(value))


def flag(value: Any) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise ValueError("true or false would do")
    return value


def choice(*names: str, not_built: Iterable[str] = ()) -> Read:
    """Return a reader of one of ``names``; those that will exist later are refused by name."""
    later = tuple(not_built)

    def read(value: Any) -> str:
        if value in later:
            raise ValueError(f"{quoted(value)} is not built yet; {_either(names)} would do")
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"{_either(names)} would do")
        return value

    return read


def _either(names: Iterable[str]) -> str:
    *first, last = map(quoted, names)
    return f"{', '.join(first)} or {last}" if first else last


def text(what: str) -> Read:
    """Return a reader of text that is not empty and holds no NUL; ``what`` says what it is."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"{what} would do")
        return value

    return read


def path(what: str) -> Read:
    """Return a reader of paths, which come out absolute; ``what`` says of what."""
    read_text = text(f"the path of a {what}")

    def read(value: Any) -> str:
        written: str = read_text(os.fspath(value) if isinstance(value, os.PathLike) else value)
        return os.path.abspath(written)

    return read


def optional(read: Read) -> Read:
    """Return a reader that leaves None as it is."""
    return lambda value: None if value is None else read(value)


def or_off(read: Read) -> Read:
    """Return a reader that makes None of ``off``, and leaves None as it is."""
    return lambda value: None if value is None or value == OFF else read(value)


def several(read: Read, what: str) -> Read:
    """Return a reader of a list, as a tuple of what ``read`` makes of each, repeats dropped."""

    def read_all(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise ValueError(f"a list of {what} would do")
        values = []
        every = tuple(value)
        for one in every:
            try:
                values.append(read(one))
            except ConfigError:
                raise
            except ValueError as error:
                raise ValueError(f"{shown(one)}: {error}" if every[1:] else str(error)) from None
        return tuple(dict.fromkeys(values))

    return read_all


def table(cls: Callable[..., _Table]) -> Callable[[Any], _Table]:
    """Return a reader of a table whose keys are the settings of ``cls``, as one of these."""

    def read(value: Any) -> _Table:
        known = settings_of(cls)  # type: ignore[arg-type]
        if isinstance(value, cls):  # type: ignore[arg-type]
            return value  # type: ignore[no-any-return]
        if not isinstance(value, Mapping):
            raise ValueError(f"a table with {', '.join(known)} would do")
        values = {}
        for key, given in value.items():
            if key not in known:
                close = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
                raise ValueError(f"{printable(str(key))} is no such setting; {hint}")
            try:
                values[key] = known[key].read(given)
            except ValueError as error:
                raise ValueError(f"{key} = {shown(given)}: {error}") from None
        for key, attribute in attrs.fields_dict(cls).items():  # type: ignore[arg-type]
            if attribute.default is attrs.NOTHING and key not in values:
                raise ValueError(f"{key} is missing: {known[key].doc}")
        return cls(**values)

    return read


def host_name(value: Any) -> str:
    """Return a domain or an address literal as it was written; with A-labels if it is not ASCII.

    That is what it is in a greeting and in EHLO (RFC 6531 §3.7.1).
    """
    canonical = domain(value)
    return value if value.isascii() else canonical


def domain(value: Any) -> str:
    """Return the canonical form of a domain or an address literal."""
    try:
        return domain_name(text("a domain name such as mail.example.net")(value))
    except AddressError as error:
        raise ValueError(f"{error}; one such as mail.example.net would do") from None


def network(value: Any) -> IPv4Network | IPv6Network:
    """Return a network in CIDR notation, without host bits; an address is a network of one."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(text("")(value))
    except ValueError:
        pass
    try:
        wider = ip_network(text("")(value), strict=False)
    except ValueError:
        raise ValueError("not a network; 192.0.2.0/24 or 2001:db8::/32 would do") from None
    raise ValueError(f"it has bits set beyond its prefix; {wider} would do")


def address(value: Any) -> str:
    """Return an IPv4 or IPv6 address as the ``ipaddress`` module writes it."""
    try:
        return str(ip_address(text("")(value)))
    except ValueError:
        raise ValueError("not an IP address; 192.0.2.1 or 2001:db8::1 would do") from None


_WITH_PORT = re.compile(r"(?:\[(?P<bracketed>[^]]*)\]|(?P<plain>[^:]*))(?::(?P<port>[0-9]{1,5}))?")


def nameserver(value: Any) -> Host:
    """Return a DNS server: an address, with a port where that is not 53."""
    if isinstance(value, Host):
        return value
    problem = 'not a DNS server; "127.0.0.1", "127.0.0.1:5353" or "[::1]:5353" would do'
    try:
        written = text("")(value)
        if written.count(":") > 1 and not written.startswith("["):
            return Host(address(written), 53)
        found = _WITH_PORT.fullmatch(written)
        if not found:
            raise ValueError
        port = number(1, 65535)(found["port"] or "53")
        return Host(address(found["bracketed"] or found["plain"]), port)
    except ValueError:
        raise ValueError(problem) from None
