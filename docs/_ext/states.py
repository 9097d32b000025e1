"""``.. states:: module.TRANSITIONS`` draws a state machine from its table of transitions.

The table is what the program itself runs on, so that the diagram cannot drift from it. Either form
is understood, with members of an Enum as states:

* ``Mapping[State, Mapping[Event, State]]``;
* rows ``(state, event, next state)``.

HTML gets a drawing (SVG, inline); all other formats get the table of transitions. The argument
may be followed by a caption, as the content of the directive.

The drawing is a column of states in the order of the Enum. An event that leads to the next state in
the column stands beside the arrow between the two. Other events that lead downwards leave a state to
the right, and those that lead upwards to the left; all arrows to one state share one line. Events that
leave the state as it is stand in its box, and an event that leads to the same state from nearly everywhere is
drawn once.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

Row = tuple[str, str, str]
"""A transition: the names of the state, the event and the next state."""

_ANYWHERE = "any other state"
_CAPITALS = frozenset(
    "AUTH BDAT DATA EHLO EOF EXPN HELO HELP LHLO LMTP MAIL NOOP PROXY QUIT RCPT RSET SIGHUP SIGTERM SMTP"
    " STARTTLS TCP TLS VRFY XCLIENT".split()
)


def words(value: object) -> str:
    """Return the name of a state or an event as words: ``AWAITING_EHLO`` is ``awaiting EHLO``."""
    if isinstance(value, Enum):
        name = value.name
    else:
        name = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    parts = name.strip("_").split("_")
    return " ".join(part if part.upper() in _CAPITALS and part.isupper() else part.lower() for part in parts)


def rows(table: object) -> list[Row]:
    """Return the transitions of a table, in its order.

    Raises:
        TypeError: it has neither of the two forms.
    """
    found: list[Row] = []
    if isinstance(table, Mapping):
        for state, events in table.items():
            if not isinstance(events, Mapping):
                raise TypeError(f"{state}: found {type(events).__name__}, expected a mapping of events")
            for event, value in events.items():
                found.extend((words(state), words(event), words(after)) for after in _states(value))
    elif isinstance(table, Iterable):
        for row in table:
            if not (isinstance(row, Sequence) and len(row) == 3):
                raise TypeError(f"found {row!r}, expected (state, event, next state)")
            state, event, value = row
            found.extend((words(state), words(event), words(after)) for after in _states(value))
    else:
        raise TypeError(f"found {type(table).__name__}, expected a mapping or rows")
    return list(dict.fromkeys(found))


def order(table: object) -> list[str]:
    """Return the names of all states: as their Enum has them, or in the order of the table."""
    kinds: dict[type[Enum], None] = {}
    for value in _members(table):
        kinds.setdefault(type(value))
    used = dict.fromkeys(name for state, _, after in rows(table) for name in (state, after))
    listed = [words(member) for kind in kinds for member in kind if words(member) in used]
    return list(dict.fromkeys([*listed, *used]))


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


# The drawing.

_CHARACTER = 6.7  # the width of a character of a label, in pixels
_NAME = 8.2  # and of a name of a state, which is bold
_ROW = 19
_GAP = 26
_LANE = 11
_COLORS = (
    *("#1b5e8c", "#a04000", "#2e7d32", "#7b1fa2", "#00796b", "#ad1457", "#5d4037", "#455a64"),
    *("#827717", "#283593", "#b71c1c", "#006064"),
)


@dataclass
class _Box:
    name: str
    color: str
    stays: list[str]
    down: list[tuple[str, int]] = field(default_factory=list)  # label, index of the next state
    up: list[tuple[str, int]] = field(default_factory=list)
    along: list[str] = field(default_factory=list)  # to the box below
    anywhere: list[str] = field(default_factory=list)  # to this one, from nearly everywhere
    enters_right: bool = False
    enters_left: bool = False
    top: float = 0
    height: float = 0


def draw(transitions: Sequence[Row], names: Sequence[str]) -> str:
    """Return a drawing, as an SVG element.

    Args:
        transitions: the rows; of several events between the same two states one arrow is made.
        names: all states, from top to bottom.
    """
    boxes = _boxes(transitions, names)
    width = max(
        150.0,
        *(len(box.name) * _NAME + 28 for box in boxes),
        *(max((len(line) for line in box.stays), default=0) * _CHARACTER + 24 for box in boxes),
    )
    right = max((len(label) for box in boxes for label, _ in box.down), default=0) * _CHARACTER
    anywhere = max((len(label) for box in boxes for label in box.anywhere), default=0) * _CHARACTER
    right = max(right + 16, anywhere + 34 if anywhere else 0)
    left = max((len(label) for box in boxes for label, _ in box.up), default=0) * _CHARACTER + 16
    along = max((len(label) for box in boxes for label in box.along), default=0) * _CHARACTER
    _place(boxes)
    bottom = boxes[-1].top + boxes[-1].height
    right_lanes = _lanes(boxes, down=True)
    left_lanes = _lanes(boxes, down=False)
    x0 = left + _LANE * (max(left_lanes.values(), default=-1) + 1) + 14
    x1 = x0 + width
    middle = x0 + width / 2
    out: list[str] = []

    def bus(target: int, lane: int, side: int) -> None:
        """Draw all lines to one state: side 1 is right, -1 left."""
        box = boxes[target]
        edge = x1 if side > 0 else x0
        x = edge + side * ((right if side > 0 else left) + lane * _LANE + 6)
        entry = box.top + 13
        for source in boxes:
            for index, (label, after) in enumerate(source.down if side > 0 else source.up):
                if after != target:
                    continue
                y = source.top + 13 + (index + (source.enters_right if side > 0 else source.enters_left)) * _ROW
                bend = 6 if entry > y else -6
                out.append(
                    f'<path d="M{edge:.0f} {y:.0f} H{x - side * 6:.0f} Q{x:.0f} {y:.0f} {x:.0f} {y + bend:.0f}'
                    f' V{entry - bend:.0f} Q{x:.0f} {entry:.0f} {x - side * 6:.0f} {entry:.0f}'
                    f' H{edge + side * 7:.0f}" fill="none" stroke="{box.color}" stroke-width="1.4">'
                    f"<title>{escape(source.name)}: {escape(label)} → {escape(box.name)}</title></path>"
                )
                anchor = "start" if side > 0 else "end"
                out.append(_text(edge + side * 8, y - 4, label, box.color, anchor))
        out.append(_arrow(edge, entry, -side, 0, box.color))

    for target, lane in right_lanes.items():
        bus(target, lane, 1)
    for target, lane in left_lanes.items():
        bus(target, lane, -1)
    for number, box in enumerate(boxes):
        leaves = box.down or box.up or box.along
        out.append(
            f'<rect x="{x0:.0f}" y="{box.top:.0f}" width="{width:.0f}" height="{box.height:.0f}" rx="7"'
            f' fill="#ffffff" stroke="{box.color}" stroke-width="1.6"/>'
        )
        if not leaves:  # an end
            out.append(
                f'<rect x="{x0 + 3:.0f}" y="{box.top + 3:.0f}" width="{width - 6:.0f}"'
                f' height="{box.height - 6:.0f}" rx="5" fill="none" stroke="{box.color}"/>'
            )
        lines = [*box.stays]
        first = box.top + box.height / 2 - len(lines) * 7.5 + 5
        out.append(_text(middle, first, box.name, "#111111", "middle", 13, bold=True))
        for index, line in enumerate(lines):
            out.append(_text(middle, first + 15 * (index + 1), line, "#555555", "middle"))
        if box.along:
            below = boxes[number + 1]
            y0, y1 = box.top + box.height, below.top
            out.append(
                f'<path d="M{middle:.0f} {y0:.0f} V{y1 - 7:.0f}" fill="none" stroke="{below.color}"'
                ' stroke-width="1.4"/>'
            )
            out.append(_arrow(middle, y1, 0, 1, below.color))
            for index, label in enumerate(box.along):
                out.append(_text(middle + 8, y0 + 16 + index * 15, label, below.color))
        for index, label in enumerate(box.anywhere):
            y = box.top + 13 + (index + box.enters_right) * _ROW
            out.append(
                f'<path d="M{x1 + 28:.0f} {y:.0f} H{x1 + 7:.0f}" fill="none" stroke="{box.color}"'
                ' stroke-width="1.4"/>'
            )
            out.append(_arrow(x1, y, -1, 0, box.color))
            out.append(_text(x1 + 32, y + 4, label, box.color))
    out.append(f'<circle cx="{middle:.0f}" cy="8" r="5" fill="#111111"/>')
    out.append(f'<path d="M{middle:.0f} 8 V20" fill="none" stroke="#111111" stroke-width="1.4"/>')
    out.append(_arrow(middle, boxes[0].top, 0, 1, "#111111"))
    full = max(
        x1 + right + _LANE * (max(right_lanes.values(), default=-1) + 1) + 14,
        middle + along + 16,
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {full:.0f} {bottom + 8:.0f}"'
        f' width="{full:.0f}" style="max-width: 100%; height: auto"'
        ' font-family="DejaVu Sans, Verdana, sans-serif">' + "".join(out) + "</svg>"
    )


def _boxes(transitions: Sequence[Row], names: Sequence[str]) -> list[_Box]:
    places = {name: place for place, name in enumerate(names)}
    between: dict[tuple[int, int], list[str]] = {}
    stays: dict[int, list[str]] = {}
    everywhere = _from_everywhere(transitions)
    for state, event, after in transitions:
        if state == after:
            stays.setdefault(places[state], []).append(event)
        elif (event, after) not in everywhere:
            between.setdefault((places[state], places[after]), []).append(event)
    boxes = [
        _Box(name, _COLORS[place % len(_COLORS)], _wrapped(["stays: " + ", ".join(stays[place])], 30))
        if place in stays
        else _Box(name, _COLORS[place % len(_COLORS)], [])
        for place, name in enumerate(names)
    ]
    for (place, after), events in between.items():
        if after == place + 1:
            boxes[place].along = _wrapped([", ".join(events)], 44)
            continue
        lines = _wrapped([", ".join(events)], 34)
        side = boxes[place].down if after > place else boxes[place].up
        side.extend((line, after) for line in lines)
        if after > place:
            boxes[after].enters_right = True
        else:
            boxes[after].enters_left = True
    for event, after in everywhere:
        boxes[places[after]].anywhere.append(f"{event}, in {_ANYWHERE}")
    for box in boxes:
        box.down.sort(key=lambda leaving: -leaving[1])  # the furthest first, as its line is outermost
        box.up.sort(key=lambda leaving: leaving[1])
    return boxes


def _from_everywhere(transitions: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the events, each with its next state, that come from all other states but the ends."""
    leaving = {state for state, _, after in transitions if state != after}
    sources: dict[tuple[str, str], set[str]] = {}
    for state, event, after in transitions:
        sources.setdefault((event, after), set()).add(state)
    return [
        (event, after)
        for (event, after), states in sources.items()
        if len(leaving - {after}) > 3 and leaving - {after} <= states
    ]


def _wrapped(texts: Iterable[str], width: int) -> list[str]:
    lines: list[str] = []
    for text in texts:
        line = ""
        for part in text.split(", "):
            longer = f"{line}, {part}" if line else part
            if line and len(longer) > width:
                lines.append(line + ",")
                line = part
            else:
                line = longer
        lines.append(line)
    return lines


def _place(boxes: Sequence[_Box]) -> None:
    top = 27.0
    for box in boxes:
        on_the_right = len(box.down) + box.enters_right + len(box.anywhere)
        on_the_left = len(box.up) + box.enters_left
        sides = max(on_the_right, on_the_left, 1)
        box.top = top
        box.height = max(sides * _ROW + 8, 28 + 15 * len(box.stays))
        top += box.height + max(_GAP, 15 * len(box.along) + 18 if box.along else 14)


def _lanes(boxes: Sequence[_Box], *, down: bool) -> dict[int, int]:
    """Return a lane for the line to each state: short ones inside, none on another."""
    spans: dict[int, tuple[int, int]] = {}
    for place, box in enumerate(boxes):
        for _, after in box.down if down else box.up:
            first, last = spans.get(after, (after, after))
            spans[after] = (min(first, place), max(last, place))
    lanes: dict[int, int] = {}
    for target, (first, last) in sorted(spans.items(), key=lambda item: item[1][1] - item[1][0]):
        taken = {
            lanes[other]
            for other, (low, high) in spans.items()
            if other in lanes and low <= last and first <= high
        }
        lanes[target] = min(lane for lane in range(len(taken) + 1) if lane not in taken)
    return lanes


def _text(
    x: float, y: float, text: str, color: str, anchor: str = "start", size: int = 11, *, bold: bool = False
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{color}" text-anchor="{anchor}"{weight}>'
        f"{escape(text)}</text>"
    )


def _arrow(x: float, y: float, right: int, down: int, color: str) -> str:
    """Return the head of an arrow whose point is at x, y."""
    back_x, back_y = x - 8 * right, y - 8 * down
    return (
        f'<path d="M{x:.0f} {y:.0f} L{back_x + 4 * down:.0f} {back_y + 4 * right:.0f}'
        f' L{back_x - 4 * down:.0f} {back_y - 4 * right:.0f} Z" fill="{color}"/>'
    )


# The directive.


class states(nodes.General, nodes.Element):  # noqa: N801 - as docutils names its nodes
    """Holds the table of transitions; ``svg`` is the drawing, ``alt`` its description."""


class States(SphinxDirective):
    """The state machine of a table of transitions."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the drawing with its caption."""
        path = self.arguments[0]
        module_name, _, name = path.rpartition(".")
        try:
            module = importlib.import_module(module_name)
            table = getattr(module, name)
            transitions = rows(table)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise self.error(f"{path}: {error}") from error
        self.env.note_dependency(inspect.getfile(module))
        node = states(svg=draw(transitions, order(table)), alt=f"State diagram of {path}")
        node += _table(transitions)
        caption = "\n".join(self.content)
        if not caption:
            return [node]
        children, _ = self.state.inline_text(caption, self.lineno)
        return [nodes.paragraph("", "", *children), node]


def _table(transitions: Sequence[Row]) -> nodes.table:
    group = nodes.tgroup(cols=3)
    group += [nodes.colspec(colwidth=width) for width in (25, 45, 30)]
    group += nodes.thead("", _row(("State", "Event", "Next state")))
    body = nodes.tbody()
    gathered: dict[tuple[str, str], list[str]] = {}
    for state, event, after in transitions:
        gathered.setdefault((state, after), []).append(event)
    for (state, after), events in gathered.items():
        body += _row((state, ", ".join(events), "(the same)" if state == after else after))
    group += body
    return nodes.table("", group)


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))


def _visit_html(translator: Any, node: nodes.Element) -> None:
    label = f'<div class="states" aria-label="{escape(node["alt"])}">'
    translator.body.append(f"{label}{node['svg']}</div>\n")
    raise nodes.SkipNode


def _pass(translator: Any, node: nodes.Element) -> None:
    """Let the table inside be written."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    others = {name: (_pass, _pass) for name in ("latex", "text", "man", "texinfo")}
    app.add_node(states, html=(_visit_html, None), **others)
    app.add_directive("states", States)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
