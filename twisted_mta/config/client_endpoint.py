"""Client endpoint strings: where a program listens that mail is shown to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import readers as read
from .endpoint import Endpoint


def client_endpoint(of: str, example: str) -> Callable[[Any], str]:
    """Return a reader of client endpoint strings: the path of a socket, or host and port.

    Args:
        of: what listens there, for errors.
        example: of what is expected.
    """

    def client_endpoint(value: Any) -> str:
        description: str = read.text(f"one such as {example}")(value)
        if not description.isprintable():
            raise ValueError(f"it contains unprintable characters; expected {example}")
        parsed = Endpoint.parse(description)
        if parsed.kind == "unix":
            where = parsed.named.get("path") or "".join(parsed.arguments[:1])
            if not where.startswith("/") or len(parsed.arguments) > 1:
                raise ValueError(f"no absolute path of a socket; expected {example}")
            return description
        if parsed.kind != "tcp":
            raise ValueError(f"not an endpoint of {of}; expected {example}")
        host, port = place(parsed)
        if not host or len(parsed.arguments) > 2:
            raise ValueError(f"no host; expected {example}")
        if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65535):
            raise ValueError(f"no port from 1 to 65535; expected {example}")
        return description

    return client_endpoint


def place(parsed: Endpoint) -> tuple[str, str]:
    """Return host and port of a ``tcp`` client endpoint as written; empty where missing."""
    host, port = ([*parsed.arguments, "", ""])[:2]
    return parsed.named.get("host", host), parsed.named.get("port", port)
