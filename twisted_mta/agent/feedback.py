"""Complaint feedback in an agent: ids for mail of our users, and reports that come back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from sqlite3 import Error as SQLiteError
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import Config
from ..interfaces import Executor, Files, WallTime
from ..mail.address import Mailbox, folded
from ..mail.assessment import Assessment
from ..mail.message import Message
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..message.feedback_report import FeedbackReport, read_feedback_report
from ..policy.feedback.feedback_id import FeedbackIds
from ..policy.feedback.file import KEPT, CountedReport, FeedbackFile
from ..system.kept_secret import kept_secret
from ..telemetry.metrics import Metrics, table

FILE = os.path.join("feedback", "feedback.sqlite")
"""The reports that all processes have counted, in the state directory."""

KEY = "feedback.key"
"""The secret of the ids, in the state directory."""

# Results of SPF, DKIM and DMARC that prove the sender of a report (RFC 9477 §3.3).
_PROOFS = ("dmarc", "dkim", "spf")
_MOST_SHOWN = 200  # accounts, and reports, in one answer
_LONGEST_REPORTER = 250  # characters


class Feedback:
    """Makes ids, and counts reports, while the settings say so.

    Args:
        config: the settings.
        executor: where reports are read, and the file is written.
        files: where the secret is kept.
        secret: returns that many random octets.
        wall_time: of reports.
        metrics: counts reports.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        executor: Executor,
        files: Files,
        secret: Callable[[int], bytes],
        wall_time: WallTime,
        metrics: Metrics,
    ) -> None:
        self._state_dir = config.state_dir
        self._executor = executor
        self._files = files
        self._secret = secret
        self._wall_time = wall_time
        self._metrics = metrics
        self._file = FeedbackFile(os.path.join(config.state_dir, FILE))
        self._address: Mailbox | None = None
        self._key: bytes | None = None
        self._ids: FeedbackIds | None = None

    def prepare(self, config: Config) -> None:
        """Read the secret that other settings need, or make it.

        Raises:
            OSError: it can be neither read nor made.
            ValueError: its file holds none.
        """
        if config.feedback is not None:
            self._key = kept_secret(
                os.path.join(self._state_dir, KEY),
                files=self._files,
                secret=self._secret,
                lost="reports about mail that was sent before no longer tell its account",
                known=self._key,
            )

    def use(self, config: Config) -> None:
        """Obey other settings from now on, which were prepared."""
        self._address = None if config.feedback is None else config.feedback.address
        self._ids = None if self._key is None else FeedbackIds(self._key)

    def id_for(self, message: QueueId, account: str) -> str:
        """Return the id of a message of ours."""
        assert self._ids is not None  # the settings ask for it
        return self._ids.make(message, account)

    def concerns(self, message: Message) -> bool:
        """Whether a message goes to the address for reports."""
        address = self._address
        if address is None:
            return False
        return any(
            mailbox.domain == address.domain
            and folded(mailbox.local_part) == folded(address.local_part)
            for each in message.envelope.recipients
            for mailbox in (each.original or each.mailbox,)
        )

    def read(self, message: Message) -> Deferred[None]:
        """Count the report that a message is, if it is one; fires when that is done, or failed."""
        read: Deferred[FeedbackReport | None] = self._executor(_read, message)
        done = read.addCallback(lambda report: Deferred.fromCoroutine(self._note(message, report)))
        return done.addErrback(self._failed, message.id)

    async def _note(self, message: Message, report: FeedbackReport | None) -> None:
        if report is None:
            self._count("unreadable", "other")
            return
        ids = self._ids
        found = [] if ids is None else [told for each in report.ids if (told := ids.read(each))]
        reporter = _reporter(message.assessment)
        if not found:
            self._count("unknown", report.type)
            self._log.info(
                "{id} is a report of {action} that has no id of ours; it is delivered",
                id=message.id,
                action=report.type,
            )
            return
        told = found[0]
        if reporter is None:
            self._count("unverified", report.type)
            self._log.warn(
                "{id} is a report of {action} about {message_}, and does not count: neither SPF nor"
                " DKIM proves its sender",
                id=message.id,
                action=report.type,
                message_=told.message,
            )
            return
        counted = CountedReport(
            self._wall_time(),
            printable(told.account),
            str(told.message),
            report.type,
            printable(reporter)[:_LONGEST_REPORTER],
        )
        is_new: bool = await self._executor(self._file.add, counted, report.message_id)
        self._count("counted" if is_new else "repeated", report.type)
        if is_new:
            self._log.warn(
                "{id} is a report of {action} by {domain} about {message_} of the account {user}",
                id=message.id,
                action=report.type,
                domain=counted.reporter,
                message_=counted.message,
                user=counted.account,
            )

    def _count(self, result: str, kind: str) -> None:
        self._metrics.count(table.FEEDBACK, result, kind)

    def _failed(self, failure: Failure, id: QueueId) -> None:
        if failure.check(OSError, SQLiteError, RuntimeError):
            self._log.warn(
                "the report {id} is delivered, and not counted: {error}",
                id=id,
                error=printable(failure.getErrorMessage()),
            )
        else:
            self._log.failure("the report {id} is delivered, and not counted", failure, id=id)

    async def shown(self, account: str | None) -> dict[str, Any]:
        """Return the ``accounts`` with reports, and the last ``reports``: of one account, or all.

        Raises:
            ValueError: there are none, since the settings ask for none.
        """
        if self._address is None:
            raise ValueError(
                "no reports are asked for; expected a table [feedback] in the settings"
            )
        since = self._wall_time() - KEPT
        accounts: Sequence[Any] = await self._executor(self._file.accounts, since, _MOST_SHOWN)
        reports: Sequence[Any] = await self._executor(self._file.last, account, _MOST_SHOWN)
        return {
            "accounts": [asdict(each) for each in accounts if account in (None, each.account)],
            "reports": [asdict(each) for each in reports],
        }


def _read(message: Message) -> FeedbackReport | None:
    return read_feedback_report(message.body.chunks())


def _reporter(assessment: Assessment) -> str | None:
    """Return what has proven the sender of a report, for people; None: nothing has."""
    for policy in _PROOFS:
        for verdict in assessment.verdicts:
            if verdict.policy == policy and verdict.result == "pass":
                return verdict.text or policy
    return None
