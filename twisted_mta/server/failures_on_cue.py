"""Recipients that make failures happen, for tests of programs that send mail.

A tag at the end of a local part is the cue, in any case and in any domain: ``bob+550@user.test``.
With ``data-`` before it the failure comes at the end of the content; docs/testing.rst has a table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from ..interfaces import Clock, Delivery, Sink
from ..mail.address import Mailbox
from ..mail.decision import ContentDecision, Decision
from ..mail.envelope import Parameters
from ..mail.reply import Reply
from ..smtp.server.session import Session

_CUE = re.compile(
    r"(?P<content>data-)?(?:(?P<code>[45][0-9][0-9])|slow-(?P<seconds>[0-9]{1,2})|(?P<drop>drop))",
    re.IGNORECASE,
)
_SLOWEST = 50  # seconds; after 60 a decision is late, which is another failure
_STATUS = {421: "3.2", 450: "2.1", 452: "2.2", 550: "1.1", 552: "2.2", 553: "1.3", 554: "7.1"}
_OTHER_STATUS = "0.0"  # RFC 3463 §3.1


@frozen
class Cue:
    """A failure that a recipient asks for.

    Attributes:
        at_content: whether it comes at the end of the content, instead of at RCPT.
        reply: the refusal; None: there is none.
        seconds: how late the answer comes.
        drops: whether the connection is closed without an answer.
    """

    at_content: bool
    reply: Reply | None = None
    seconds: int = 0
    drops: bool = False


def cue_of(mailbox: Mailbox) -> Cue | None:
    """Return the failure that a recipient asks for; None: it asks for none."""
    match = _CUE.fullmatch(mailbox.local_part.rpartition("+")[2]) if "+" in str(mailbox) else None
    if match is None:
        return None
    at_content = match["content"] is not None
    if match["code"]:
        code = int(match["code"])
        reply = Reply.fixed(code, _STATUS.get(code, _OTHER_STATUS), "as the recipient asks")
        return Cue(at_content, reply)
    if match["drop"]:
        return Cue(at_content, drops=True)
    return Cue(at_content, seconds=min(int(match["seconds"]), _SLOWEST))


class FailuresOnCue:
    """The delivery of one connection, on which recipients can ask for failures (`Delivery`).

    Args:
        delivery: decides where no failure is asked for.
        drop: closes the connection at once.
        clock: for late answers.
    """

    def __init__(self, delivery: Delivery, *, drop: Callable[[], object], clock: Clock) -> None:
        self._delivery = delivery
        self._drop = drop
        self._clock = clock

    def client(self, session: Session) -> Decision | Deferred[Decision]:
        """Decide as the delivery does (`interfaces.Delivery`)."""
        return self._delivery.client(session)

    def helo(self, session: Session) -> Decision | Deferred[Decision]:
        """Decide as the delivery does (`interfaces.Delivery`)."""
        return self._delivery.helo(session)

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Decide as the delivery does (`interfaces.Delivery`)."""
        return self._delivery.mail(session, reverse_path, parameters)

    def rcpt(
        self, session: Session, forward_path: Mailbox, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Fail if the recipient asks for it, or else decide as the delivery does."""
        cue = cue_of(forward_path)
        if cue is None or cue.at_content:
            return self._delivery.rcpt(session, forward_path, parameters)
        if cue.drops:
            return self._dropped()
        if cue.reply is not None:
            return cue.reply
        return self._later(cue).addCallback(
            lambda _: self._delivery.rcpt(session, forward_path, parameters)
        )

    def open(self, session: Session) -> Sink | Reply | Deferred[Sink | Reply]:
        """Begin a content, which fails at its end if a recipient asks for it."""
        assert session.transaction is not None
        cues = (cue_of(each.mailbox) for each in session.transaction.recipients)
        cue = next((each for each in cues if each is not None and each.at_content), None)
        opened = self._delivery.open(session)
        if cue is None:
            return opened
        asked = cue

        def failing(answer: Sink | Reply) -> Sink | Reply:
            return answer if isinstance(answer, Reply) else _FailingSink(self, answer, asked)

        return opened.addCallback(failing) if isinstance(opened, Deferred) else failing(opened)

    def ended(self, session: Session) -> None:
        """Take note of the end (`interfaces.Delivery`)."""
        self._delivery.ended(session)

    def _later(self, cue: Cue) -> Deferred[None]:
        later: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self._clock.callLater(cue.seconds, later.callback, None)
        return later

    def _dropped(self) -> Deferred[Any]:
        """Close the connection, and never answer."""
        self._clock.callLater(0, self._drop)
        return Deferred()


class _FailingSink:
    """A sink whose content fails at its end (`interfaces.Sink`)."""

    def __init__(self, failures: FailuresOnCue, sink: Sink, cue: Cue) -> None:
        self._failures = failures
        self._sink = sink
        self._cue = cue

    def write(self, content: bytes) -> None:
        """Write to the sink (`interfaces.Sink`)."""
        self._sink.write(content)

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """Fail: refuse, answer late, or take the message and lose the answer."""
        failures, cue = self._failures, self._cue
        if cue.reply is not None:
            self._sink.abort()
            return cue.reply
        finished = self._sink.finish()
        if cue.drops:
            if isinstance(finished, Deferred):
                return finished.addCallback(lambda _: failures._dropped())
            return failures._dropped()
        return failures._later(cue).addCallback(lambda _: finished)

    def abort(self) -> None:
        """Discard the content (`interfaces.Sink`)."""
        self._sink.abort()
