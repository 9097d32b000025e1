"""Endpoint strings and routes as far as they can be read without listening or routing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from ..mail.address import AddressError, domain_name
from .setting import OFF, quoted, shown, text

_WITH_PORT = ("tcp", "tcp6", "ssl")
_KINDS = (*_WITH_PORT, "unix", "systemd", "fd")
_EXAMPLE = "tcp:25, tcp:2525:interface=127.0.0.1 or unix:/run/mta.sock would do"


@frozen
class Endpoint:
    """A server endpoint string, taken apart as Twisted does.

    Attributes:
        kind: ``tcp``, ``unix``, …
        arguments: those without a name.
        named: those with one.
    """

    kind: str
    arguments: tuple[str, ...]
    named: Mapping[str, str]

    @classmethod
    def parse(cls, description: str) -> Endpoint:
        """Take a description apart: colons separate, a backslash takes the next character as is."""
        words: list[tuple[str, str | None]] = []
        name: str | None = None
        current = ""
        characters = iter(description)
        for character in characters:
            if character == ":":
                words.append((current, name))
                current, name = "", None
            elif character == "=" and name is None:
                current, name = "", current
            else:
                current += next(characters, "") if character == "\\" else character
        words.append((current, name))
        (kind, _), *rest = words
        return cls(
            kind.lower(),
            tuple(word for word, name in rest if name is None),
            {name: word for word, name in rest if name is not None},
        )

    @property
    def port(self) -> str | None:
        """The port as written, None where there is none."""
        return self.named.get("port", self.arguments[0] if self.arguments else None)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.kind == "unix":
            return True
        interface = self.named.get("interface", "")
        if interface == "localhost":
            return True
        try:
            return self.kind in _WITH_PORT and ip_address(interface).is_loopback
        except ValueError:
            return False


def endpoint(value: Any) -> str:
    """Return an endpoint string whose shape is right; listening will tell the rest."""
    description: str = text(_EXAMPLE.removesuffix(" would do"))(value)
    if not description.isprintable():
        raise ValueError(f"it holds characters that cannot be seen; {_EXAMPLE}")
    parsed = Endpoint.parse(description)
    if parsed.kind not in _KINDS:
        others = sorted(plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser))
        if parsed.kind not in others:
            close = difflib.get_close_matches(parsed.kind, (*_KINDS, *others), 1)
            meant = f"; did you mean {close[0]}:?" if close else f"; {_EXAMPLE}"
            raise ValueError(f"{quoted(parsed.kind)} is no kind of endpoint{meant}")
    if parsed.kind in _WITH_PORT:
        port = parsed.port or ""
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise ValueError(f"{quoted(port)} is no port from 0 to 65535; {_EXAMPLE}")
        if len(parsed.arguments) > 1:
            raise ValueError(
                r"a colon within an address is written \:, as in tcp6:25:interface=\:\:1"
            )
        interface = parsed.named.get("interface")
        if interface and parsed.kind == "tcp6" and ":" not in interface:
            raise ValueError(f"{quoted(interface)} is no IPv6 address; {_EXAMPLE}")
    if parsed.kind == "unix" and not (any(parsed.arguments) or parsed.named.get("address")):
        raise ValueError("the path is missing; unix:/run/mta.sock would do")
    return description


def endpoint_or_off(value: Any) -> str | None:
    """Return an endpoint string, or None for ``off``."""
    return None if value is None or value == OFF else endpoint(value)


def endpoints(value: Any) -> tuple[str, ...]:
    """Return endpoint strings of one string or a list of them; ``off`` alone is none."""
    if value == OFF or value == [OFF]:
        return ()
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise ValueError(f"{_EXAMPLE}, or a list of these")
    descriptions = list(value)
    if OFF in descriptions:
        raise ValueError(f'"{OFF}" stands alone; leave it out, or all the others')
    found = []
    for one in descriptions:
        try:
            found.append(endpoint(one))
        except ValueError as error:
            raise ValueError(
                f"{shown(one)}: {error}" if len(descriptions) > 1 else str(error)
            ) from None
    return tuple(found)


_ROUTES = ("smtp", "smtps", "lmtp", "lmtp+unix", "maildir", "discard", "error")
_ROUTE_EXAMPLE = '"*=smtp://relay.example.net:25" would do'


def routes(value: Any) -> tuple[tuple[str, str], ...]:
    """Return (pattern, URL) of each route, of a table or of a list of ``PATTERN=URL``.

    Patterns come out in canonical form. Whether a URL is right in all its parts is for
    `twisted_mta.routing` to say: only its scheme is looked at.
    """
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError('a table such as {"*" = "smtp://relay.example.net"} would do')
    found: dict[str, str] = {}
    for one in value:
        if isinstance(one, str):
            pattern, equals, url = one.partition("=")
            if not equals:
                raise ValueError(f"{shown(one)}: PATTERN=URL has an equals sign; {_ROUTE_EXAMPLE}")
        elif isinstance(one, Sequence) and len(one) == 2:
            pattern, url = one
        else:
            raise ValueError(f"{shown(one)}: no pattern with its URL; {_ROUTE_EXAMPLE}")
        pattern = _pattern(pattern)
        if pattern in found:
            raise ValueError(f"{quoted(pattern)} has two routes; one would do, with several hosts")
        found[pattern] = _url(url)
    return tuple(found.items())


def _pattern(value: Any) -> str:
    pattern: str = text("a domain, .domain or *")(value).strip()
    if pattern == "*":
        return pattern
    dot, name = (".", pattern[1:]) if pattern.startswith(".") else ("", pattern)
    try:
        return dot + domain_name(name)
    except AddressError as error:
        raise ValueError(
            f"{quoted(pattern)}: {error}; example.net, .example.net or * would do"
        ) from None


def _url(value: Any) -> str:
    url: str = text("a URL such as smtp://relay.example.net")(value).strip()
    scheme, colon, _ = url.partition(":")
    if not colon or scheme.lower() not in _ROUTES:
        known = ", ".join(f"{scheme}:" for scheme in _ROUTES)
        raise ValueError(f"{quoted(url)} is no route; {known} with what belongs to it would do")
    return url
