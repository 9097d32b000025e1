"""Failures of the last hours by their subject, until the same subject succeeds."""

from __future__ import annotations

from collections.abc import Iterator

from ..interfaces import Clock
from .trouble import Trouble

_MOST = 10  # subjects; of a hundred that fail, these are as good as all
_KEPT = 6 * 3600.0  # seconds from the last failure on


class Lately:
    """Failures of one kind.

    Args:
        kind: of the troubles.
        clock: for their time.
    """

    def __init__(self, kind: str, clock: Clock) -> None:
        self._kind = kind
        self._clock = clock
        self._failures: dict[str, tuple[float, str]] = {}  # the latest last

    def failed(self, subject: str, text: str) -> None:
        """Note a failure; both are printable."""
        self._failures.pop(subject, None)
        self._failures[subject] = self._clock.seconds(), text
        if len(self._failures) > _MOST:
            del self._failures[next(iter(self._failures))]

    def succeeded(self, subject: str) -> None:
        """Note that the subject does not fail any more."""
        self._failures.pop(subject, None)

    def troubles(self) -> Iterator[Trouble]:
        """Yield one for each subject."""
        long_ago = self._clock.seconds() - _KEPT
        for subject, (at, text) in self._failures.items():
            if at >= long_ago:
                yield Trouble(kind=self._kind, subject=subject, text=text)
