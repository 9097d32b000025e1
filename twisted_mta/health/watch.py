"""A watch over troubles: since when each is there, and a line in the log at its begin and end."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, evolve
from twisted.logger import Logger

from ..interfaces import Clock, WallTime
from .trouble import KINDS, Severity, Trouble, ordered

_BURST = 4.0  # lines about one trouble in a row
_REFILL = 60.0  # seconds after which one more line may follow: a trouble may come and go

_BEGUN = "{kind}: {text}. {remedy}"


@define
class _Known:
    """A trouble that is there, or was.

    Attributes:
        trouble: as it was last seen.
        present: whether it is there.
        began: by the clock.
        since: the same by wall time.
        ended: by the clock; of one that is not present.
        logged: the severity that the log has last told; None: that it is over, or nothing.
        lines: that may be logged now.
        counted: when ``lines`` was, by the clock.
        untold: changes since the last line.
    """

    trouble: Trouble
    present: bool
    began: float
    since: float
    counted: float
    ended: float = 0.0
    logged: Severity | None = None
    lines: float = _BURST
    untold: int = 0


class Watch:
    """Sees all troubles again and again, and tells those that began or ended since the last time.

    Each change is one line in the log. A trouble that comes and goes fills no log: after some
    lines, one a minute says how often it did.

    Args:
        clock: for durations.
        wall_time: for people.
    """

    _log = Logger()

    def __init__(self, *, clock: Clock, wall_time: WallTime) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._known: dict[tuple[str, str], _Known] = {}

    def seen(self, troubles: Sequence[Trouble]) -> tuple[Trouble, ...]:
        """Take the troubles that are there now.

        Returns:
            The same, each once and the worst first, with ``since`` and ``seconds``.
        """
        now, wall = self._clock.seconds(), self._wall_time()
        present = {each.key: each for each in ordered(troubles)}
        for key, each in present.items():
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _Known(each, True, now, wall, now)
            elif not known.present:
                known.present, known.began, known.since = True, now, wall
                known.untold += 1
            known.trouble = each
        for key, known in self._known.items():
            if known.present and key not in present:
                known.present, known.ended = False, now
                known.untold += 1
        for key, known in list(self._known.items()):
            self._tell(known, now)
            if not known.present and known.logged is None and known.lines >= _BURST:
                del self._known[key]
        return tuple(
            evolve(
                each,
                since=self._known[key].since,
                seconds=max(0.0, now - self._known[key].began),
            )
            for key, each in present.items()
        )

    def _tell(self, known: _Known, now: float) -> None:
        """Log a change, if one is to be told and a line may be written."""
        known.lines = min(_BURST, known.lines + max(0.0, now - known.counted) / _REFILL)
        known.counted = now
        trouble = known.trouble
        if not KINDS[trouble.kind].logged:
            return
        state = trouble.severity if known.present else None
        if state == known.logged and not known.untold:
            return
        if known.lines < 1.0:
            return
        known.lines -= 1.0
        several = known.untold > 1
        known.logged, known.untold = state, 0
        if several:
            self._log.warn(
                "{kind}: the trouble has come and gone since the last line about it, and"
                " {state}: {text}",
                kind=trouble.kind,
                severity=trouble.severity,
                state="is there" if known.present else "is over",
                text=trouble.text,
            )
        elif known.present:
            self._begins(trouble)
        else:
            self._log.info(
                "{kind}: over after {seconds:.0f} s: {text}",
                kind=trouble.kind,
                severity=trouble.severity,
                seconds=known.ended - known.began,
                text=trouble.text,
            )

    def _begins(self, trouble: Trouble) -> None:
        kind, severity, text, remedy = (
            trouble.kind,
            trouble.severity,
            trouble.text,
            trouble.remedy,
        )
        if severity == "critical":
            self._log.error(_BEGUN, kind=kind, severity=severity, text=text, remedy=remedy)
        elif severity == "warning":
            self._log.warn(_BEGUN, kind=kind, severity=severity, text=text, remedy=remedy)
        else:
            self._log.info(_BEGUN, kind=kind, severity=severity, text=text, remedy=remedy)
