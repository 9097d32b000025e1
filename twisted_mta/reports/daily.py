"""Sends the reports of the day before, each once, from whichever process comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from sqlite3 import Error as SQLiteError
from typing import Any, Generic, Protocol

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor, Random, WallTime
from ..mail.address import Mailbox
from .counters import DAY, Claimed, CountersFile, R

INTERVAL = 600.0
"""Seconds from one look for reports to the next."""

_AT_A_TIME = 4  # reports
_LATE = 1_800.0  # seconds after midnight, when all processes have written their last counts

Send = Callable[[Mailbox, bytes, Sequence[Mailbox]], Deferred[None]]
"""Send a message: its reverse-path, its content, its recipients.

Fires after the commit, or fails with `interfaces.Refused`.
"""


@frozen
class Reporter:
    """The name and address that reports come from."""

    organization: str
    contact: Mailbox


@frozen
class Attempt:
    """What came of an attempt to send a report.

    Attributes:
        done: whether nothing is left to be done about it.
        what: for people, printable: ``sent to a@b.example``.
    """

    done: bool
    what: str


class Reports(Protocol[R]):
    """One kind of reports: what they say, and where they go."""

    @property
    def name(self) -> str:
        """The kind, for the log: ``DMARC``."""
        ...

    async def send(self, claimed: Claimed[R], reporter: Reporter, *, last: bool) -> Attempt:
        """Send a report.

        Args:
            claimed: what was counted.
            reporter: whom it comes from.
            last: whether there will be no other attempt.

        Raises:
            OSError, sqlite3.Error: the disk refuses.
        """
        ...


class DailyReports(Generic[R]):
    """Sends the reports on past days, soon after they have ended in UTC.

    Args:
        reports: sends one.
        file: the counters on disk.
        reporter: the name and address of reports; None: none are sent now.
        executor: where the file is read.
        clock: for the interval.
        wall_time: tells the day.
        random: spreads reports, and makes up their ids.
        spread: seconds over which the beginnings of different MTAs are spread.
    """

    _log = Logger()

    def __init__(
        self,
        reports: Reports[R],
        file: CountersFile[R],
        *,
        reporter: Callable[[], Reporter | None],
        executor: Executor,
        clock: Clock,
        wall_time: WallTime,
        random: Random,
        spread: float = 3_600.0,
    ) -> None:
        self._reports = reports
        self._file = file
        self._reporter = reporter
        self._executor = executor
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._spread = spread
        self._timer: IDelayedCall | None = None
        self._running: Deferred[None] | None = None
        self._asked: list[Deferred[Sequence[tuple[str, Attempt]]]] = []  # by an operator
        self._stopped = False

    def start(self) -> None:
        """Send reports from now on."""
        self._stopped = False
        self._timer = self._clock.callLater(INTERVAL * self._random.random(), self._look)

    def pause(self) -> None:
        """Begin no further report until `start`."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def stop(self) -> Deferred[None]:
        """Begin no further report, and give up the one under way, which is sent again later.

        A report whose commit is under way is sent: a commit cannot be cancelled.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopped = True
        self.pause()
        for asked in tuple(self._asked):
            asked.cancel()
        running = self._running
        if running is not None:
            ended: Deferred[None] = Deferred()
            running.addBoth(lambda _: ended.callback(None))
            running.cancel()
            await ended

    def send_now(self, domain: str | None) -> Deferred[Sequence[tuple[str, Attempt]]]:
        """Send what was counted and not sent yet, also of the day that goes on.

        Args:
            domain: that gets a report; None: all.

        Returns:
            Fires with the domain and the attempt of each report; fails with OSError or
            sqlite3.Error where the disk refuses.
        """
        asked = Deferred.fromCoroutine(self._send_now(domain))
        self._asked.append(asked)

        def ended(result: Any) -> Any:
            self._asked.remove(asked)
            return result

        return asked.addBoth(ended)

    async def _send_now(self, domain: str | None) -> Sequence[tuple[str, Attempt]]:
        attempts = []
        last = (-1, "")
        # A cancellation during a commit has no effect on what waits for it.
        while not self._stopped and (reporter := self._reporter()) is not None:
            claim = partial(self._file.claim, domain=domain, at_once=True, after=last)
            claimed = await self._claim(claim, 0.0)
            if claimed is None:
                break
            last = (claimed.day, claimed.domain)
            attempts.append((claimed.domain, await self._send(claimed, reporter)))
        return attempts

    def _look(self) -> None:
        if self._running is not None:  # it was paused and started meanwhile
            self._timer = self._clock.callLater(INTERVAL, self._look)
            return
        self._running = Deferred.fromCoroutine(self._send_all())

        def ended(_: object) -> None:
            self._running = None
            if self._timer is not None and not self._timer.active():
                self._timer = self._clock.callLater(INTERVAL, self._look)

        self._running.addErrback(self._not_sent)
        self._running.addBoth(ended)

    async def _send_all(self) -> None:
        # A destination that does not answer holds up one of several.
        late = _LATE + self._spread * self._random.random()
        free = DeferredSemaphore(_AT_A_TIME)
        sending: list[Deferred[object]] = []
        try:
            while (reporter := self._reporter()) is not None:
                await free.acquire()
                claimed = await self._claim(self._file.claim, late)
                if claimed is None:
                    break
                sent: Deferred[object] = Deferred.fromCoroutine(self._send(claimed, reporter))
                sending.append(sent.addErrback(self._not_sent).addBoth(lambda _: free.release()))
            await DeferredList(sending)
        except (OSError, SQLiteError) as error:
            self._log_wait(error)
            await DeferredList(sending)
        except CancelledError:
            for each in sending:
                each.cancel()

    def _not_sent(self, failure: Failure) -> None:
        if failure.check(OSError, SQLiteError):
            self._log_wait(failure.value)
        elif not failure.check(CancelledError):
            self._log.failure("a {name} report could not be sent", failure, name=self._reports.name)

    def _log_wait(self, error: BaseException | None) -> None:
        self._log.warn(
            "{name} reports have to wait: {error}", name=self._reports.name, error=str(error)
        )

    async def _claim(
        self, claim: Callable[[int, float, str], Claimed[R] | None], late: float
    ) -> Claimed[R] | None:
        now = self._wall_time()
        id = f"{self._random.getrandbits(96):024x}"
        await self._executor(self._file.make)
        return await self._executor(claim, int((now - late) // DAY), now, id)

    async def _send(self, claimed: Claimed[R], reporter: Reporter) -> Attempt:
        """Send one report, or let it wait."""
        last = claimed.day < int(self._wall_time() // DAY) - 1
        attempt = await self._reports.send(claimed, reporter, last=last)
        if attempt.done:
            await self._executor(self._file.sent, claimed)
        else:
            await self._executor(self._file.postpone, claimed, self._wall_time())
        return attempt
