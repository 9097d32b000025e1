"""Finds out that another machine has ended a message of the application.

Of a queue that several machines share, each tells its own application of the steps that its own
processes take. A message that left the queue by another machine would be waited for in vain, and
kept in memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from twisted.internet.defer import Deferred

from ..interfaces import Clock
from ..mail.envelope import RecipientNumber
from ..mail.queue_id import QueueId
from ..queue.commit import GroupCommit
from ..queue.operator.operations import FIRST, Browse, Page
from ..queue.operator.selection import Selection
from ..system.repetition import Repetition
from .audience import LocalAudience

_INTERVAL = 2.0  # seconds between two looks
_AT_ONCE = 100  # messages in one operation
_MOST_AWAITED = 1000  # recipients in one look: some 40 ms for the database
_MOST_OTHERS = 200

Queued = Mapping[str, Sequence[RecipientNumber]]
"""The numbers of recipients in the queue, by the id of their message."""


class OutcomeWatch:
    """Looks for the messages of the application in the queue, as long as there are any.

    Those that are waited for come first. If there are very many, they take turns, and so do the
    others, of which fewer are in each look.

    A message of which a recipient is missing in two looks is lost for the application
    (`LocalAudience.lose`): a step that a process of this machine has told of is here by then.

    Args:
        audience: the application, in this process.
        queued: returns which recipients of messages are in the queue, after all steps that this
            machine has taken before are told; None: that is not known now.
        lost: called with each message that another machine has ended.
        clock: for the looks.
    """

    def __init__(
        self,
        audience: LocalAudience,
        queued: Callable[[Sequence[str]], Awaitable[Queued | None]],
        *,
        lost: Callable[[str], object] = lambda id: None,
        clock: Clock,
    ) -> None:
        self._audience = audience
        self._queued = queued
        self._lost = lost
        self._missed: dict[str, None] = {}  # at the last look
        self._awaited = _Turns(audience, audience.awaited)
        self._others = _Turns(audience, audience.under_way)
        self._looking = Repetition(lambda: Deferred.fromCoroutine(self._look()), clock)

    def start(self) -> None:
        """Begin to look."""
        self._looking.start(_INTERVAL)

    def stop(self) -> None:
        """Look no more."""
        self._looking.stop()

    async def _look(self) -> None:
        before, self._missed = self._missed, {}
        ids = dict(before)
        ids.update(dict.fromkeys(self._awaited.next(_MOST_AWAITED)))
        ids.update(dict.fromkeys(self._others.next(_MOST_OTHERS)))
        every = list(ids)
        for start in range(0, len(every), _AT_ONCE):
            some = every[start : start + _AT_ONCE]
            queued = await self._queued(some)
            if queued is None:
                continue
            for id in some:
                there = dict.fromkeys(queued.get(id, ()))
                if all(number in there for number in self._audience.left(id)):
                    continue
                if id in before:
                    self._audience.lose(
                        id,
                        f"{id} was ended by another machine, or by a process that has died; its"
                        " outcome is not known here",
                    )
                    self._lost(id)
                else:
                    self._missed[id] = None


class _Turns:
    """Messages that take turns.

    Args:
        audience: knows their recipients.
        ids: returns all of them, at the begin of each round.
    """

    def __init__(self, audience: LocalAudience, ids: Callable[[], Sequence[str]]) -> None:
        self._audience = audience
        self._ids = ids
        self._left: list[str] = []  # of this round, the next one last

    def next(self, most: int) -> Iterator[str]:
        """Return the next messages, with about so many recipients; at most the rest of a round."""
        if not self._left:
            self._left = list(reversed(self._ids()))
        while self._left and most > 0:
            id = self._left.pop()
            recipients = len(self._audience.left(id))
            if recipients:
                yield id
            most -= recipients


async def queued_recipients(commit: GroupCommit, ids: Sequence[str]) -> Queued:
    """Return which recipients of messages are in a queue, without a look at their contents.

    Raises:
        StoreError: the queue cannot be read.
    """
    found: dict[str, list[RecipientNumber]] = {}
    selection = Selection(ids=tuple(sorted(map(QueueId.parse, ids))))
    after: int | None = FIRST
    while after is not None:
        page: Page = await commit.perform(Browse(selection, after))
        for message in page.messages:
            numbers = found.setdefault(str(message.id), [])
            numbers += [each.recipient.number for each in message.recipients]
        after = page.next
    return found
