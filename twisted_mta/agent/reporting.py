"""Reports of one kind in an agent: observations are counted, and reported daily while wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from twisted.internet.defer import Deferred, DeferredList

from ..reports.counters import CountersFile, R
from ..reports.daily import DailyReports, Reporter, Reports
from ..reports.observations import Observations
from .resources import Resources

_SPREAD = 3_600.0


class Reporting(Generic[R]):
    """Counts observations in a file that all processes share, and sends daily reports on them.

    Args:
        reports: sends one.
        file: the counters.
        resources: clock, threads.
        reporter: the name and address of reports; None: none are sent now.
        spread: seconds over which the beginnings of different MTAs are spread.

    Attributes:
        observations: counts.
        daily: sends.
    """

    def __init__(
        self,
        reports: Reports[R],
        file: CountersFile[R],
        *,
        resources: Resources,
        reporter: Callable[[], Reporter | None],
        spread: float = _SPREAD,
    ) -> None:
        self.observations = Observations(
            reports.name,
            file,
            executor=resources.file_executor,
            clock=resources.reactor,
            wall_time=resources.wall_time,
        )
        self.daily = DailyReports(
            reports,
            file,
            reporter=reporter,
            executor=resources.file_executor,
            clock=resources.reactor,
            wall_time=resources.wall_time,
            random=resources.random,
            spread=spread,
        )
        self._is_wanted = False

    def use(self, is_wanted: bool) -> None:
        """Send reports from now on, or begin no further one."""
        if is_wanted and not self._is_wanted:
            self.daily.start()
        elif not is_wanted:
            self.daily.pause()
        self._is_wanted = is_wanted

    def stop(self) -> Deferred[list[tuple[bool, None]]]:
        """Send nothing more, and write the last counts; fires when that is done."""
        return DeferredList([self.daily.stop(), self.observations.stop()])
