"""A filter that speaks the milter protocol; ``[[milter]]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import attrs
from attrs import frozen

from . import readers as read
from .amounts import period
from .endpoint import Endpoint
from .setting import ConfigError, about, setting, settings, shown

_EXAMPLE = "unix:/run/rspamd/milter.sock or tcp:127.0.0.1:11332"


def milter_endpoint(value: Any) -> str:
    """Read the client endpoint string of a filter, with the path of a socket, or host and port."""
    description: str = read.text(f"one such as {_EXAMPLE}")(value)
    if not description.isprintable():
        raise ValueError(f"it contains unprintable characters; expected {_EXAMPLE}")
    parsed = Endpoint.parse(description)
    if parsed.kind == "unix":
        where = parsed.named.get("path") or "".join(parsed.arguments[:1])
        if not where.startswith("/") or len(parsed.arguments) > 1:
            raise ValueError(f"no absolute path of a socket; expected {_EXAMPLE}")
        return description
    if parsed.kind != "tcp":
        raise ValueError(f"not an endpoint of a filter; expected {_EXAMPLE}")
    host, port = ([*parsed.arguments, "", ""])[:2]
    host, port = parsed.named.get("host", host), parsed.named.get("port", port)
    if not host or len(parsed.arguments) > 2:
        raise ValueError(f"no host; expected {_EXAMPLE}")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= 65535):
        raise ValueError(f"no port from 1 to 65535; expected {_EXAMPLE}")
    return description


@frozen(kw_only=True, field_transformer=settings)
class MilterSettings:
    """A filter that is asked about all mail received; a ``[[milter]]`` of the file.

    Raises:
        ConfigError: a value is refused.
    """

    endpoint: str = setting(
        milter_endpoint,
        "where the filter listens: a client endpoint string, unix:PATH or tcp:HOST:PORT; filters"
        " are asked in the order of their tables",
        default_text="required",
    )
    default_action: Literal["defer", "accept", "refuse"] = setting(
        read.choice("defer", "accept", "refuse"),
        "what happens to mail while the filter fails: deferred (451), accepted unfiltered, or"
        " refused (550)",
        default="defer",
    )
    timeout: float = attrs.field(
        default=30.0,
        converter=period,
        metadata=about(
            "longest wait for a connection, and for each answer of the filter", default_text="30 s"
        ),
    )


def milters(value: Iterable[MilterSettings]) -> tuple[MilterSettings, ...]:
    """Return filters, of which no two have the same endpoint.

    Raises:
        ConfigError: two have, or one is no `MilterSettings`.
    """
    filters = tuple(value)
    seen = set()
    for each in filters:
        if not isinstance(each, MilterSettings):
            raise ConfigError(f"milters = {shown(value)}: expected a list of MilterSettings")
        if each.endpoint in seen:
            raise ConfigError(
                f"[[milter]] endpoint = {shown(each.endpoint)}: found two; expected one table for"
                " each filter"
            )
        seen.add(each.endpoint)
    return filters
