"""The settings for mail to a next hop, each with the table of the configuration it comes from."""

from __future__ import annotations

from typing import Any

import attrs

from ...config import Config, Destination
from ...config.destination_table import NOT_BY_EXCHANGER
from ...delivery.candidates import Candidate
from ...mail.next_hop import NextHop
from ...mail.tls_policy import SETTINGS

DEFAULT = "default"

# For settings that a destination leaves out: the table, and the name in it.
_GENERAL = {
    "tls": ("delivery", "tls"),
    "tls_memory": ("delivery", "tls_memory"),
    "eight_bit_headers": ("delivery", "eight_bit_headers"),
    "authorities": ("delivery", "authorities"),
    "source_address": ("delivery", "source_address"),
    "source_pool": ("delivery", "source_pool"),
    "connections": ("queue", "connections_per_hop"),
    "retry_minimum": ("queue", "retry_minimum"),
    "retry_maximum": ("queue", "retry_maximum"),
    "lifetime": ("queue", "lifetime"),
}

# Levels that an account, or smtps: in a route, raise to "encrypt".
_RAISED = ("none", "may", "auto")

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
    """Return the table of the configuration that gives a setting: ``[[destination]] example.net``.

    Args:
        config: the settings in force.
        destination: the settings for the domain, complete.
        name: of the setting.
    """
    given = _given(config, destination)
    if given is not None and given.exchanger is not None and name in NOT_BY_EXCHANGER:
        given = _given(config, config.destination_for(""))  # the table for *, if there is one
    if given is not None and getattr(given, name) != _DESTINATION_DEFAULTS[name]:
        return f"[[destination]] {given.name}"
    if name in _GENERAL:
        table, general_name = _GENERAL[name]
        settings = getattr(config, table)
        if getattr(settings, general_name) != getattr(type(settings)(), general_name):
            return f"[{table}]"
    return DEFAULT


def terms(config: Config, next_hop: NextHop, domain: str) -> dict[str, Any]:
    """Return the settings for mail to a domain by a next hop, each with its value and its origin.

    Durations are in seconds; the password is left out.
    """
    destination = config.destination_for(
        next_hop.destination or domain, next_hop.hosts, next_hop.exchanger
    )
    settings: dict[str, Any] = {}
    for name in (*_LIMITS, "source_address", "source_pool", "client_certificate", "username"):
        value = getattr(destination, name)
        if name == "rate" and value is not None:
            value = str(value)
        if name == "source_address":
            value = list(value or ()) or None
        settings[name] = {"value": value, "from": origin(config, destination, name)}
    settings["account"] = settings.pop("username")
    given = _given(config, destination)
    return {"destination": None if given is None else given.name, **settings}


def tls(config: Config, next_hop: NextHop, domain: str, candidate: Candidate) -> dict[str, Any]:
    """Return the TLS that a target must offer, and why: ``level``, ``from``, ``since``, ``memory``.

    ``problem`` says why it is not connected to now.
    """
    target = candidate.target
    host = next(
        (each for each in next_hop.hosts if (each.name, each.port) == (target.name, target.port)),
        None,
    )
    hosts = () if host is None else (host,)
    destination = config.destination_for(domain, hosts, next_hop.exchanger)
    given = _given(config, destination)
    source = origin(config, destination, "tls")
    if target.address.startswith("/"):
        source = "a socket of this machine"
    elif next_hop.implicit_tls and destination.tls in _RAISED:
        source = "smtps: in the route"
    elif destination.username is not None and (given is None or given.tls in (None, *_RAISED)):
        source = f"the account of [[destination]] {destination.name}: it never goes in clear"
    policy = candidate.policy
    if policy.source != SETTINGS:
        source = policy.source
    if policy.remembered:
        where = origin(config, destination, "tls_memory")
        source = f"tls_memory = require ({where}): TLS was used with it before"
    memory = candidate.memory
    return {
        "level": policy.level,
        "from": source,
        "since": policy.since,
        "problem": policy.problem,
        "implicit": candidate.terms.implicit_tls,
        "tls_memory": destination.tls_memory,
        "memory": None if memory is None else attrs.asdict(memory),
    }


def _given(config: Config, destination: Destination) -> Destination | None:
    """Return a destination as the configuration has it; None where it has none for that domain."""
    return next((each for each in config.destinations if each.name == destination.name), None)
