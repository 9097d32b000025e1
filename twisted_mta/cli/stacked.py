"""Tables with several lines for each row, for terminals that are too narrow for one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_GAP = 2  # columns of the terminal between cells
_INDENT = 2  # columns before all lines but the first
_NARROW = 24  # least room for a longer cell beside others
_WIDE = 36  # most room for a cell beside others

_Line = Sequence[tuple[int, int]]
"""The cells of one line: the number of each column, and its width."""


def stacked(
    columns: Sequence[Text], rows: Sequence[Sequence[Text]], console: Console
) -> list[Text]:
    """Return the lines of a table, with as many cells in each line as the console has room for.

    Texts such as replies have lines of their own, below the other cells. Columns without any cell
    are left out, and so is the first line of a row if it has an id and is the same as that of the
    row before: a message with several recipients.
    """
    layout = _layout(columns, rows, console.width)
    bold = [Text(column.plain, style="bold") for column in columns]
    lines = [*_row(bold, layout, console), Text("\u2500" * console.width)]
    before: Sequence[str] = ()
    for row in rows:
        first = [row[number].plain for number, _ in layout[0]]
        repeats = first == before and columns[0].plain == "Id" and len(layout) > 1
        lines.extend(_row(row, layout, console, skipped=int(repeats)))
        before = first
    return lines


def _layout(columns: Sequence[Text], rows: Sequence[Sequence[Text]], width: int) -> list[_Line]:
    layout: list[list[tuple[int, int]]] = [[]]
    texts: list[_Line] = []
    left = width
    for number, cells in enumerate(zip(*rows, strict=True)):
        longest = max(map(_length, cells))
        if not longest:
            continue
        if any(_length(cell) > _WIDE and " " in cell.plain for cell in cells):
            texts.append([(number, width - _INDENT)])
            continue
        longest = max(longest, _length(columns[number]))
        if layout[-1] and left < min(longest, _NARROW):
            layout.append([])
            left = width - _INDENT
        layout[-1].append((number, min(longest, left, _WIDE)))
        left -= layout[-1][-1][1] + _GAP
    return [line for line in (*layout, *texts) if line]


def _length(cell: Text) -> int:
    return cell_len(cell.plain)


def _row(
    cells: Sequence[Text], layout: Sequence[_Line], console: Console, *, skipped: int = 0
) -> Iterator[Text]:
    for number, line in enumerate(layout):
        indent = _INDENT if number else 0
        if number >= skipped and any(cells[column].plain for column, _ in line):
            yield from _line([(cells[column], width) for column, width in line], indent, console)


def _line(cells: Sequence[tuple[Text, int]], indent: int, console: Console) -> Iterator[Text]:
    """Yield one line, or several if cells are longer than their columns."""
    folded: list[list[Text]] = []
    start, above = indent, 0
    for cell, width in cells:
        pieces = list(cell.wrap(console, width, overflow="fold"))
        if len(pieces) > 1 and " " not in cell.plain and start + _length(cell) <= console.width:
            pieces = [cell]  # an address stays whole, for copying; the next cells are below it
        folded.append([Text()] * above + pieces)
        above += len(pieces) == 1 and _length(cell) > width
        start += width + _GAP
    for row in zip_longest(*folded, fillvalue=Text()):
        text, start = Text(), indent
        for piece, (_, width) in zip(row, cells, strict=True):
            if piece.plain:
                piece.rstrip()
                text.append(" " * (start - _length(text)))
                text.append_text(piece)
            start += width + _GAP
        yield text
