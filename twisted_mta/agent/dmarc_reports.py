"""Reports of DMARC in an agent: its observations are counted, and reported daily if wanted."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred

from ..config import Config
from ..policy.dmarc.observation import Observation
from ..reports.counters import CountersFile
from ..reports.daily import Reporter, Send
from ..reports.dmarc.reports import AggregateReports
from ..reports.dmarc.rows import ROWS
from .reporting import Reporting
from .resources import Resources

FILE = os.path.join("reports", "dmarc.sqlite")
"""The counters of all processes, in the state directory."""


class DMARCReports:
    """Counts and reports what DMARC observes, while the settings say so.

    Args:
        config: the settings.
        resources: clock, threads, DNS.
        send: sends a report.
    """

    def __init__(self, config: Config, *, resources: Resources, send: Send) -> None:
        self._config = config
        file = CountersFile(os.path.join(config.state_dir, FILE), ROWS)
        reports = AggregateReports(
            send=send,
            resolver=resources.resolver,
            executor=resources.file_executor,
            wall_time=resources.wall_time,
        )
        self._reporting = Reporting(reports, file, resources=resources, reporter=self._reporter)

    def use(self, config: Config) -> None:
        """Obey other settings from now on."""
        self._config = config
        self._reporting.use(config.policy.dmarc_reports)

    def observe(self, observation: Observation) -> None:
        """Take note of a message whose domain asks for reports."""
        if self._config.policy.dmarc_reports:
            published = observation.published
            self._reporting.observations.add(published.domain, observation.row, published.text)

    def stop(self) -> Deferred[list[tuple[bool, None]]]:
        """Send nothing more, and write the last counts; fires when that is done."""
        return self._reporting.stop()

    def _reporter(self) -> Reporter | None:
        if not self._config.policy.dmarc_reports:
            return None
        return Reporter(self._config.organization, self._config.report_from)
