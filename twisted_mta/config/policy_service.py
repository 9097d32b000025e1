"""A service that speaks Postfix's policy delegation protocol; ``[[policy_service]]``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import attrs
from attrs import frozen

from . import readers as read
from .amounts import period
from .client_endpoint import client_endpoint
from .setting import ConfigError, about, setting, settings, shown

_EXAMPLE = "unix:/run/postgrey.sock or tcp:127.0.0.1:10023"
_CONTEXT = "one line of text such as submission"


def _context(value: Any) -> str:
    if value == "":
        return ""
    context: str = read.text(_CONTEXT)(value)
    if not context.isprintable():
        raise ValueError(f"it contains unprintable characters; expected {_CONTEXT}")
    return context


@frozen(kw_only=True, field_transformer=settings)
class PolicyServiceSettings:
    """A service that is asked about mail while it is received; a ``[[policy_service]]``.

    Raises:
        ConfigError: a value is refused.
    """

    endpoint: str = setting(
        client_endpoint("a policy service", _EXAMPLE),
        "where the service listens: a client endpoint string, unix:PATH or tcp:HOST:PORT; services"
        " are asked in the order of their tables",
        default_text="required",
    )
    at: Literal["mail", "rcpt", "data", "end"] = setting(
        read.choice("mail", "rcpt", "data", "end"),
        "when the service is asked: at MAIL, at each RCPT, at DATA, or at the end of the content",
        default="rcpt",
    )
    clients: Literal["strangers", "all"] = setting(
        read.choice("strangers", "all"),
        "whose mail it is asked about: clients on smtp listeners that may not relay and have not"
        " authenticated themselves, or all clients on all listeners",
        default="strangers",
    )
    default_action: Literal["defer", "accept", "refuse"] = setting(
        read.choice("defer", "accept", "refuse"),
        "what happens to mail while the service fails: deferred (451), accepted without it, or"
        " refused (550)",
        default="defer",
    )
    timeout: float = attrs.field(
        default=30.0,
        converter=period,
        metadata=about(
            "longest wait for an answer of the service, with the connection to it",
            default_text="30 s",
        ),
    )
    policy_context: str = setting(
        _context,
        "sent as the attribute policy_context, by which a service tells its askers apart",
        default="",
    )


def policy_services(value: Iterable[PolicyServiceSettings]) -> tuple[PolicyServiceSettings, ...]:
    """Return services, of which no two have the same endpoint, stage and context.

    Raises:
        ConfigError: two have, or one is no `PolicyServiceSettings`.
    """
    services = tuple(value)
    seen = set()
    for each in services:
        if not isinstance(each, PolicyServiceSettings):
            raise ConfigError(
                f"policy_services = {shown(value)}: expected a list of PolicyServiceSettings"
            )
        key = (each.endpoint, each.at, each.policy_context)
        if key in seen:
            raise ConfigError(
                f"[[policy_service]] endpoint = {shown(each.endpoint)}, at = {shown(each.at)}:"
                " found two; expected one table for each service and stage"
            )
        seen.add(key)
    return services
