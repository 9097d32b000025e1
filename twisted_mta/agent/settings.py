"""The settings of an agent's parts, as they follow from the configuration."""

from __future__ import annotations

from ..config import Config, Listener
from ..mail.address import Mailbox
from ..queue.runner import RunnerSettings
from ..queue.schedule.backoff import Backoff
from ..queue.store.sqlite import RESERVE
from ..server.intake_policy import IntakePolicy
from .authentication import submission_policy


def minimum_free(config: Config) -> int:
    """Return how many octets of the disk stay free: at least the store's own reserve."""
    return max(config.minimum_free_disk, RESERVE)


def intake_policy(
    config: Config, listener: Listener, local_domains: tuple[str, ...]
) -> IntakePolicy:
    """Return what a listener accepts.

    Args:
        config: the configuration.
        listener: one of its listeners.
        local_domains: the domains whose mailboxes are ours, the first local one first.
    """
    return IntakePolicy(
        hostname=config.hostname,
        local_domains=local_domains,
        relay_from=() if listener.is_submission else config.relay_from,
        submission=submission_policy(listener),
        relay_certificates=listener.relay_certificates,
        local_only=listener.kind == "lmtp",
        direct=listener.kind == "lmtp" and listener.lmtp_delivery == "direct",
        missing_members=config.missing_members,
        max_hops=listener.max_hops,
        max_header_size=listener.max_header_size,
        lifetime=config.queue.lifetime,
    )


def runner_settings(config: Config) -> RunnerSettings:
    """Return how the queue runner tries, and gives up."""
    return RunnerSettings(
        hostname=config.hostname,
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
