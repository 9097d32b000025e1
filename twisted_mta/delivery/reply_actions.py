"""Actions on replies of next hops: the operator's exceptions to RFC 5321."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from ..config import ReplyAction
from ..config.destination import is_below
from ..mail.linear_pattern import LinearPattern
from ..mail.message import Message
from ..mail.outcome import Outcome
from ..mail.reply import Reply
from ..system.work import Work

_LONGEST = 500  # characters of a reply that a pattern sees


@frozen
class Acted:
    """An outcome, and the action that has changed it; None: none applies."""

    outcome: Outcome
    action: ReplyAction | None = None


class ReplyActions:
    """The actions in force.

    Args:
        actions: in their order: the first one that fits applies.
    """

    def __init__(self, actions: Iterable[ReplyAction] = ()) -> None:
        self._actions = tuple(
            (each, None if each.pattern is None else LinearPattern(each.pattern))
            for each in actions
        )

    def __bool__(self) -> bool:
        return bool(self._actions)

    def find(self, reply: Reply, remote: str | None, domain: str) -> ReplyAction | None:
        """Return the action that applies to a reply; None: none does.

        Args:
            reply: of a next hop.
            remote: the host that replied, ``host[address]:port``; None: the reply is our own, and
                no action applies.
            domain: of the recipient.
        """
        if remote is None or reply.code < 400:
            return None
        code, text = str(reply.code), str(reply)[:_LONGEST]
        host = remote.partition("[")[0].lower()
        for action, pattern in self._actions:
            if (
                (action.code is None or code.startswith(action.code))
                and (action.domain is None or is_below(action.domain, domain))
                and (action.exchanger is None or is_below(action.exchanger, host))
                and (pattern is None or pattern.search(text))
            ):
                return action
        return None

    def apply(self, message: Message, outcomes: Sequence[Outcome]) -> Work[list[Acted]]:
        """Return each outcome as the action that applies to it has changed it."""
        domains: Mapping[int, str] = {
            each.number: each.mailbox.domain for each in message.envelope.recipients
        }
        acted = []
        for outcome in outcomes:
            action = None
            if not outcome.delivered and not outcome.uncertain:
                yield
                action = self.find(outcome.reply, outcome.remote, domains[outcome.number])
            acted.append(Acted(outcome) if action is None else _acted(outcome, action))
        yield
        return acted


def _acted(outcome: Outcome, action: ReplyAction) -> Acted:
    if action.action == "fail":
        if outcome.failed:
            return Acted(outcome)
        said = f"{outcome.remote} said: {outcome.reply}"
        text = "Not tried again, by a rule of this system. The last attempt:"
        reply = Reply.of(554, outcome.reply.status or "0.0", text, said)
        return Acted(
            evolve(outcome, reply=reply, remote=None, unreachable=False, temporary=False), action
        )
    changed = evolve(
        outcome,
        # A reply of class 5 is kept, and does not end the attempts: the operator says so.
        temporary=outcome.temporary or outcome.reply.code >= 500,
        retry_after=action.duration,
        suspends=action.duration if action.action == "suspend" else None,
    )
    return Acted(changed, action)
