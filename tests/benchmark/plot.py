"""Bars, drawn as SVG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from .table import amount

_WIDTH = 760
_LABEL = 150  # for the names, to the left of the bars
_VALUE = 90  # for the figures, to the right of the longest
_BAR = 18
_STEP = 24
_TITLE = 34
_GAP = 14

# Readable on white and on black; who keeps nothing is grey.
_COLOURS = ("#c2571a", "#1f77b4", "#5a9bd4", "#7a6fb0")
_GREY = "#999999"


@frozen
class Chart:
    """Bars with one scale.

    Attributes:
        title: above them.
        bars: length by name, from the top.
        faint: names that are drawn in grey.
    """

    title: str
    bars: Mapping[str, float]
    faint: Sequence[str] = ()

    @property
    def height(self) -> int:
        """In pixels."""
        return _TITLE + _STEP * len(self.bars) + _GAP


def svg(charts: Sequence[Chart]) -> str:
    """Return charts, one below the other, each name in the same colour in all of them."""
    names = [name for chart in charts for name in chart.bars if name not in chart.faint]
    colours = {
        name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(dict.fromkeys(names))
    }
    height = sum(chart.height for chart in charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    top = 0
    for chart in charts:
        parts += _chart(chart, top, colours)
        top += chart.height
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart, top: int, colours: Mapping[str, str]) -> list[str]:
    longest = max(chart.bars.values(), default=0.0) or 1.0
    parts = [
        f'<text x="10" y="{top + 22}" font-weight="bold" fill="#222222">'
        f"{escape(chart.title)}</text>"
    ]
    for number, (name, value) in enumerate(chart.bars.items()):
        y = top + _TITLE + number * _STEP
        length = (_WIDTH - _LABEL - _VALUE) * value / longest
        colour = _GREY if name in chart.faint else colours[name]
        middle = y + _BAR - 5
        parts += [
            f'<text x="{_LABEL - 8}" y="{middle}" text-anchor="end" fill="#222222">'
            f"{escape(name)}</text>",
            f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{middle}" fill="#222222">'
            f"{amount(value)}</text>",
        ]
    return parts
