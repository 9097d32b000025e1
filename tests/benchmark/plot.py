"""Bar charts as SVG. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from .table import amount

_WIDTH = 760
_LABEL = 150  # for the names, left of the bars
_VALUE = 90  # for the figures, right of the longest bar
_BAR = 18
_STEP = 24
_TITLE = 34
_GAP = 14

# Readable on white and black; servers without storage are gray.
_COLORS = ("#c2571a", "#1f77b4", "#5a9bd4", "#7a6fb0")
_GRAY = "#999999"


@frozen
class Chart:
    """Bars with a common scale.

    Attributes:
        title: above the bars.
        bars: length by name, from the top.
        faint: names that are drawn in gray.
    """

    title: str
    bars: Mapping[str, float]
    faint: Sequence[str] = ()

    @property
    def height(self) -> int:
        """In pixels."""
        return _TITLE + _STEP * len(self.bars) + _GAP


def svg(charts: Sequence[Chart]) -> str:
    """Return the charts below each other, with one color for each name."""
    names = [name for chart in charts for name in chart.bars if name not in chart.faint]
    colors = {
        name: _COLORS[number % len(_COLORS)] for number, name in enumerate(dict.fromkeys(names))
    }
    height = sum(chart.height for chart in charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    top = 0
    for chart in charts:
        parts += _chart(chart, top, colors)
        top += chart.height
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart, top: int, colors: Mapping[str, str]) -> list[str]:
    longest = max(chart.bars.values(), default=0.0) or 1.0
    parts = [
        f'<text x="10" y="{top + 22}" font-weight="bold" fill="#222222">'
        f"{escape(chart.title)}</text>"
    ]
    for number, (name, value) in enumerate(chart.bars.items()):
        y = top + _TITLE + number * _STEP
        length = (_WIDTH - _LABEL - _VALUE) * value / longest
        color = _GRAY if name in chart.faint else colors[name]
        middle = y + _BAR - 5
        parts += [
            f'<text x="{_LABEL - 8}" y="{middle}" text-anchor="end" fill="#222222">'
            f"{escape(name)}</text>",
            f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{color}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{middle}" fill="#222222">'
            f"{amount(value)}</text>",
        ]
    return parts
