"""The tool's output: tables on a terminal, lines with tabs in a pipe.

All texts that come from an MTA have to be printable: peers have chosen some of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from shutil import get_terminal_size
from textwrap import wrap
from typing import IO, TypeAlias

Table: TypeAlias = tuple[str, Sequence[str], list[Sequence[str]]]
"""Title, columns, rows."""


def lines(facts: Iterable[tuple[str, str]], tables: Iterable[Table]) -> Iterator[str]:
    """Yield lines for a pipe: one for each fact, then tables with cells separated by tabs."""
    for name, fact in facts:
        yield f"{name}: {fact}"
    for title, columns, rows in tables:
        if rows:
            yield ""
            yield f"{title}:"
            yield "\t".join(columns)
            yield from map("\t".join, rows)


def wrapped(line: str, *, hanging: int = 2) -> list[str]:
    """Return the lines of at most the terminal's width that show a line; itself in a pipe.

    Args:
        line: without styles; its indentation is kept.
        hanging: columns by which all lines but the first are indented further.
    """
    if not sys.stdout.isatty():
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + hanging)
    width = max(get_terminal_size().columns, len(indent) + 20)
    return wrap(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def show(
    facts: Iterable[tuple[str, str]],
    tables: Iterable[Table],
    *,
    file: IO[str] | None = None,
    width: int | None = None,
) -> None:
    """Draw facts and tables on a terminal.

    A table that is too wide for the terminal has several lines for each row.

    Args:
        facts: names with their texts.
        tables: those without rows are left out.
        file: None: standard output.
        width: columns; None: those of the terminal.
    """
    from rich import box  # imported here: other commands start faster without it
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    from .stacked import stacked

    def texts(cells: Iterable[str]) -> list[Text]:
        # Text is shown as it is: in a str, brackets from a peer would be markup.
        return [Text(cell, style=_STYLES.get(cell, "")) for cell in cells]

    console = Console(file=file, width=width, highlight=False)
    fact_table = RichTable(box=None, show_header=False, pad_edge=False)
    for name, fact in facts:
        fact_table.add_row(Text(name, style="dim"), *texts((fact,)))
    if fact_table.row_count:
        console.print(fact_table)
    for title, columns, rows in tables:
        if not rows:
            continue
        widths = [max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True)]
        if sum(min(each, _FOLDED) + _GAP for each in widths) - _GAP > console.width:
            lines = stacked(texts(columns), [texts(row) for row in rows], console)
            heading = ["", Text(title, style="italic")] if title else []
            console.print(*heading, *lines, sep="\n")
            continue
        table = RichTable(title=title or None, title_justify="left", box=box.SIMPLE, pad_edge=False)
        for column, natural in zip(columns, widths, strict=True):
            table.add_column(column, overflow="fold", no_wrap=natural <= _FOLDED)
        for row in rows:
            table.add_row(*texts(row))
        console.print(table)


_FOLDED = 26  # columns that a longer cell keeps at least; times and ids are not folded
_GAP = 3  # columns between two cells
_STYLES = {
    "ready": "green",
    "delivered": "green",
    "failed": "red",
    "not answering": "bold red",
    "starting": "yellow",
    "draining": "yellow",
    "deferred": "yellow",
    "held": "cyan",
    "quarantined": "red",
}


def shortened(text: str, width: int) -> str:
    """Return a text of one line in so many columns at most, with an ellipsis where it is longer."""
    from rich.cells import cell_len, set_cell_size  # imported here: as in `show`

    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "\u2026"
