"""The submission of the application: the values that it gives, read at once and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from ..interfaces import Executor, WallTime
from ..mail.address import Mailbox
from ..mail.envelope import NO_PARAMETERS, Parameters
from ..message.application_content import Content
from ..smtp.application_envelope import (
    ApplicationEnvelope,
    HoldUntil,
    Notify,
    envelope_reading,
)
from ..system.work import Work
from .application_content import ApplicationContent, Run, Write


@frozen(eq=False)
class Submission:
    """A message that the application hands over; its values may change after it was made.

    Exceptions are octets that can be changed, and files (`ApplicationContent`).
    """

    _reading: Work[ApplicationEnvelope]
    _content: ApplicationContent
    _executor: Executor
    _run: Run

    async def envelope(self) -> ApplicationEnvelope:
        """Return its envelope; to be called once, before the content.

        Raises:
            TypeError: a recipient has the wrong type.
            ValueError: a recipient is no mailbox.
        """
        envelope: ApplicationEnvelope = await self._run(self._reading)
        return envelope

    async def pass_on(self, write: Write) -> None:
        """Write its content in pieces (`ApplicationContent.pass_on`)."""
        await self._content.pass_on(write, executor=self._executor, run=self._run)


@frozen(kw_only=True, eq=False)
class SubmissionReader:
    """Reads what the application hands over.

    Attributes:
        wall_time: the time of day.
        longest_hold: seconds that a message may be held.
        limit: returns the octets that a message may have.
        new_boundary: returns a text that occurs in no message.
        executor: where files are read, and header sections are folded.
        run: runs long work in slices.
    """

    wall_time: WallTime
    longest_hold: float
    limit: Callable[[], int]
    new_boundary: Callable[[], str]
    executor: Executor
    run: Run

    def read(
        self,
        message: Content,
        *,
        sender: str | Mailbox,
        recipients: Iterable[str | Mailbox],
        notify: Notify = None,
        hold_until: HoldUntil = None,
        parameters: Parameters = NO_PARAMETERS,
        user: int | None = None,
        account: str | None = None,
    ) -> Submission:
        """Read the values of a submission (`service.MailTransferAgent.submit`).

        ``parameters`` are further ones of MAIL, and ``user`` and ``account`` are those of
        `ApplicationEnvelope`.

        Raises:
            TypeError: a value has the wrong type.
            ValueError: a value cannot be used (`smtp.application_envelope.read_envelope`), or the
                message is too large.
        """
        reading = envelope_reading(
            sender,
            recipients,
            notify=notify,
            hold_until=hold_until,
            now=self.wall_time(),
            longest=self.longest_hold,
            others=parameters,
            user=user,
            account=account,
        )
        content = ApplicationContent(message, limit=self.limit(), new_boundary=self.new_boundary)
        return Submission(reading, content, self.executor, self.run)
