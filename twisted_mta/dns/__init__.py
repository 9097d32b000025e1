"""DNS lookups for mail: MX, address, TXT and PTR records, with the AD bit, from a stub resolver."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .failure import DNSFailure, LookupFailed, NoSuchDomain
    from .hosts_file import read_hosts
    from .resolv_conf import ResolvConf, read_resolv_conf
    from .resolver import DNSResolver, Records

__all__ = [
    "DNSFailure",
    "DNSResolver",
    "LookupFailed",
    "NoSuchDomain",
    "Records",
    "ResolvConf",
    "read_hosts",
    "read_resolv_conf",
]

_MODULES = {
    "DNSFailure": "failure",
    "DNSResolver": "resolver",
    "LookupFailed": "failure",
    "NoSuchDomain": "failure",
    "Records": "resolver",
    "ResolvConf": "resolv_conf",
    "read_hosts": "hosts_file",
    "read_resolv_conf": "resolv_conf",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): a check needs no resolver."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
