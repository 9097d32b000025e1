"""Results as tables. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from .forgetful import NAMES
from .results import CPU, THEIRS, Summary
from .target import Verdict

_WITHOUT_RATIO = ("messages/s", "CPU of the generator", "CPU µs/message of the generator")
"""Figures about the load, which do not compare contestants."""


def amount(value: float) -> str:
    """Return a figure with three significant digits.

    >>> amount(2487.92), amount(23.456), amount(0.4567)
    ('2,488', '23.5', '0.457')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns; all but the first are aligned right."""
    widths = [max(len(row[each]) for row in rows) for each in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def figures(scenario: str, found: Sequence[Summary]) -> list[list[str]]:
    """Return the rows of a scenario: a column for each contestant, ratios in brackets."""
    own = [one for one in found if one.scenario == scenario]
    names = list(dict.fromkeys(name for one in own for name in one.medians))
    heads = [f"{name} (keeps nothing)" if name in NAMES else name for name in names]
    rows = [[scenario, *heads]]
    for one in own:
        rows.append([one.figure, *(_cell(one, name) for name in names)])
        if one.figure == CPU and one.ratios:
            rows.append([f"CPU of {THEIRS} / its own", *(_inverse(one, name) for name in names)])
    return rows


def _inverse(one: Summary, name: str) -> str:
    ratio = one.ratio(name)
    return f"{1 / ratio:.2f}" if ratio else "–"


def _cell(one: Summary, name: str) -> str:
    if name not in one.medians:
        return "–"
    has_ratio = name != THEIRS and not one.figure.startswith(_WITHOUT_RATIO)
    ratio = one.ratio(name) if has_ratio else None
    return amount(one.medians[name]) + ("" if ratio is None else f" (×{ratio:.2f})")


def verdicts(judged: Sequence[Verdict]) -> list[list[str]]:
    """Return a row for each target."""
    said = {True: "met", False: "not met", None: "not measured"}
    return [
        ["target", "measured", "whose", ""],
        *(
            [
                str(one.target),
                "–" if one.measured is None else amount(one.measured),
                one.whose,
                said[one.met],
            ]
            for one in judged
        ),
    ]


def text(found: Sequence[Summary], judged: Sequence[Verdict]) -> str:
    """Return all tables, for a terminal."""
    scenarios = dict.fromkeys(one.scenario for one in found)
    parts = [grid(figures(scenario, found)) for scenario in scenarios]
    return "\n\n".join([*parts, grid(verdicts(judged))])


def rst(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, with a header row first, as a table of reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for number, cell in enumerate(row):
            lines.append(f"   {'* -' if not number else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"
