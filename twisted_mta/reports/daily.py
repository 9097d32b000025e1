"""Sends the aggregate reports of the day before, each once, from whichever process comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sqlite3 import Error as SQLiteError

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..interfaces import Clock, Executor, Random, Refused, Resolver, WallTime
from ..mail.address import Mailbox
from ..policy.dmarc.discovery import Published
from ..policy.dmarc.record import Record
from .aggregate import DAY, AggregateReport, attachment
from .counters import Claimed, CountersFile
from .destinations import destinations
from .mail import report_mail

INTERVAL = 600.0
"""Seconds from one look for reports to the next."""

_LATE = 1_800.0  # seconds after midnight, when all processes have written their last counts
_SPREAD = 3_600.0  # seconds over which the beginnings of different MTAs are spread

Send = Callable[[Mailbox, bytes, Sequence[Mailbox]], Deferred[None]]
"""Send a message: its reverse-path, its content, its recipients.

Fires after the commit, or fails with `interfaces.Refused`.
"""


@frozen
class Reporter:
    """The name and address that reports come from."""

    organization: str
    contact: Mailbox


class DailyReports:
    """Sends the reports on past days, soon after they have ended in UTC.

    Args:
        file: the counters on disk.
        reporter: the name and address of reports; None: none are sent now.
        send: sends a report.
        resolver: finds out who agrees to get reports.
        executor: where the file is read, and reports are made.
        clock: for the interval.
        wall_time: tells the day.
        random: spreads reports over an hour, and makes up their ids.
    """

    _log = Logger()

    def __init__(
        self,
        file: CountersFile,
        *,
        reporter: Callable[[], Reporter | None],
        send: Send,
        resolver: Resolver,
        executor: Executor,
        clock: Clock,
        wall_time: WallTime,
        random: Random,
    ) -> None:
        self._file = file
        self._reporter = reporter
        self._send = send
        self._resolver = resolver
        self._executor = executor
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._timer: IDelayedCall | None = None
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Send reports from now on."""
        self._timer = self._clock.callLater(INTERVAL * self._random.random(), self._look)

    def pause(self) -> None:
        """Begin no further report until `start`."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def stop(self) -> Deferred[None]:
        """Begin no further report, and give up the one under way, which is sent again later."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.pause()
        running = self._running
        if running is not None:
            ended: Deferred[None] = Deferred()
            running.addBoth(lambda _: ended.callback(None))
            running.cancel()
            await ended

    def _look(self) -> None:
        if self._running is not None:  # it was paused and started meanwhile
            self._timer = self._clock.callLater(INTERVAL, self._look)
            return
        self._running = Deferred.fromCoroutine(self._send_all())

        def ended(_: object) -> None:
            self._running = None
            if self._timer is not None and not self._timer.active():
                self._timer = self._clock.callLater(INTERVAL, self._look)

        self._running.addErrback(lambda failure: failure.trap(CancelledError))
        self._running.addErrback(
            lambda failure: self._log.failure("DMARC reports could not be sent", failure)
        )
        self._running.addBoth(ended)

    async def _send_all(self) -> None:
        now = self._wall_time()
        late = _LATE + _SPREAD * self._random.random()
        today = int((now - late) // DAY)
        while (reporter := self._reporter()) is not None:
            id = f"{self._random.getrandbits(96):024x}"
            try:
                await self._executor(self._file.make)
                claimed = await self._executor(self._file.claim, today, now, id)
                if claimed is None:
                    return
                await self._report(claimed, reporter)
            except (OSError, SQLiteError) as error:
                self._log.warn("DMARC reports have to wait: {error}", error=str(error))
                return

    async def _report(self, claimed: Claimed, reporter: Reporter) -> None:
        """Send one report, or leave it claimed, to be tried again in an hour."""
        record = Record.parse(claimed.record)
        assert record is not None  # only records were counted
        published = Published(claimed.domain, record, claimed.record)
        found = await destinations(published, self._resolver)
        if found.unknown and claimed.day >= int(self._wall_time() // DAY) - 1:
            return  # RFC 9990 §4, step 5: it may wait until the DNS answers
        if not found.agreed:
            self._log.info(
                "no DMARC report on {domain}: no destination has agreed to get it",
                domain=claimed.domain,
            )
            await self._executor(self._file.sent, claimed)
            return
        report = AggregateReport(
            id=claimed.id,
            organization=reporter.organization,
            contact=reporter.contact,
            day=claimed.day,
            published=published,
            rows=claimed.rows,
            omitted=claimed.omitted,
        )
        content = await self._executor(self._content, report, found.agreed)
        try:
            await self._send(reporter.contact, content, found.agreed)
        except Refused as error:
            self._log.warn(
                "the DMARC report on {domain} has to wait: {reply}",
                domain=claimed.domain,
                reply=error.reply,
            )
            return
        await self._executor(self._file.sent, claimed)
        self._log.info(
            "DMARC report {report} on {domain} to {destinations}: {messages} messages",
            report=claimed.id,
            domain=claimed.domain,
            destinations=", ".join(map(str, found.agreed)),
            messages=sum(messages for _, messages in claimed.rows),
        )

    def _content(self, report: AggregateReport, to: Sequence[Mailbox]) -> bytes:
        return report_mail(report, attachment(report), to, time=self._wall_time())
