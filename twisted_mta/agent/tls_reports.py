"""Reports on TLS in an agent: results of sessions are counted, and reported daily if wanted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from sqlite3 import Error as SQLiteError
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from ..config import Config
from ..mail.envelope import TLS_OPTIONAL, Parameters
from ..mail.printable import printable
from ..mail.tls_result import TLSResult
from ..reports.counters import CountersFile
from ..reports.daily import Attempt, Reporter, Send
from ..reports.tls.posting import LARGEST_ANSWER, Poster
from ..reports.tls.record import Collector, name_of
from ..reports.tls.report import TLSReport
from ..reports.tls.reports import TLSReports
from ..reports.tls.rows import ROWS, row_of
from ..telemetry.metrics import Metrics, table
from ..tls.client import ClientContexts
from ..tls.https import HTTPSClient
from .mta_sts import MTASTS
from .reporting import Reporting
from .resources import Resources

FILE = os.path.join("reports", "tls.sqlite")
"""The counters of all processes, in the state directory."""

LIFETIME = 86_400.0
"""Seconds that the delivery of a report is tried (RFC 8460 §5.5)."""

REPORT_PARAMETERS: Parameters = {TLS_OPTIONAL: "NO"}
"""Of a report's mail: it is delivered despite failures of TLS (RFC 8460 §3, RFC 8689 §3)."""

_SPREAD = 10_800.0  # seconds: until four o'clock, since many MTAs report to one domain
_MOST_ROWS = 500
_MOST_REPORTS = 20_000
_MOST_SHOWN = 100


class SessionReports:
    """Counts and reports the results of TLS sessions with next hops, while the settings say so.

    Args:
        config: the settings.
        resources: clock, threads, DNS.
        send: sends a report by mail.
        contexts: makes TLS connections to collectors.
        mta_sts: has the settings of such connections.
        metrics: where reports are counted.
    """

    def __init__(
        self,
        config: Config,
        *,
        resources: Resources,
        send: Send,
        contexts: ClientContexts,
        mta_sts: MTASTS,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._executor = resources.file_executor
        self._wall_time = resources.wall_time
        self._file = file = CountersFile(
            os.path.join(config.state_dir, FILE),
            ROWS,
            keeps_sent=True,
            most_rows=_MOST_ROWS,
            most_reports=_MOST_REPORTS,
        )
        self._metrics = metrics
        client = HTTPSClient(
            reactor=resources.reactor,
            resolver=resources.resolver,
            contexts=contexts,
            tls=mta_sts.tls,
            largest=LARGEST_ANSWER,
        )
        self._mta_sts = mta_sts
        # Where the operator names authorities, they may be those of a private network.
        self._poster = Poster(client, private=lambda: mta_sts.authorities() is not None)
        self._reports = TLSReports(
            file,
            send=send,
            post=self._post,
            resolver=resources.resolver,
            executor=resources.file_executor,
            wall_time=resources.wall_time,
            count=lambda way, result: metrics.count(table.TLS_REPORTS, way, result),
        )
        self._reporting = Reporting(
            self._reports, file, resources=resources, reporter=self._reporter, spread=_SPREAD
        )

    def use(self, config: Config) -> None:
        """Obey other settings from now on."""
        self._config = config
        self._reporting.use(self.are_wanted)

    def note(self, result: TLSResult) -> None:
        """Take note of the result of a session, or of a look for a policy."""
        self._metrics.count(table.TLS_RESULTS, result.policy_type, result.result or "success")
        if self.are_wanted:
            self._reporting.observations.add(result.recipient_domain, row_of(result))

    def flush(self) -> Deferred[None]:
        """Write what was counted, for the other processes to see."""
        return self._reporting.observations.flush()

    async def shown(self, domain: str | None) -> Sequence[dict[str, Any]]:
        """Return the reports as they would be sent now, the last one of each domain.

        Args:
            domain: that would get it; None: all, but no more than a hundred.

        Returns:
            For each its ``domain``, where it goes to (``to``), what is wrong with that (``faults``)
            and the JSON of the ``report``.

        Raises:
            ValueError: the counters cannot be read.
        """
        reporter = self._reporter()
        if reporter is None:
            return []
        try:
            await self._executor(self._file.make)
            found = await self._executor(self._file.read, self._wall_time(), domain, _MOST_SHOWN)
        except (OSError, SQLiteError) as error:
            raise ValueError(f"the counters cannot be read: {error}") from None
        answers = []
        for claimed in found:
            answer: dict[str, Any] = {"domain": claimed.domain, "to": [], "faults": []}
            try:
                record = await self._reports.record(claimed.domain)
            except Exception as error:
                answer["faults"] = [printable(str(error))]
            else:
                if record is None:
                    answer["faults"] = [f"{name_of(claimed.domain)} has no record for it"]
                else:
                    answer["to"] = [f"mailto:{each}" for each in record.mailboxes]
                    answer["to"] += map(str, record.collectors)
                    answer["faults"] = list(record.faults)
            named = evolve(claimed, id=claimed.id or "draft")
            answer["report"] = TLSReport.of(named, reporter).values()
            answers.append(answer)
        return answers

    async def send_now(self, domain: str | None) -> Sequence[tuple[str, Attempt]]:
        """Send what was counted and not sent yet; return the domain and the attempt of each report.

        Raises:
            ValueError: the counters cannot be read.
        """
        try:
            return await self._reporting.daily.send_now(domain)
        except (OSError, SQLiteError) as error:
            raise ValueError(f"the counters cannot be read: {error}") from None

    def _post(self, collector: Collector, content: bytes, media_type: str) -> Deferred[None]:
        async def post() -> None:
            await self._mta_sts.ready(self._mta_sts.tls())
            await self._poster.post(collector, content, media_type)

        return Deferred.fromCoroutine(post())

    @property
    def are_wanted(self) -> bool:
        """Whether the settings turn reports on."""
        return self._config.tls_report is not None

    def stop(self) -> Deferred[list[tuple[bool, None]]]:
        """Send nothing more, and write the last counts; fires when that is done."""
        return self._reporting.stop()

    def _reporter(self) -> Reporter | None:
        if self._config.tls_report is None:
            return None
        return Reporter(self._config.organization, self._config.report_from)
