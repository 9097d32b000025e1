"""What a runner is told."""

from __future__ import annotations

from attrs import frozen

from ..mail.address import Mailbox
from .notices import NoticeSettings
from .schedule.backoff import Backoff


@frozen(kw_only=True)
class RunnerSettings:
    """What a runner is told.

    Attributes:
        hostname: our name in DSNs.
        backoff: when to try again.
        longest: seconds between two attempts that no next hop goes beyond whose schedule is another
            one; None: there is none.
        lifetime: seconds that a DSN has before it is given up.
        concurrency: transactions with other hosts at once. What is done here, into Maildirs, does
            not wait for those who do not answer.
        per_hop: transactions at once with one next hop.
        delay_warning: seconds after which senders are told of a delay; None: never.
        postmaster: who gets the failures of what has no sender; None: nobody.
    """

    hostname: str
    backoff: Backoff
    longest: float | None = None
    lifetime: float = 5 * 24 * 3600.0
    concurrency: int = 300
    per_hop: int = 20
    delay_warning: float | None = None
    postmaster: Mailbox | None = None

    @property
    def notices(self) -> NoticeSettings:
        """What notices there are."""
        return NoticeSettings(
            hostname=self.hostname,
            lifetime=self.lifetime,
            delay_warning=self.delay_warning,
            postmaster=self.postmaster,
        )

    @property
    def latest(self) -> float:
        """Seconds that nothing is put off beyond."""
        return max(self.backoff.maximum, self.longest or 0.0)
