"""Which setting says what holds for a next hop, and where it stands."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import attrs

from ...config import Config, Destination
from ...delivery.candidates import Candidate
from ...mail.next_hop import NextHop
from ...queue.schedule.next_hops import NextHopLimits

DEFAULT = "default"

# Where a destination leaves it out: the table, and the name there.
_ELSEWHERE = {
    "tls": ("delivery", "tls"),
    "tls_memory": ("delivery", "tls_memory"),
    "authorities": ("delivery", "authorities"),
    "source_address": ("delivery", "source_address"),
    "connections": ("queue", "connections_per_hop"),
    "retry_minimum": ("queue", "retry_minimum"),
    "retry_maximum": ("queue", "retry_maximum"),
    "lifetime": ("queue", "lifetime"),
}

_LIMITS = (
    "connections",
    "recipients_per_message",
    "messages_per_connection",
    "rate",
    "retry_minimum",
    "retry_maximum",
    "lifetime",
)

_DESTINATION_DEFAULTS = {each.name: each.default for each in attrs.fields(Destination)}


def origin(config: Config, destination: Destination, name: str) -> str:
    """Return which table of the configuration says a setting: ``[[destination]] example.net``.

    Args:
        config: that is in force.
        destination: what holds, complete.
        name: of the setting in it.
    """
    given = _given(config, destination)
    if given is not None and getattr(given, name) != _DESTINATION_DEFAULTS[name]:
        return f"[[destination]] {given.domain}"
    if name in _ELSEWHERE:
        table, there = _ELSEWHERE[name]
        settings = getattr(config, table)
        if getattr(settings, there) != getattr(type(settings)(), there):
            return f"[{table}]"
    return DEFAULT


def terms(config: Config, next_hop: NextHop, domain: str) -> dict[str, Any]:
    """Return what holds for mail to a domain by a next hop; each with its value and its origin.

    Durations are seconds; a password is not among it.
    """
    there = config.destination_for(next_hop.destination or domain, next_hop.hosts)
    found: dict[str, Any] = {}
    for name in (*_LIMITS, "source_address", "client_certificate", "username"):
        value = getattr(there, name)
        if name == "rate" and value is not None:
            value = str(value)
        if name == "source_address":
            value = list(value or ()) or None
        found[name] = {"value": value, "from": origin(config, there, name)}
    found["account"] = found.pop("username")
    given = _given(config, there)
    return {"destination": None if given is None else given.domain, **found}


def limits_of(config: Config, next_hop: NextHop) -> NextHopLimits:
    """Return what the operator said of a next hop (`queue.schedule.fair_share.LimitsOf`)."""
    there = config.destination_for(next_hop.destination or next_hop.domain, next_hop.hosts)
    return _shared(
        NextHopLimits(
            connections=there.connections,
            recipients_per_message=there.recipients_per_message,
            rate=there.rate,
            retry_minimum=there.retry_minimum,
            retry_maximum=there.retry_maximum,
            lifetime=there.lifetime,
        )
    )


@lru_cache(maxsize=1000)
def _shared(limits: NextHopLimits) -> NextHopLimits:
    """Return the same limits for all next hops of which the same is said: there may be 100,000."""
    return limits


def tls(config: Config, next_hop: NextHop, domain: str, candidate: Candidate) -> dict[str, Any]:
    """Return what TLS a target must show, and why: ``level``, ``from``, ``memory``."""
    target = candidate.target
    host = next(
        (each for each in next_hop.hosts if (each.name, each.port) == (target.name, target.port)),
        None,
    )
    there = config.destination_for(domain, () if host is None else (host,))
    given = _given(config, there)
    said = origin(config, there, "tls")
    if target.address.startswith("/"):
        said = "a socket of this machine"
    elif next_hop.implicit_tls and there.tls in ("none", "may"):
        said = "smtps: in the route"
    elif there.username is not None and (given is None or given.tls in (None, "none", "may")):
        said = f"the account of [[destination]] {there.domain}: it never goes in clear"
    if candidate.level != candidate.terms.level:
        where = origin(config, there, "tls_memory")
        said = f"tls_memory = require ({where}): TLS was had with it before"
    memory = candidate.memory
    return {
        "level": candidate.level,
        "from": said,
        "implicit": candidate.terms.implicit_tls,
        "tls_memory": there.tls_memory,
        "memory": None if memory is None else attrs.asdict(memory),
    }


def _given(config: Config, destination: Destination) -> Destination | None:
    """Return the destination as it stands in the configuration, None where none is for it."""
    return next((each for each in config.destinations if each.domain == destination.domain), None)
