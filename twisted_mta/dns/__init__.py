"""DNS records as a mail transfer agent needs them, each with the authenticated (AD) bit.

failure
    what a lookup without an answer raises;
message
    the form of questions and answers, pure;
cache
    answers for their time to live;
nameserver
    what is known of a name server;
question
    one question to name servers, by UDP and TCP on the reactor, without threads;
system
    what ``/etc/resolv.conf`` and ``/etc/hosts`` say, looked at again when they change;
resolver
    `DNSResolver`: all of it together.
"""

from __future__ import annotations

from .failure import DNSFailure, LookupFailed, NoSuchDomain
from .resolver import DNSResolver, Records
from .system import Resolution, system_hosts, system_resolution

__all__ = [
    "DNSFailure",
    "DNSResolver",
    "LookupFailed",
    "NoSuchDomain",
    "Records",
    "Resolution",
    "system_hosts",
    "system_resolution",
]
