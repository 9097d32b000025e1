"""The two dialects, SMTP and LMTP (RFC 2033): all in which the two differ for a server session.

LMTP begins with LHLO in place of EHLO and HELO, and its content has one reply for each accepted
recipient where SMTP has one for all: the server takes responsibility for each recipient by itself,
and needs no queue for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import frozen

from ...mail.decision import ContentDecision
from ...mail.reply import Reply
from . import replies
from .machine import LAST_IN_GROUP, TRANSITIONS, Event, State


@frozen
class Dialect:
    """A dialect of SMTP.

    Attributes:
        word: its name in the opening.
        transitions: `machine.TRANSITIONS` in this dialect.
        last_in_group: `machine.LAST_IN_GROUP` in this dialect.
        misplaced: the replies to verbs where ``transitions`` does not have them.
        foreign: the replies to verbs of the other dialect.
        per_recipient: whether a content has one reply for each accepted recipient.
    """

    word: str
    transitions: Mapping[State, Mapping[Event, State]]
    last_in_group: tuple[str, ...]
    misplaced: Mapping[str, Reply]
    foreign: Mapping[str, Reply]
    per_recipient: bool

    def of_content(self, decision: ContentDecision, recipients: int) -> tuple[Reply, ...]:
        """Return the replies that stand for a decision on a content.

        Args:
            decision: on the content.
            recipients: how many were accepted, repeated ones included.
        """
        if not self.per_recipient:
            return (one_for_all(decision),)
        if decision is None or isinstance(decision, Reply):
            reply = decision or replies.ACCEPTED
            # RFC 5321 §3.8: 421 is the last reply of a session.
            return (reply,) * (1 if reply.code == 421 else recipients)
        if len(decision) != recipients:
            return (replies.WRONG_COUNT,) * recipients
        return tuple(map(_one_of_several, decision))


def one_for_all(decision: ContentDecision) -> Reply:
    """Return the one reply to a content: if any may succeed later, the client is to try again."""
    if decision is None or isinstance(decision, Reply):
        return decision or replies.ACCEPTED
    refusals = [each for each in decision if each is not None and each.code // 100 != 2]
    if not refusals:
        return next((each for each in decision if each is not None), replies.ACCEPTED)
    return min(refusals, key=lambda reply: reply.code // 100)


def _one_of_several(reply: Reply | None) -> Reply:
    if reply is None:
        return replies.ACCEPTED
    # 421 would end the session, and the client would not read the replies that follow it.
    return Reply.of(451, reply.status, *reply.lines) if reply.code == 421 else reply


def _in_lmtp(events: Iterable[Event]) -> Iterable[tuple[Event, Event]]:
    """Yield each event of SMTP that LMTP has too, and its name there (RFC 2033 §4.1)."""
    for event in events:
        if event is not Event.HELO:
            yield event, Event.LHLO if event is Event.EHLO else event


SMTP = Dialect(
    word="ESMTP",
    transitions=TRANSITIONS,
    last_in_group=LAST_IN_GROUP,
    misplaced=replies.MISPLACED,
    foreign={"LHLO": replies.NOT_IMPLEMENTED},
    per_recipient=False,
)

# RFC 2033 §4.1: LHLO does what EHLO does in SMTP, and EHLO and HELO get 500.
LMTP = Dialect(
    word="LMTP",
    transitions={
        state: {lmtp: row[smtp] for smtp, lmtp in _in_lmtp(row)}
        for state, row in TRANSITIONS.items()
    },
    last_in_group=tuple(lmtp for _, lmtp in _in_lmtp(LAST_IN_GROUP)),
    misplaced={**replies.MISPLACED, "MAIL": replies.MAIL_AFTER_LHLO},
    foreign=dict.fromkeys(("EHLO", "HELO"), replies.SPEAKS_LMTP),
    per_recipient=True,
)
