"""The state of a webhook, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve, frozen

from ..health.trouble import Trouble
from ..mail.counted import counted

SURE = 3
"""Failures in a row after which it is a trouble, and pauses grow."""

_DROPPED_LATELY = 6 * 3600.0  # seconds for which dropped events are a trouble
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
        failures: attempts that have failed in a row.
        last_success: wall time; None: there was none since the start.
        failing_since: wall time of the first failure since; None: the last attempt succeeded.
        last_dropped: wall time at which events were dropped; None: none were since the start.
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
    failures: int = 0
    last_success: float | None = None
    failing_since: float | None = None
    last_dropped: float | None = None
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
    drops = [each for each in (first.last_dropped, second.last_dropped) if each is not None]
    return evolve(
        worst,
        waiting=first.waiting + second.waiting,
        octets=first.octets + second.octets,
        posted=first.posted + second.posted,
        failed=first.failed + second.failed,
        dropped=first.dropped + second.dropped,
        expired=first.expired + second.expired,
        failures=max(first.failures, second.failures),
        last_success=max(successes, default=None),
        failing_since=min(failures, default=None),
        last_dropped=max(drops, default=None),
        error=worst.error or first.error or second.error,
    )


def troubles(webhooks: Iterable[WebhookStatus], now: float) -> Iterator[Trouble]:
    """Yield what the operator has to know of webhooks, each of all processes together.

    Args:
        webhooks: as `merged`.
        now: wall time.
    """
    for each in webhooks:
        wait = counted(each.waiting, "event waits", "events wait")
        text = ""
        if each.state == "disabled":
            text = f"the webhook {each.url} answers 410, and is disabled until a reload: {wait}"
        elif each.failures >= SURE:
            text = f"the webhook {each.url} does not take events: {each.error}: {wait}"
        if text:
            yield Trouble(kind="webhooks", subject=each.url, text=text)
        if each.last_dropped is not None and now - each.last_dropped < _DROPPED_LATELY:
            text = counted(
                each.dropped + each.expired,
                f"event for the webhook {each.url} was dropped since the start: it has not taken it"
                " in time",
                f"events for the webhook {each.url} were dropped since the start: it has not taken"
                " them in time",
            )
            yield Trouble(kind="webhooks", subject=f"dropped {each.url}", text=text)
