"""A filter that speaks the milter protocol; ``[[milter]]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import attrs
from attrs import frozen

from . import readers as read
from .amounts import period
from .client_endpoint import client_endpoint
from .setting import ConfigError, about, setting, settings, shown

_EXAMPLE = "unix:/run/rspamd/milter.sock or tcp:127.0.0.1:11332"


@frozen(kw_only=True, field_transformer=settings)
class MilterSettings:
    """A filter that is asked about all mail received; a ``[[milter]]`` of the file.

    Raises:
        ConfigError: a value is refused.
    """

    endpoint: str = setting(
        client_endpoint("a filter", _EXAMPLE),
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
