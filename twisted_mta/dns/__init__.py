"""DNS lookups for mail: MX, address, TXT and PTR records, with the AD bit, from a stub resolver."""

from __future__ import annotations

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
