"""What the policies of DKIM and ARC have in common: when they read a message, and when they end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred

from ...interfaces import WallTime
from ...message.header import Header
from ..answers import Answers, EnvelopeView
from ..examination import Examination, PolicySession
from .key_lookup import TextResolver
from .message_reading import MessageReading


class Reading(Protocol):
    """The verification of the signatures of one message, which waits for keys and for the body."""

    def look_up(self, resolver: TextResolver) -> None:
        """Begin to look up the keys."""


_R = TypeVar("_R", bound=Reading)


class ReadingPolicy(Generic[_R]):
    """A policy that verifies signatures of mail while it comes in; never refuses.

    The keys are looked up from the end of the header section on, while the body is hashed.

    Args:
        resolver: for the keys.
        wall_time: for expired signatures.
    """

    def __init__(self, resolver: TextResolver, wall_time: WallTime) -> None:
        self._resolver = resolver
        self._wall_time = wall_time

    def header(self, session: PolicySession, envelope: EnvelopeView, header: Header) -> Answers:
        """Begin to look up the keys."""
        if session.examination is not None:
            self._reading(session.examination, header)
        return None

    def body(
        self, session: PolicySession, envelope: EnvelopeView, header: Header
    ) -> Callable[[bytes], object] | None:
        """Return what takes the body for its hashes, if this message needs any."""
        examination = session.examination
        if examination is None or self._reading(examination, header) is None:
            return None
        return MessageReading.of(examination, header).bodies.reader()

    def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Coroutine[Deferred[Any], Any, None] | None:
        """Conclude the examination."""
        examination = session.examination
        begun = None if examination is None else self._begun(examination)
        if examination is None or begun is None:
            return None
        return self.end(examination, begun)

    def begin(self, examination: Examination, message: MessageReading) -> _R | None:
        """Begin to read a message; None where the examination is concluded by now."""
        raise NotImplementedError

    async def end(self, examination: Examination, reading: _R) -> None:
        """Conclude the examination, after the last octet of the body."""
        raise NotImplementedError

    def _begun(self, examination: Examination) -> _R | None:
        begun: _R | None = examination.memory.get(self)  # type: ignore[assignment]  # our own key
        return begun

    def _reading(self, examination: Examination, header: Header) -> _R | None:
        """Return the reading of a message; None where there is nothing to verify."""
        if self in examination.memory:
            return self._begun(examination)
        reading = self.begin(examination, MessageReading.of(examination, header))
        if reading is not None:
            reading.look_up(self._resolver)
        examination.memory[self] = reading
        return reading
