"""SMTP and LMTP (RFC 2033): all in which the two differ, as seen by the server.

LMTP is greeted by LHLO alone, and where SMTP has one reply to a content, it has one for each
recipient that was accepted: the server takes responsibility for each of them by itself, and needs
no queue for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from ...mail.reply import Reply
from . import replies
from .state import LAST_IN_GROUP, TRANSITIONS, State

ContentDecision = Reply | Sequence[Reply | None] | None
"""What is decided on a content: one reply, or one for each accepted recipient, in their order; its
class accepts or refuses, None accepts as usual."""


@frozen
class Dialect:
    """A way to speak.

    Attributes:
        word: what the greeting says is spoken.
        transitions: see `state.TRANSITIONS`.
        last_in_group: see `state.LAST_IN_GROUP`.
        misplaced: what a verb gets where ``transitions`` does not have it.
        foreign: what verbs get that belong to the other dialect and are refused as such.
        per_recipient: whether a content has a reply for each accepted recipient.
    """

    word: str
    transitions: Mapping[State, Mapping[str, State | None]]
    last_in_group: tuple[str, ...]
    misplaced: Mapping[str, Reply]
    foreign: Mapping[str, Reply]
    per_recipient: bool

    def of_content(self, decision: ContentDecision, recipients: int) -> tuple[Reply, ...]:
        """Return the replies that stand for a decision on a content.

        Args:
            decision: see there.
            recipients: how many were accepted, repeated ones included.
        """
        if not self.per_recipient:
            return (one_for_all(decision),)
        if decision is None or isinstance(decision, Reply):
            reply = decision or replies.QUEUED
            # RFC 5321 §3.8: 421 is the last that is said.
            return (reply,) * (1 if reply.code == 421 else recipients)
        if len(decision) != recipients:
            return (replies.WRONG_COUNT,) * recipients
        return tuple(map(_one_of_several, decision))


def one_for_all(decision: ContentDecision) -> Reply:
    """Return the one reply to a content: if any may succeed later, the client is to try again."""
    if decision is None or isinstance(decision, Reply):
        return decision or replies.QUEUED
    refusals = [each for each in decision if each is not None and each.code // 100 != 2]
    if not refusals:
        return next((each for each in decision if each is not None), replies.QUEUED)
    return min(refusals, key=lambda reply: reply.code // 100)


def _one_of_several(reply: Reply | None) -> Reply:
    if reply is None:
        return replies.QUEUED
    # The replies behind it would not be read.
    return Reply(451, reply.status, reply.lines) if reply.code == 421 else reply


def _lmtp_row(row: Mapping[str, State | None]) -> Mapping[str, State | None]:
    renamed = {"LHLO" if verb == "EHLO" else verb: state for verb, state in row.items()}
    renamed.pop("HELO", None)
    return renamed


def _lmtp_verbs(verbs: Iterable[str]) -> tuple[str, ...]:
    return tuple("LHLO" if verb == "EHLO" else verb for verb in verbs)


SMTP = Dialect(
    word="ESMTP",
    transitions=TRANSITIONS,
    last_in_group=LAST_IN_GROUP,
    misplaced=replies.MISPLACED,
    foreign={"LHLO": replies.NOT_IMPLEMENTED},
    per_recipient=False,
)

# RFC 2033 §4.1: EHLO and HELO get 500, and LHLO means what EHLO does.
LMTP = Dialect(
    word="LMTP",
    transitions={state: _lmtp_row(row) for state, row in TRANSITIONS.items()},
    last_in_group=_lmtp_verbs(LAST_IN_GROUP),
    misplaced={**replies.MISPLACED, "MAIL": replies.MAIL_AFTER_LHLO},
    foreign=dict.fromkeys(("EHLO", "HELO"), replies.SPEAKS_LMTP),
    per_recipient=True,
)
