"""What the sender of a message demands of the TLS to its next hop (RFC 8689).

REQUIRETLS: the message goes only to a server that proves its name, by way of a name that is proved
to be that of an exchanger, and that announces REQUIRETLS itself. ``TLS-Required: No``: what the
recipient's domain publishes about TLS is set aside; what the operator demands is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from attrs import evolve

from ..mail.message import Message
from ..mail.next_hop import NextHop, Target
from ..mail.reply import Reply
from ..mail.tls_policy import SETTINGS, TLSPolicy
from ..smtp.client.step import Unusable
from ..smtp.extension.requiretls import unprotected
from .terms import HostTerms, Terms, Wish

_SOURCES: Mapping[Wish, str] = {
    "required": "REQUIRETLS of the message",
    "optional": "TLS-Required: No of the message",
}

_PROVED = ("verify", "dane")


def wished(next_hop: NextHop, message: Message, host_terms: HostTerms) -> HostTerms:
    """Return the terms with the hosts of a next hop, with what the sender demands."""
    envelope = message.envelope
    if envelope.tls_optional:
        return tuple(_optional(terms) for terms in host_terms)
    if not envelope.requires_tls:
        return host_terms
    # RFC 8689 §4.2.1: of messages with a reverse-path. Notices go on in any case (§5).
    demanded = _preferred if envelope.reverse_path is None else _required
    hosts = next_hop.hosts or (None,)
    return tuple(
        terms if host is not None and is_final(terms, host.name) else demanded(terms)
        for host, terms in zip(hosts, host_terms, strict=True)
    )


def _optional(terms: Terms) -> Terms:
    level = "may" if terms.level == "auto" else terms.level
    return evolve(terms, level=level, wish="optional")


def _preferred(terms: Terms) -> Terms:
    return evolve(terms, wish="preferred")


def _required(terms: Terms) -> Terms:
    level = "auto" if terms.level in ("none", "may", "encrypt") else terms.level
    return evolve(terms, level=level, least="verify", wish="required")


def is_final(terms: Terms, host: str) -> bool:
    """Whether a host delivers on this machine, where nothing of a message can be read on the way.

    RFC 8689 §4.4: such a delivery is the end of REQUIRETLS.
    """
    if terms.dialect != "lmtp":
        return False
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def fitted(policy: TLSPolicy, terms: Terms) -> TLSPolicy:
    """Return a policy with a level that is good enough for the sender, and its source."""
    if terms.wish not in _SOURCES or policy.problem is not None:
        return policy
    source = _SOURCES[terms.wish]
    if terms.wish == "required" and policy.testing:
        # Under that policy faults of the certificate would only be noted.
        return evolve(policy, level="verify", source=source, testing=False, patterns=(), fault="")
    if terms.wish == "required" and policy.level not in _PROVED:
        return evolve(policy, level="verify", source=source)
    return evolve(policy, source=source) if policy.source == SETTINGS else policy


def is_proved(next_hop: NextHop, target: Target, policy: TLSPolicy) -> bool:
    """Whether a name is known to be that of a host of the next hop (RFC 8689 §2, §4.2.1).

    It is where the operator or the recipient names the host, DNSSEC proves the MX records, or an
    MTA-STS policy that is enforced has the name.
    """
    named = bool(next_hop.hosts) or target.name == next_hop.domain
    return named or target.secure or (bool(policy.patterns) and not policy.testing)


def refusal(next_hop: NextHop, target: Target, terms: Terms, policy: TLSPolicy) -> Reply | None:
    """Return why a host cannot have the message; None: it may, as far as is known by now."""
    if policy.problem is not None:
        return Reply.of(454, "7.5", f"{target}: {policy.problem}")
    if terms.wish == "required" and not is_proved(next_hop, target, policy):
        reason = f"neither DNSSEC nor MTA-STS proves that it is an exchanger of {next_hop.domain}"
        return unprotected(f"{target}: {reason}")
    return None


def judged(unusable: Unusable, terms: Terms) -> Unusable:
    """Return why a connection was of no use, as it counts for the sender.

    RFC 8689 §4.2.1: a server without TLS, or whose certificate proves nothing, does not get the
    message. That is no matter of time, unlike a handshake that was interrupted.
    """
    reply = unusable.reply
    missing = reply.status == "7.4" and unusable.tls is None
    unproved = reply.status == "7.5" and unusable.tls is not None
    if terms.wish != "required" or unusable.remote is not None or not (missing or unproved):
        return unusable
    return evolve(unusable, reply=unprotected(reply.text))
