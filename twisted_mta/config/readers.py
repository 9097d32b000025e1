"""Readers of settings: each checks a value from the file, an option or Python, and converts it.

A reader accepts what it returns, so a value may be read twice. Its `ValueError` says what is wrong
and what was expected.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, TypeVar

import attrs

from ..mail.address import AddressError, domain_name
from ..mail.next_hop import Host
from ..mail.printable import printable
from .setting import ConfigError, Read, quoted, settings_of, shown

_Table = TypeVar("_Table")

OFF = "off"
"""Stands for "none" in place of a value."""


def number(low: int, high: int) -> Read:
    """Return a reader of whole numbers from ``low`` to ``high``."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return read


def count(value: Any) -> int:
    """Read a whole number of things, at least one."""
    return int(number(1, 10**9)(value))


def flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def choice(*names: str, not_built: Iterable[str] = ()) -> Read:
    """Return a reader of one of ``names``; those in ``not_built`` are refused by name."""
    later = tuple(not_built)

    def read(value: Any) -> str:
        if value in later:
            raise ValueError(f"{quoted(value)} is not built yet; expected {_either(names)}")
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"expected {_either(names)}")
        return value

    return read


def _either(names: Iterable[str]) -> str:
    *first, last = map(quoted, names)
    return f"{', '.join(first)} or {last}" if first else last


def text(expected: str) -> Read:
    """Return a reader of text that is not empty and contains no NUL.

    Args:
        expected: what the text should be, for errors.
    """

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError(f"expected {expected}")
        return value

    return read


def path(kind: str) -> Read:
    """Return a reader of paths, which are made absolute; ``kind`` is "file" or "directory"."""
    read_text = text(f"the path of a {kind}")

    def read(value: Any) -> str:
        written: str = read_text(os.fspath(value) if isinstance(value, os.PathLike) else value)
        return os.path.abspath(written)

    return read


def optional(read: Read) -> Read:
    """Return a reader that returns None for None."""
    return lambda value: None if value is None else read(value)


def or_off(read: Read) -> Read:
    """Return a reader that returns None for ``off`` and for None."""
    return lambda value: None if value is None or value == OFF else read(value)


def several(read: Read, kind: str) -> Read:
    """Return a reader of lists: a tuple of what ``read`` returns for each, without repeats.

    ``kind`` is the plural of what the list contains, for errors.
    """

    def read_all(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise ValueError(f"expected a list of {kind}")
        values = []
        items = tuple(value)
        for item in items:
            try:
                values.append(read(item))
            except ConfigError:
                raise
            except ValueError as error:
                # An error about the only one need not repeat it.
                raise ValueError(f"{shown(item)}: {error}" if items[1:] else str(error)) from None
        return tuple(dict.fromkeys(values))

    return read_all


def table(cls: Callable[..., _Table]) -> Callable[[Any], _Table]:
    """Return a reader of tables whose keys are the settings of ``cls``, as instances of it."""

    def read(value: Any) -> _Table:
        known = settings_of(cls)  # type: ignore[arg-type]
        if isinstance(value, cls):  # type: ignore[arg-type]
            return value  # type: ignore[no-any-return]
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a table with {', '.join(known)}")
        values = {}
        for key, given in value.items():
            if key not in known:
                close = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(known)}"
                raise ValueError(f"{printable(str(key))}: no such setting; {hint}")
            try:
                values[key] = known[key].read(given)
            except ValueError as error:
                raise ValueError(f"{key} = {shown(given)}: {error}") from None
        for key, attribute in attrs.fields_dict(cls).items():  # type: ignore[arg-type]
            if attribute.default is attrs.NOTHING and key not in values:
                raise ValueError(f"{key} is missing; expected {known[key].doc}")
        return cls(**values)

    return read


def host_name(value: Any) -> str:
    """Read a domain or an address literal; returned as written, or in A-labels if not ASCII.

    A-labels are what a greeting and EHLO take (RFC 6531 §3.7.1).
    """
    canonical = domain(value)
    return value if value.isascii() else canonical


def domain(value: Any) -> str:
    """Read a domain or an address literal; return its canonical form."""
    try:
        return domain_name(text("a domain name such as mail.example.net")(value))
    except AddressError as error:
        raise ValueError(f"{error}; expected one such as mail.example.net") from None


def network(value: Any) -> IPv4Network | IPv6Network:
    """Read a network in CIDR notation, without host bits; an address is a network of one."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(text("")(value))
    except ValueError:
        pass
    try:
        wider = ip_network(text("")(value), strict=False)
    except ValueError:
        raise ValueError("not a network; expected 192.0.2.0/24 or 2001:db8::/32") from None
    raise ValueError(f"bits are set beyond the prefix; expected {wider}")


def address(value: Any) -> str:
    """Read an IPv4 or IPv6 address; return it in the form of the ``ipaddress`` module."""
    try:
        return str(ip_address(text("")(value)))
    except ValueError:
        raise ValueError("not an IP address; expected 192.0.2.1 or 2001:db8::1") from None


_WITH_PORT = re.compile(r"(?:\[(?P<bracketed>[^]]*)\]|(?P<plain>[^:]*))(?::(?P<port>[0-9]{1,5}))?")


def nameserver(value: Any) -> Host:
    """Read a DNS server: an address, with a port if that is not 53."""
    if isinstance(value, Host):
        return value
    try:
        written = text("")(value)
        if written.count(":") > 1 and not written.startswith("["):
            return Host(address(written), 53)
        match = _WITH_PORT.fullmatch(written)
        if not match:
            raise ValueError
        port = number(1, 65535)(match["port"] or "53")
        return Host(address(match["bracketed"] or match["plain"]), port)
    except ValueError:
        raise ValueError(
            'not a DNS server; expected "127.0.0.1", "127.0.0.1:5353" or "[::1]:5353"'
        ) from None
