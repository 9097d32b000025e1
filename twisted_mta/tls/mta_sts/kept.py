"""What is kept of a domain's policy, and when it is fetched again (RFC 8461 §3.3, §5.1); pure."""

from __future__ import annotations

from attrs import evolve, frozen

from .policy import Policy

_DAY = 86_400.0
_REFRESHED = _DAY  # RFC 8461 §3.3 suggests a refresh once a day
_SOON = 60.0  # seconds between two fetches, where the record says that there is another policy
_FAILED = 300.0  # seconds after a fetch that failed; RFC 8461 §3.3: five minutes or longer
_LONGEST = 3_600.0  # to which those grow

LEAST_AGE = 300.0
"""Seconds that any policy is kept: with ``max_age: 0`` each mail would fetch one."""


@frozen(kw_only=True)
class Kept:
    """The policy of a domain, and the last attempt to fetch it; times in seconds since the epoch.

    Attributes:
        domain: whose it is.
        policy: the policy; None: there is none.
        id: of the record that the policy was fetched for.
        since: when this policy was fetched first.
        fetched: when it was fetched last.
        used: when mail went there, to the day.
        refresh: when to fetch it again, without any mail.
        tried: when a fetch was tried last.
        tried_id: of the record then.
        failures: fetches that have failed since the last that did not.
        problem: of the last fetch, printable; empty: it did not fail.
        trouble: its kind (`fetcher.Trouble`).
    """

    domain: str
    policy: Policy | None = None
    id: str = ""
    since: float = 0.0
    fetched: float = 0.0
    used: float = 0.0
    refresh: float = 0.0
    tried: float = 0.0
    tried_id: str = ""
    failures: int = 0
    problem: str = ""
    trouble: str = ""

    @property
    def expires(self) -> float:
        """When the policy is in force no more."""
        if self.policy is None:
            return 0.0
        return self.fetched + max(self.policy.max_age, LEAST_AGE)

    def in_force(self, now: float) -> bool:
        """Whether there is a policy, and it has not expired."""
        return self.policy is not None and now < self.expires

    def may_fetch(self, id: str, now: float) -> bool:
        """Whether the policy for a record may be fetched: not again and again in vain."""
        pause = _SOON if id != self.tried_id or not self.failures else _pause(self.failures)
        return not self.tried <= now < self.tried + pause

    def renewed(self, policy: Policy, id: str, now: float, fraction: float) -> Kept:
        """Return the same with a policy that was fetched just now.

        Args:
            policy: the policy.
            id: of the record.
            now: the time.
            fraction: a random number in [0, 1), which spreads the next fetches of domains.
        """
        is_the_same = self.in_force(now) and (policy, id) == (self.policy, self.id)
        age = min(_REFRESHED, max(policy.max_age, LEAST_AGE) / 2)
        return evolve(
            self,
            policy=policy,
            id=id,
            since=self.since if is_the_same else now,
            fetched=now,
            refresh=now + age * (0.75 + fraction / 4),
            tried=now,
            tried_id=id,
            failures=0,
            problem="",
            trouble="",
        )

    def failed(self, id: str, problem: str, trouble: str, now: float) -> Kept:
        """Return the same after a fetch that failed just now; a policy stays."""
        failures = self.failures + 1 if id == self.tried_id else 1
        return evolve(
            self,
            refresh=now + _pause(failures),
            tried=now,
            tried_id=id,
            failures=failures,
            problem=problem,
            trouble=trouble,
        )

    def postponed(self, now: float) -> Kept:
        """Return the same after a refresh without a record, which is no attempt to fetch."""
        return evolve(self, refresh=now + 2 * _FAILED)

    def merged(self, other: Kept) -> Kept:
        """Return what two processes know together of one domain."""
        policy = max(self, other, key=lambda each: each.fetched)
        attempt = max(self, other, key=lambda each: each.tried)
        return evolve(
            policy,
            used=max(self.used, other.used),
            refresh=attempt.refresh,
            tried=attempt.tried,
            tried_id=attempt.tried_id,
            failures=attempt.failures,
            problem=attempt.problem,
            trouble=attempt.trouble,
        )


def _pause(failures: int) -> float:
    return float(min(_LONGEST, _FAILED * 2 ** min(failures - 1, 10)))
