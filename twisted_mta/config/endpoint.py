"""Server endpoint strings, as far as they can be checked without listening."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from attrs import frozen

from .readers import OFF, path, read_each, text
from .setting import mistyped, quoted

_WITH_PORT = ("tcp", "tcp6", "ssl")
_KINDS = (*_WITH_PORT, "unix", "systemd", "fd")
_EXAMPLE = "tcp:25, tcp:2525:interface=127.0.0.1 or unix:/run/mta.sock"


@frozen
class Endpoint:
    """A server endpoint string in its parts, split as Twisted does.

    Attributes:
        kind: ``tcp``, ``unix``, …; lower case.
        arguments: the arguments without a name.
        named: the arguments with a name.
    """

    kind: str
    arguments: tuple[str, ...]
    named: Mapping[str, str]

    @classmethod
    def parse(cls, description: str) -> Endpoint:
        """Split a description: colons separate, a backslash escapes the next character."""
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
        """The port as written; None if there is none."""
        return self.named.get("port", self.arguments[0] if self.arguments else None)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
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
    """Read an endpoint string of a known kind; whether it can listen is not checked."""
    description: str = text(f"one such as {_EXAMPLE}")(value)
    if not description.isprintable():
        raise ValueError(f"it contains unprintable characters; expected {_EXAMPLE}")
    parsed = Endpoint.parse(description)
    if parsed.kind not in _KINDS:
        from twisted.internet.interfaces import IStreamServerEndpointStringParser
        from twisted.plugin import getPlugins

        others = sorted(plugin.prefix for plugin in getPlugins(IStreamServerEndpointStringParser))
        if parsed.kind not in others:
            close = difflib.get_close_matches(parsed.kind, (*_KINDS, *others), 1)
            hint = f"did you mean {close[0]}:?" if close else f"expected {_EXAMPLE}"
            raise ValueError(f"{quoted(parsed.kind)} is not a kind of endpoint; {hint}")
    if parsed.kind in _WITH_PORT:
        port = parsed.port or ""
        if not (port.isascii() and port.isdecimal() and int(port) <= 65535):
            raise ValueError(f"{quoted(port)} is not a port from 0 to 65535; expected {_EXAMPLE}")
        if len(parsed.arguments) > 1:
            raise ValueError(
                r"unescaped colons within an address; expected \:, as in tcp6:25:interface=\:\:1"
            )
        interface = parsed.named.get("interface")
        if interface and parsed.kind == "tcp6" and ":" not in interface:
            raise ValueError(f"{quoted(interface)} is not an IPv6 address; expected {_EXAMPLE}")
    if parsed.kind == "unix" and not (any(parsed.arguments) or parsed.named.get("address")):
        raise ValueError("the path is missing; expected one such as unix:/run/mta.sock")
    for named in _paths(parsed):
        path("file")(named)
    return description


def _paths(parsed: Endpoint) -> list[str]:
    """Return the paths of files that an endpoint names."""
    if parsed.kind == "unix":
        return [parsed.named.get("address") or parsed.arguments[0]]
    names = ("privateKey", "certKey", "extraCertChain") if parsed.kind == "ssl" else ()
    return [parsed.named[name] for name in names if parsed.named.get(name)]


def endpoint_or_off(value: Any) -> str | None:
    """Read an endpoint string; return None for ``off``."""
    return None if value is None or value == OFF else endpoint(value)


def endpoints(value: Any) -> tuple[str, ...]:
    """Read an endpoint string or a list of them; return () for ``off``."""
    if value == OFF or value == [OFF]:
        return ()
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise mistyped(value, f"one string such as {_EXAMPLE}, or a list of such")
    descriptions = list(value)
    if OFF in descriptions:
        raise ValueError(f'"{OFF}" beside endpoints; expected "{OFF}" alone, or endpoints alone')
    return tuple(read_each(endpoint, descriptions))
