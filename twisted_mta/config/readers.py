"""Readers of settings: each checks a value from the file, an option or Python, and converts it.

A reader accepts what it returns, so a value may be read twice. Its `ValueError` says what is wrong
and what was expected.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs

from ..mail.address import AddressError, domain_name
from ..mail.next_hop import Host
from ..mail.printable import printable
from .setting import ConfigError, Problems, Read, mistyped, problems_of, quoted, settings_of, shown

_Table = TypeVar("_Table")

OFF = "off"
"""Stands for "none" in place of a value."""


def number(low: int, high: int) -> Read:
    """Return a reader of whole numbers from ``low`` to ``high``."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value.strip()):
            value = int(value)
        expected = f"a whole number from {low} to {high}"
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise mistyped(value, expected)
        if not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected {expected}")
        return value

    return read


def count(value: Any) -> int:
    """Read a whole number of things, at least one."""
    return int(number(1, 10**9)(value))


def flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise mistyped(value, "true or false, without quotes")
    return value


def choice(*names: str) -> Read:
    """Return a reader of one of ``names``."""

    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise mistyped(value, f"one string, {_either(names)}")
        if value not in names:
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
        if not isinstance(value, str):
            raise mistyped(value, f"one string: {expected}")
        if not value or "\0" in value:
            raise ValueError(f"expected {expected}")
        return value

    return read


def path(kind: str) -> Read:
    """Return a reader of paths, which are made absolute; ``kind`` is "file" or "directory".

    What only a shell replaces is refused: ``~`` is the home of different users for an operator, for
    root and for the MTA.
    """
    read_text = text(f"the path of a {kind}")

    def read(value: Any) -> str:
        written: str = read_text(os.fspath(value) if isinstance(value, os.PathLike) else value)
        if written.startswith("~"):
            home = os.path.expanduser(written)
            whole = home if os.path.isabs(home) else f"/home/{written[1:]}"
            raise ValueError(f"only a shell replaces ~; expected the whole path, such as {whole}")
        if written.startswith("$"):
            raise ValueError("only a shell replaces variables; expected the whole path")
        return os.path.abspath(written)

    return read


StrPath = str | os.PathLike[str]
"""A path, as Python may give it."""

_read_file, _read_directory = path("file"), path("directory")


def file(value: StrPath) -> str:
    """Read the path of a file (`path`)."""
    read: str = _read_file(value)
    return read


def directory(value: StrPath) -> str:
    """Read the path of a directory (`path`)."""
    read: str = _read_directory(value)
    return read


def optional(read: Read) -> Read:
    """Return a reader that returns None for None."""
    return lambda value: None if value is None else read(value)


def or_off(read: Read) -> Read:
    """Return a reader that returns None for ``off`` and for None."""
    return lambda value: None if value is None or value == OFF else read(value)


def https_url(value: Any) -> str:
    """Read the URL of a server; without TLS it has to be on this machine."""
    written: str = text("an https URL")(value)
    expected = "expected https://host/path (http:// only for localhost, 127.0.0.1 and [::1])"
    try:
        url = urlsplit(written)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise ValueError(expected) from None
    plain = url.scheme == "http" and host in ("localhost", "127.0.0.1", "::1")
    printed = written.isascii() and written.isprintable() and " " not in written
    if not (url.scheme == "https" or plain) or not host or port == 0 or not printed:
        raise ValueError(expected)
    if url.username is not None or url.fragment:
        raise ValueError(f"a user or a fragment in it; {expected}")
    return written


def several(read: Read, kind: str) -> Read:
    """Return a reader of lists: a tuple of what ``read`` returns for each, without repeats.

    ``kind`` is the plural of what the list contains, for errors.
    """

    def read_all(value: Any) -> tuple[Any, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise mistyped(value, f"a list of {kind}")
        return tuple(dict.fromkeys(read_each(read, tuple(value))))

    return read_all


def read_each(read: Read, items: Sequence[Any]) -> list[Any]:
    """Return what ``read`` returns for each item.

    Raises:
        Problems: items are refused.
    """
    values, problems = [], []
    for number, item in enumerate(items, 1):
        try:
            values.append(read(item))
        except ConfigError:
            raise
        except ValueError as error:
            # An error about the only item need not repeat it.
            prefix = f"{shown(item)}: " if items[1:] else ""
            if isinstance(item, Mapping):
                prefix = f"table {number}: "
            problems += [prefix + problem for problem in problems_of(error)]
    if problems:
        raise Problems(problems)
    return values


def table(cls: Callable[..., _Table]) -> Callable[[Any], _Table]:
    """Return a reader of tables whose keys are the settings of ``cls``, as instances of it."""

    def read(value: Any) -> _Table:
        known = settings_of(cls)  # type: ignore[arg-type]
        if isinstance(value, cls):  # type: ignore[arg-type]
            return value  # type: ignore[no-any-return]
        if not isinstance(value, Mapping):
            raise mistyped(value, f"a table with {', '.join(known)}")
        values, problems = {}, []
        for key, given in value.items():
            if key not in known:
                close = difflib.get_close_matches(str(key), known, 1)
                hint = f"did you mean {close[0]}?" if close else f"expected {', '.join(known)}"
                problems.append(f"{printable(str(key))}: no such setting; {hint}")
                continue
            try:
                values[key] = known[key].read(given)
            except ValueError as error:
                problems += [f"{key} = {shown(given)}: {each}" for each in problems_of(error)]
        for key, attribute in attrs.fields_dict(cls).items():  # type: ignore[arg-type]
            if attribute.default is attrs.NOTHING and key not in value:
                problems.append(f"{key} is missing; expected {known[key].doc}")
        if problems:
            raise Problems(problems)
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


def dns_name(value: Any) -> str:
    """Read a domain, no address literal; return its canonical form."""
    name = domain(value)
    if name.startswith("["):
        raise ValueError("an address literal; expected a domain such as example.net")
    if name.rpartition(".")[2].isdecimal():  # no top-level domain is a number
        raise ValueError("found an address, expected a domain such as example.net")
    return name


def domains(value: Iterable[str]) -> tuple[str, ...]:
    """Read domains and address literals; return their canonical forms."""
    return several(domain, "domains")(value)  # type: ignore[no-any-return]


def dns_names(value: Iterable[str]) -> tuple[str, ...]:
    """Read domains; return their canonical forms."""
    return several(dns_name, "domains")(value)  # type: ignore[no-any-return]


def host_names(value: Iterable[str]) -> tuple[str, ...]:
    """Read domains and address literals (`host_name`)."""
    return several(host_name, "names")(value)  # type: ignore[no-any-return]


Network = IPv4Network | IPv6Network


def networks(value: Iterable[str | Network]) -> tuple[Network, ...]:
    """Read networks (`network`)."""
    return several(network, "networks")(value)  # type: ignore[no-any-return]


def network(value: Any) -> IPv4Network | IPv6Network:
    """Read a network in CIDR notation, without host bits; an address is a network of one."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    written = text("192.0.2.0/24 or 2001:db8::/32")(value)
    try:
        return ip_network(written)
    except ValueError:
        pass
    try:
        wider = ip_network(written, strict=False)
    except ValueError:
        raise ValueError("not a network; expected 192.0.2.0/24 or 2001:db8::/32") from None
    raise ValueError(f"bits are set beyond the prefix; expected {wider}")


def address(value: Any) -> str:
    """Read an IPv4 or IPv6 address; return it in the form of the ``ipaddress`` module."""
    written = text("192.0.2.1 or 2001:db8::1")(value)
    try:
        return str(ip_address(written))
    except ValueError:
        raise ValueError("not an IP address; expected 192.0.2.1 or 2001:db8::1") from None


_WITH_PORT = re.compile(r"(?:\[(?P<bracketed>[^]]*)\]|(?P<plain>[^:]*))(?::(?P<port>[0-9]{1,5}))?")


def nameserver(value: Any) -> Host:
    """Read a DNS server: an address, with a port if that is not 53."""
    if isinstance(value, Host):
        return value
    written = text("127.0.0.1, 127.0.0.1:5353 or [::1]:5353")(value)
    try:
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
