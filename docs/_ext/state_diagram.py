"""Draw a state machine as SVG from its table of transitions.

A table has one of two forms, with members of an Enum as states:

* ``Mapping[State, Mapping[Event, State]]``;
* rows ``(state, event, next state)``.

A state is shown by the name of its member, with the value below it if that is another text; an
event by the value of its member, if that is text.

The states stand below each other, in the order of their Enum. An event that leads to the state
below stands beside the arrow between them. All others that lead downwards leave a state to the
right, and those that lead upwards to the left; the arrows to one state share one line. Events that
leave the state as it is stand in its box. An event that leads to one state from all others is
drawn once.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from html import escape

from attrs import define, field

Row = tuple[str, str, str]
"""A transition: the names of the state, the event and the next state."""

_CAPITALS = frozenset(
    (
        *("AUTH", "BDAT", "DATA", "EHLO", "EXPN", "HELO", "HELP", "LHLO", "LMTP", "MAIL", "NOOP"),
        *("PROXY", "QUIT", "RCPT", "RSET", "SMTP", "STARTTLS", "TCP", "TLS", "VRFY", "XCLIENT"),
    )
)


def words(value: object) -> str:
    """Return the name of a state or an event as words: ``AWAITING_EHLO`` is ``awaiting EHLO``."""
    if isinstance(value, Enum):
        name = value.name
    else:
        name = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    parts = name.strip("_").split("_")
    return " ".join(
        part if part.upper() in _CAPITALS and part.isupper() else part.lower() for part in parts
    )


def rows(table: object) -> list[Row]:
    """Return the transitions of a table, in its order.

    Raises:
        TypeError: it has neither of the two forms.
    """
    found: list[Row] = []
    if isinstance(table, Mapping):
        for state, events in table.items():
            if not isinstance(events, Mapping):
                raise TypeError(
                    f"{state}: found {type(events).__name__}, expected a mapping of events"
                )
            for event, value in events.items():
                found.extend((words(state), label(event), words(after)) for after in _states(value))
    elif isinstance(table, Iterable):
        for row in table:
            if not (isinstance(row, Sequence) and len(row) == 3):
                raise TypeError(f"found {row!r}, expected (state, event, next state)")
            state, event, value = row
            found.extend((words(state), label(event), words(after)) for after in _states(value))
    else:
        raise TypeError(f"found {type(table).__name__}, expected a mapping or rows")
    return list(dict.fromkeys(found))


def label(event: object) -> str:
    """Return the text of an event."""
    return event.value if isinstance(event, Enum) and isinstance(event.value, str) else words(event)


def descriptions(table: object) -> dict[str, str]:
    """Return the values of states that are text and say more than their names, by name."""
    return {
        words(state): state.value
        for state in _members(table)
        if isinstance(state.value, str) and _letters(state.value) != _letters(words(state))
    }


def order(table: object) -> list[str]:
    """Return the names of all states: as their Enum has them, or in the order of the table."""
    kinds: dict[type[Enum], None] = {}
    for value in _members(table):
        kinds.setdefault(type(value))
    used = dict.fromkeys(name for state, _, after in rows(table) for name in (state, after))
    listed = [words(member) for kind in kinds for member in kind if words(member) in used]
    return list(dict.fromkeys([*listed, *used]))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


def _members(table: object) -> Iterable[Enum]:
    if isinstance(table, Mapping):
        yield from (state for state in table if isinstance(state, Enum))
    elif isinstance(table, Iterable):
        yield from (row[0] for row in table if isinstance(row[0], Enum))


def _states(value: object) -> list[object]:
    """Return the next state, or the several that one event may lead to."""
    if isinstance(value, set | frozenset | tuple | list):
        return [each for each in value if isinstance(each, Enum)]
    return [value]


# The drawing. All lengths are in pixels.

_LETTER = 6.7  # width of a letter of a label
_LARGE_LETTER = 8.2  # width of a letter of the name of a state
_ROW = 19  # height of an arrow with its label
_LINE = 15  # height of a line of text
_LANE = 11  # distance of two vertical lines
_COLORS = (
    *("#1b5e8c", "#a04000", "#2e7d32", "#7b1fa2", "#00796b", "#ad1457", "#5d4037", "#455a64"),
    *("#827717", "#283593", "#b71c1c", "#006064"),
)
_BLACK = "#111111"
_GRAY = "#555555"


@define
class _Box:
    """A state, and the labels around it.

    Attributes:
        described: lines of text inside, below the name.
        stays: likewise, the events that leave the state as it is.
        below: the events that lead to the next box.
        right: the events that lead further down, each with the number of the next state.
        left: likewise, up.
        anywhere: the events that lead to this state from all others.
        entered: the sides on which lines arrive: 1 is right, -1 left.
    """

    name: str
    color: str
    described: list[str] = field(factory=list)
    stays: list[str] = field(factory=list)
    below: list[str] = field(factory=list)
    right: list[tuple[str, int]] = field(factory=list)
    left: list[tuple[str, int]] = field(factory=list)
    anywhere: list[str] = field(factory=list)
    entered: set[int] = field(factory=set)
    top: float = 0
    height: float = 0

    @property
    def lines(self) -> list[str]:
        return self.described + self.stays

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def is_final(self) -> bool:
        return not (self.right or self.left or self.below)

    def leaving(self, side: int) -> list[tuple[str, int]]:
        return self.right if side > 0 else self.left

    def row(self, side: int, number: int) -> float:
        """Return the height of an arrow that leaves; the first row is for those that arrive."""
        return self.top + 13 + (number + (side in self.entered)) * _ROW


def draw(table: object) -> str:
    """Return the drawing of a table, as an SVG element.

    Raises:
        TypeError: it has neither of the two forms.
    """
    return _Drawing(_boxes(rows(table), order(table), descriptions(table))).svg()


class _Drawing:
    def __init__(self, boxes: Sequence[_Box]) -> None:
        self._boxes = boxes
        self._parts: list[str] = []
        self._lanes = {side: _lanes(boxes, side) for side in (1, -1)}
        wide = max(len(box.name) for box in boxes) * _LARGE_LETTER + 28
        widest_line = _widest(line for box in boxes for line in box.lines) + 24
        anywhere = _widest(label for box in boxes[:-1] for label in box.anywhere)
        self._labels = {
            side: _widest(label for box in boxes for label, _ in box.leaving(side)) + 16
            for side in (1, -1)
        }
        self._labels[1] = max(self._labels[1], anywhere + 34 if anywhere else 0)
        self._left = self._labels[-1] + _LANE * _count(self._lanes[-1]) + 14
        self._right = self._left + max(150.0, wide, widest_line)
        self._middle = (self._left + self._right) / 2

    def svg(self) -> str:
        """Return the whole."""
        for side, lanes in self._lanes.items():
            for target in lanes:
                self._arrivals(target, side)
        for number, box in enumerate(self._boxes):
            self._box(box)
            if box.below:
                self._to_next(box, self._boxes[number + 1])
            for index, label in enumerate(box.anywhere):
                y = box.row(1, index)
                self._line(f"M{self._right + 28:.0f} {y:.0f} H{self._right + 7:.0f}", box.color)
                self._head(self._right, y, (-1, 0), box.color)
                self._text(self._right + 32, y + 4, label, box.color)
        self._parts.append(f'<circle cx="{self._middle:.0f}" cy="8" r="5" fill="{_BLACK}"/>')
        self._line(f"M{self._middle:.0f} 8 V20", _BLACK)
        self._head(self._middle, self._boxes[0].top, (0, 1), _BLACK)
        width = max(
            self._right + self._labels[1] + _LANE * _count(self._lanes[1]) + 14,
            self._middle + _widest(label for box in self._boxes for label in box.below) + 16,
            self._right + _widest(self._boxes[-1].anywhere) + 40,
        )
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" role="img"'
            ' font-family="DejaVu Sans, Verdana, sans-serif"'
            f' viewBox="0 0 {width:.0f} {self._boxes[-1].bottom + 8:.0f}" width="{width:.0f}"'
            f' style="max-width: 100%; height: auto">{"".join(self._parts)}</svg>'
        )

    def _arrivals(self, target: int, side: int) -> None:
        """Draw the line on which all arrows to one state come together."""
        box = self._boxes[target]
        edge = self._right if side > 0 else self._left
        x = edge + side * (self._labels[side] + self._lanes[side][target] * _LANE + 6)
        end = box.row(side, -1)
        for source in self._boxes:
            for number, (label, after) in enumerate(source.leaving(side)):
                if after != target:
                    continue
                y = source.row(side, number)
                bend = 6 if end > y else -6
                inner = x - side * 6
                self._line(
                    f"M{edge:.0f} {y:.0f} H{inner:.0f} Q{x:.0f} {y:.0f} {x:.0f} {y + bend:.0f}"
                    f" V{end - bend:.0f} Q{x:.0f} {end:.0f} {inner:.0f} {end:.0f}"
                    f" H{edge + side * 7:.0f}",
                    box.color,
                    title=f"{source.name}: {label} → {box.name}",
                )
                self._text(edge + side * 8, y - 4, label, box.color, "start" if side > 0 else "end")
        self._head(edge, end, (-side, 0), box.color)

    def _box(self, box: _Box) -> None:
        for inset in (0, 3) if box.is_final else (0,):
            self._parts.append(
                f'<rect x="{self._left + inset:.0f}" y="{box.top + inset:.0f}" rx="{7 - inset}"'
                f' width="{self._right - self._left - 2 * inset:.0f}"'
                f' height="{box.height - 2 * inset:.0f}" stroke="{box.color}" stroke-width="1.5"'
                ' fill="#ffffff"/>'
            )
        y = box.top + box.height / 2 - len(box.lines) * _LINE / 2 + 5
        self._text(self._middle, y, box.name, _BLACK, "middle", ' font-weight="bold"', size=13)
        for number, line in enumerate(box.lines, 1):
            style = ' font-style="italic"' if number <= len(box.described) else ""
            self._text(self._middle, y + _LINE * number, line, _GRAY, "middle", style)

    def _to_next(self, box: _Box, after: _Box) -> None:
        self._line(f"M{self._middle:.0f} {box.bottom:.0f} V{after.top - 7:.0f}", after.color)
        self._head(self._middle, after.top, (0, 1), after.color)
        for number, label in enumerate(box.below):
            self._text(self._middle + 8, box.bottom + 16 + number * _LINE, label, after.color)

    def _line(self, path: str, color: str, *, title: str = "") -> None:
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{color}" stroke-width="1.4">'
            f"<title>{escape(title)}</title></path>"
        )

    def _head(self, x: float, y: float, direction: tuple[int, int], color: str) -> None:
        """Draw the head of an arrow whose point is at x, y."""
        right, down = direction
        back_x, back_y = x - 8 * right, y - 8 * down
        self._parts.append(
            f'<path d="M{x:.0f} {y:.0f} L{back_x + 4 * down:.0f} {back_y + 4 * right:.0f}'
            f' L{back_x - 4 * down:.0f} {back_y - 4 * right:.0f} Z" fill="{color}"/>'
        )

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        color: str,
        anchor: str = "start",
        more: str = "",
        *,
        size: int = 11,
    ) -> None:
        self._parts.append(
            f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}"'
            f' text-anchor="{anchor}"{more}>{escape(text)}</text>'
        )


def _boxes(
    transitions: Sequence[Row], names: Sequence[str], described: Mapping[str, str]
) -> list[_Box]:
    boxes = [_Box(name, _COLORS[number % len(_COLORS)]) for number, name in enumerate(names)]
    numbers = {name: number for number, name in enumerate(names)}
    anywhere = _from_everywhere(transitions)
    events: dict[tuple[int, int], list[str]] = {}
    for state, event, after in transitions:
        if (event, after) not in anywhere or state == after:
            events.setdefault((numbers[state], numbers[after]), []).append(event)
    for box in boxes:
        if box.name in described:
            box.described = textwrap.wrap(described[box.name], 34)
    for (number, after), labels in events.items():
        box = boxes[number]
        if after == number:
            box.stays = _wrapped([f"stays: {labels[0]}", *labels[1:]], 34)
        elif after == number + 1:
            box.below = _wrapped(labels, 44)
        else:
            side = 1 if after > number else -1
            box.leaving(side).extend((line, after) for line in _wrapped(labels, 34))
            boxes[after].entered.add(side)
    for event, after in anywhere:
        boxes[numbers[after]].anywhere.append(f"{event}, in any other state")
    top = 27.0
    for box in boxes:
        box.right.sort(key=lambda leaving: -leaving[1])  # the furthest first: its line is outermost
        box.left.sort(key=lambda leaving: leaving[1])
        box.top = top
        arrows = max(
            len(box.right) + len(box.anywhere) + (1 in box.entered),
            len(box.left) + (-1 in box.entered),
            1,
        )
        box.height = max(arrows * _ROW + 8, 28 + _LINE * len(box.lines))
        top = box.bottom + max(26, _LINE * len(box.below) + 18)
    return boxes


def _from_everywhere(transitions: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the events that lead to one state from all states with an exit, each with that state.

    With up to three such states each has an arrow of its own.
    """
    left = {state for state, _, after in transitions if state != after}
    sources: dict[tuple[str, str], set[str]] = {}
    for state, event, after in transitions:
        sources.setdefault((event, after), set()).add(state)
    return [
        (event, after)
        for (event, after), states in sources.items()
        if len(left - {after}) > 3 and left - {after} <= states
    ]


def _lanes(boxes: Sequence[_Box], side: int) -> dict[int, int]:
    """Return a lane for the line to each state: short ones inside, none on another."""
    spans: dict[int, tuple[int, int]] = {}
    for number, box in enumerate(boxes):
        for _, after in box.leaving(side):
            first, last = spans.get(after, (after, after))
            spans[after] = (min(first, number), max(last, number))
    lanes: dict[int, int] = {}
    for target, (first, last) in sorted(spans.items(), key=lambda span: span[1][1] - span[1][0]):
        taken = {
            lane
            for other, lane in lanes.items()
            if spans[other][0] <= last and first <= spans[other][1]
        }
        lanes[target] = min(frozenset(range(len(taken) + 1)) - taken)
    return lanes


def _count(lanes: Mapping[int, int]) -> int:
    return max(lanes.values(), default=-1) + 1


def _widest(labels: Iterable[str]) -> float:
    return max((len(label) for label in labels), default=0) * _LETTER


def _wrapped(labels: Iterable[str], width: int) -> list[str]:
    lines: list[str] = []
    for label in labels:
        if lines and len(lines[-1]) + len(label) + 2 <= width:
            lines[-1] += f", {label}"
        else:
            lines.append(label)
    return [line + "," for line in lines[:-1]] + lines[-1:]
