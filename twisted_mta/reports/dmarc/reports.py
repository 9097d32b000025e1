"""Sends aggregate reports by mail, to those that have agreed to get them."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from ...interfaces import Executor, Refused, Resolver, WallTime
from ...mail.address import Mailbox
from ...mail.counted import counted
from ...policy.dmarc.discovery import Published
from ...policy.dmarc.observation import Row
from ...policy.dmarc.record import Record
from ..counters import Claimed
from ..daily import Attempt, Reporter, Send
from .aggregate import AggregateReport, report_mail
from .destinations import destinations


class AggregateReports:
    """Aggregate reports of DMARC (`daily.Reports`).

    Args:
        send: sends a report.
        resolver: finds out who agrees to get reports.
        executor: where reports are made.
        wall_time: of their mail.
    """

    name = "DMARC"

    _log = Logger()

    def __init__(
        self, *, send: Send, resolver: Resolver, executor: Executor, wall_time: WallTime
    ) -> None:
        self._send = send
        self._resolver = resolver
        self._executor = executor
        self._wall_time = wall_time

    async def send(self, claimed: Claimed[Row], reporter: Reporter, *, last: bool) -> Attempt:
        """Send a report."""
        record = Record.parse(claimed.record)
        assert record is not None  # only records were counted
        published = Published(claimed.domain, record, claimed.record)
        found = await destinations(published, self._resolver)
        if found.unknown and not last:
            # RFC 9990 §4, step 5: it may wait until the DNS answers
            return Attempt(False, "not sent: a destination cannot be looked up")
        if not found.agreed:
            self._log.info(
                "no DMARC report on {domain}: no destination has agreed to get it",
                domain=claimed.domain,
            )
            return Attempt(True, "not sent: no destination has agreed to get it")
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
            return Attempt(False, f"not sent: {error.reply}")
        where = ", ".join(map(str, found.agreed))
        count = sum(messages for _, messages in claimed.rows)
        self._log.info(
            "DMARC report {report} on {domain} to {destinations}: {_messages}",
            report=claimed.id,
            domain=claimed.domain,
            destinations=where,
            messages=count,
            _messages=counted(count, "message"),
        )
        return Attempt(True, f"sent to {where}")

    def _content(self, report: AggregateReport, to: Sequence[Mailbox]) -> bytes:
        return report_mail(report, to, time=self._wall_time()).content()
