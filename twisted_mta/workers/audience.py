"""The application in the parent, as the agent of a worker tells it of mail.

A step is in the kernel's hands before the agent goes on, and so before the store records it: the
parent reads it even if this process is killed in the next moment. The opposite may happen: the
parent is told of a step that the store has not recorded, and the successor of this process takes it
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..agent.audience import FINAL, Tracked
from ..mail.envelope import RecipientNumber
from ..mail.events import MailEvent
from ..mail.queue_id import QueueId


class RemoteAudience:
    """The application in the parent (`agent.audience.Audience`).

    Args:
        send: calls the parent, without an answer; the call has left this process when it returns,
            if the parent reads at all (`Pipe.send_now`).
    """

    def __init__(self, send: Callable[..., object]) -> None:
        self._send = send
        self._watched = False  # whether the parent hears of all mail
        self._followed: dict[str, dict[RecipientNumber, None]] = {}

    def watch(self) -> None:
        """Tell the parent of all mail from now on."""
        self._watched = True

    def unwatch(self) -> None:
        """Tell it only of its own messages."""
        self._watched = False

    def follow(self, messages: Mapping[str, Sequence[RecipientNumber]]) -> None:
        """Tell it of its own messages that another process has accepted.

        Args:
            messages: for each id, the numbers of the recipients that are not ended.
        """
        for id, numbers in messages.items():
            self._followed[id] = dict.fromkeys(numbers)

    def unfollow(self, id: str) -> None:
        """Tell it no more of one of its messages, which another process may have delivered."""
        self._followed.pop(id, None)

    def hears(self, id: QueueId) -> bool:
        """Whether the parent is to be told of a message."""
        return self._watched or str(id) in self._followed

    def tell(self, event: MailEvent, numbers: Sequence[RecipientNumber]) -> None:
        """Tell the parent of an event."""
        left = self._followed.get(event.id)
        self._send(
            "mail_event", event=event.to_json(), numbers=() if left is None else list(numbers)
        )
        if left is not None and isinstance(event, FINAL):
            for number in numbers:
                left.pop(number, None)
            if not left:
                del self._followed[event.id]

    def track(self, id: QueueId, recipients: Tracked) -> None:
        """Let the parent keep the outcome of a message that is about to be queued."""
        leading = {written: list(numbers) for written, numbers in recipients.items()}
        everyone = (number for numbers in leading.values() for number in numbers)
        self._followed[str(id)] = dict.fromkeys(everyone)
        self._send("track_mail", id=str(id), recipients=leading)

    def untrack(self, id: QueueId) -> None:
        """Let the parent forget a message that was not queued."""
        self._followed.pop(str(id), None)
        self._send("forget_mail", id=str(id))

    def stop(self) -> None:
        """Do nothing: the parent sees that this process ends."""
