"""The state of a webhook, for people."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

_STATES = ("ready", "failing", "disabled", "stopped")  # the best first


@frozen(kw_only=True)
class WebhookStatus:
    """The state of a webhook, for people; all texts are printable.

    Attributes:
        key: of the webhook in the store.
        url: without its query.
        state: ``ready``, ``failing`` or ``disabled``.
        waiting: events that wait.
        octets: of those.
        posted: events that were taken since the start.
        failed: attempts that have failed since the start.
        dropped: events that were dropped since the start, since too many waited.
        expired: events that were dropped since the start for their age.
        last_success: wall time; None: there was none since the start.
        failing_since: wall time of the first failure since; None: the last attempt succeeded.
        error: the last failure; empty: the last attempt succeeded.
    """

    key: str
    url: str
    state: str
    waiting: int = 0
    octets: int = 0
    posted: int = 0
    failed: int = 0
    dropped: int = 0
    expired: int = 0
    last_success: float | None = None
    failing_since: float | None = None
    error: str = ""


def merged(statuses: Iterable[WebhookStatus]) -> tuple[WebhookStatus, ...]:
    """Return each webhook once, with the sums of all processes, and the worst state."""
    sums: dict[str, WebhookStatus] = {}
    for each in statuses:
        known = sums.get(each.key)
        sums[each.key] = each if known is None else _added(known, each)
    return tuple(sums.values())


def _added(first: WebhookStatus, second: WebhookStatus) -> WebhookStatus:
    worst = max(first, second, key=lambda each: _STATES.index(each.state))
    successes = [each for each in (first.last_success, second.last_success) if each is not None]
    failures = [each for each in (first.failing_since, second.failing_since) if each is not None]
    return evolve(
        worst,
        waiting=first.waiting + second.waiting,
        octets=first.octets + second.octets,
        posted=first.posted + second.posted,
        failed=first.failed + second.failed,
        dropped=first.dropped + second.dropped,
        expired=first.expired + second.expired,
        last_success=max(successes, default=None),
        failing_since=min(failures, default=None),
        error=worst.error or first.error or second.error,
    )
