"""The settings of an agent's parts, as they follow from the configuration."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from ..config import Config, Listener
from ..mail.address import Mailbox
from ..mail.next_hop import NextHop
from ..policy.feedback.fields import FeedbackTerms
from ..queue.runner import RunnerSettings
from ..queue.schedule.backoff import Backoff
from ..queue.schedule.next_hops import NextHopLimits
from ..queue.store.sqlite import RESERVE
from ..server.intake_policy import IntakePolicy
from ..system.accepting import share
from .authentication import submission_policy

OWN_MAIL = Listener(endpoint="tcp:0")
"""A listener whose limits hold for mail of the application."""

LONGEST_HOLD = OWN_MAIL.max_future_release
"""Seconds that mail of the application may be held."""

_IDLE_CONNECTIONS = 500  # with next hops: more than are busy at once by default


def largest_submission(config: Config) -> int:
    """Return the octets that a message of the application may have: what any listener takes."""
    return max(each.max_message_size for each in (OWN_MAIL, *config.listeners))


def shared_settings(config: Config) -> str:
    """Return a digest of the settings that have to be the same on all machines of a queue."""
    limits = [
        [
            (each.domain, each.exchanger, each.connections, str(each.rate))
            for each in config.all_destinations
        ],
        config.queue.connections_per_hop,
        config.account_limits,
        config.limits_of_accounts,
        config.source_pools,
    ]
    return sha256(repr(limits).encode()).hexdigest()[:16]


def minimum_free(config: Config) -> int:
    """Return how many octets of the disk stay free: at least the store's own reserve."""
    return max(config.minimum_free_disk, RESERVE)


def intake_policy(
    config: Config, listener: Listener, local_domains: tuple[str, ...]
) -> IntakePolicy:
    """Return the policy of a listener's intake.

    Args:
        config: the configuration.
        listener: one of its listeners.
        local_domains: the domains whose mailboxes are ours, the first local one first.
    """
    return IntakePolicy(
        hostname=config.hostname,
        local_domains=local_domains,
        relay_domains=config.relay_domains if listener.kind == "smtp" else (),
        relay_from=() if listener.is_submission else config.relay_from,
        submission=submission_policy(listener),
        relay_certificates=listener.relay_certificates,
        local_only=listener.kind == "lmtp" and not config.capture,
        relays_all=config.capture or listener.is_local_submission,
        direct=listener.kind == "lmtp" and listener.lmtp_delivery == "direct",
        signs=bool(config.dkim_keys),
        feedback=_feedback_terms(config),
        suppresses=config.suppression is not None,
        missing_members=config.missing_members,
        max_hops=listener.max_hops,
        max_header_size=listener.max_header_size,
        authserv_id=config.authserv_id if config.policy.is_used else "",
        lifetime=config.queue.lifetime,
    )


def _feedback_terms(config: Config) -> FeedbackTerms | None:
    if config.feedback is None:
        return None
    domains = frozenset(key.domain for key in config.dkim_keys)
    return FeedbackTerms(config.feedback.address, domains)


def runner_settings(config: Config) -> RunnerSettings:
    """Return how the queue runner tries, and gives up."""
    return RunnerSettings(
        hostname=config.hostname,
        notice_domain=notice_domain(config),
        backoff=Backoff(config.queue.retry_minimum, config.queue.retry_maximum),
        lifetime=config.queue.lifetime,
        concurrency=config.queue.concurrency,
        per_hop=config.queue.connections_per_hop,
        longest=max(
            max(each.retry_maximum or 0.0, each.retry_minimum or 0.0)
            for each in config.all_destinations
        )
        or None,
        delay_warning=config.queue.delay_warning,
        postmaster=(
            Mailbox("postmaster", config.local_domains[0])
            if config.queue.bounce_postmaster
            else None
        ),
    )


def idle_connections() -> int:
    """Return how many connections to next hops this process keeps idle at the most."""
    return share(_IDLE_CONNECTIONS)


def notice_domain(config: Config) -> str:
    """Return the domain of the address in From of our notices.

    It is one that a key signs for: the hostname, or else the first local domain. Without such a
    key, it is the hostname.
    """
    signing = tuple(f".{key.domain}" for key in config.dkim_keys)
    for domain in (config.hostname, *config.local_domains):
        if f".{domain.lower()}".endswith(signing):
            return domain
    return config.hostname


def limits_of(config: Config, next_hop: NextHop) -> NextHopLimits:
    """Return the operator's limits for a next hop (`queue.schedule.fair_share.LimitsOf`)."""
    name = str(next_hop) if next_hop.delivery else next_hop.destination or next_hop.domain
    destination = config.destination_for(name, next_hop.hosts, next_hop.exchanger)
    return _shared(
        NextHopLimits(
            connections=destination.connections,
            recipients_per_message=destination.recipients_per_message,
            rate=destination.rate,
            retry_minimum=destination.retry_minimum,
            retry_maximum=destination.retry_maximum,
            lifetime=destination.lifetime,
        )
    )


@lru_cache(maxsize=1000)
def _shared(limits: NextHopLimits) -> NextHopLimits:
    """Return one object for all next hops with the same limits: there may be 100,000."""
    return limits
