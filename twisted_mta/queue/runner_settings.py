"""The settings of a runner, from the configuration."""

from __future__ import annotations

from attrs import frozen

from ..mail.address import Mailbox
from .notices import NoticeSettings
from .schedule.backoff import Backoff


@frozen(kw_only=True)
class RunnerSettings:
    """The settings of a runner.

    Attributes:
        hostname: of this server, as DSNs name it.
        notice_domain: of the address in From of a DSN; empty: the hostname.
        backoff: between attempts, where a next hop has none of its own.
        longest: seconds between two attempts at most, at next hops with a back-off of their own;
            None: there are none.
        lifetime: seconds that the delivery of a DSN is tried.
        concurrency: transactions with other hosts at once. Local delivery does not count, so that
            it does not wait for hosts that hang.
        per_hop: transactions with one next hop at once.
        delay_warning: seconds after which a delay is reported to the sender; None: never.
        postmaster: gets notices about failed mail that has no sender; None: no notice is written.
    """

    hostname: str
    backoff: Backoff
    notice_domain: str = ""
    longest: float | None = None
    lifetime: float = 5 * 24 * 3600.0
    concurrency: int = 300
    per_hop: int = 20
    delay_warning: float | None = None
    postmaster: Mailbox | None = None

    @property
    def notices(self) -> NoticeSettings:
        """The settings of notices."""
        return NoticeSettings(
            hostname=self.hostname,
            domain=self.notice_domain,
            lifetime=self.lifetime,
            delay_warning=self.delay_warning,
            postmaster=self.postmaster,
        )

    @property
    def latest(self) -> float:
        """Seconds that a recipient is put off at most."""
        return max(self.backoff.maximum, self.longest or 0.0)
