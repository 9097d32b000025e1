"""Sends reports on TLS, by mail and by HTTPS, to the destinations that a domain names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from ...dns import LookupFailed, NoSuchDomain
from ...interfaces import Executor, Refused, Resolver, WallTime
from ...mail.address import Mailbox
from ...mail.counted import counted
from ...mail.printable import printable
from ...mail.tls_result import TLSResult
from ...tls.https import HTTPSError
from ..counters import Claimed, CountersFile
from ..daily import Attempt, Reporter, Send
from .record import Collector, ReportRecord, name_of, report_record
from .report import MEDIA_TYPE, TLSReport, report_mail

Post = Callable[[Collector, bytes, str], "Deferred[None]"]
"""Post octets of a media type to a collector, which has to prove its name.

Fires when the collector has taken them, within a minute; fails with `HTTPSError`. May be canceled.
"""

_MAIL = "mail"  # the destination of all mailboxes, for one message goes to all of them

Count = Callable[[str, str], object]
"""Count a report: ``mail`` or ``https``; ``sent`` or ``failed``."""


class TLSReports:
    """Reports on TLS (`daily.Reports`).

    Args:
        file: where it is noted which destinations have a report.
        send: sends one by mail.
        post: sends one by HTTPS.
        resolver: finds out where reports go.
        executor: where reports are made.
        wall_time: of their mail.
        count: counts those that were sent.
    """

    name = "TLS"

    _log = Logger()

    def __init__(
        self,
        file: CountersFile[TLSResult],
        *,
        send: Send,
        post: Post,
        resolver: Resolver,
        executor: Executor,
        wall_time: WallTime,
        count: Count = lambda way, result: None,
    ) -> None:
        self._file = file
        self._send = send
        self._post = post
        self._resolver = resolver
        self._executor = executor
        self._wall_time = wall_time
        self._count = count

    async def record(self, domain: str) -> ReportRecord | None:
        """Return the record of a domain; None: it has none.

        Raises:
            LookupFailed: the DNS does not answer.
        """
        try:
            return report_record(await self._resolver.text(name_of(domain)))
        except NoSuchDomain:
            return None

    async def send(self, claimed: Claimed[TLSResult], reporter: Reporter, *, last: bool) -> Attempt:
        """Send a report."""
        name = name_of(claimed.domain)
        try:
            record = await self.record(claimed.domain)
        except LookupFailed as failure:
            reason = printable(str(failure))
            self._failed(claimed, name, reason, last=last)
            return Attempt(last, f"not sent: {name} cannot be looked up: {reason}")
        if record is None:
            return Attempt(True, f"not sent: {name} does not ask for reports")  # as most domains
        if not record.mailboxes and not record.collectors:
            why = "; ".join(record.faults)
            self._log.info(
                "no TLS report on {domain}: its record has no destination: {why}",
                domain=claimed.domain,
                why=why,
            )
            return Attempt(True, f"not sent: {name} has no destination: {why}")
        report = TLSReport.of(claimed, reporter)
        posting = [
            Deferred.fromCoroutine(self._by_https(claimed, report, each, last=last))
            for each in record.collectors
            if str(each) not in claimed.reached
        ]
        results = list(await gatherResults(posting))
        if record.mailboxes and _MAIL not in claimed.reached:
            results.append(await self._by_mail(claimed, report, record.mailboxes, last=last))
        sent = [each.done for each in results]
        # RFC 8460 §3: it is delivered when one destination has it. The report on a part of a day is
        # not repeated: what is counted meanwhile belongs to the next one.
        done = all(sent) or (claimed.is_partial and any(sent)) or last
        return Attempt(done, "; ".join(each.what for each in results))

    async def _by_mail(
        self,
        claimed: Claimed[TLSResult],
        report: TLSReport,
        to: Sequence[Mailbox],
        *,
        last: bool,
    ) -> Attempt:
        content = await self._executor(
            lambda: report_mail(report, to, time=self._wall_time()).content()
        )
        where = ", ".join(map(str, to))
        sending = self._send(report.contact, content, to)
        return await self._to(claimed, report, _MAIL, where, sending, last=last)

    async def _by_https(
        self, claimed: Claimed[TLSResult], report: TLSReport, to: Collector, *, last: bool
    ) -> Attempt:
        content = await self._executor(report.compressed)
        posting = self._post(to, content, MEDIA_TYPE)
        return await self._to(claimed, report, str(to), str(to), posting, last=last)

    async def _to(
        self,
        claimed: Claimed[TLSResult],
        report: TLSReport,
        key: str,
        where: str,
        sending: Awaitable[None],
        *,
        last: bool,
    ) -> Attempt:
        """Wait until a destination has the report, or does not take it."""
        way = "mail" if key == _MAIL else "https"
        try:
            await sending
        except (Refused, HTTPSError) as error:
            self._count(way, "failed")
            self._failed(claimed, where, str(error), last=last)
            return Attempt(False, f"not sent to {where}: {error}")
        self._count(way, "sent")
        await self._executor(self._file.reached, claimed, key)
        successes, failures = report.sessions
        self._log.info(
            "TLS report {report} on {domain} to {destinations}: {_sessions}, and"
            " {failures} that failed",
            report=report.id,
            domain=report.domain,
            destinations=where,
            successes=successes,
            failures=failures,
            _sessions=counted(successes, "session"),
        )
        return Attempt(True, f"sent to {where}")

    def _failed(self, claimed: Claimed[TLSResult], where: str, reason: str, *, last: bool) -> None:
        self._log.warn(
            "the TLS report on {domain} {what}: {destinations}: {reason}",
            domain=claimed.domain,
            what="is given up" if last else "has to wait",
            destinations=where,
            reason=reason,
        )
