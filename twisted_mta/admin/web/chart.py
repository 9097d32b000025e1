"""Charts over time: SVG made here, with the same as a table for readers without eyes or graphics.

The lines are stretched to the width of the page; all text stands beside them as HTML, so that it
has its size on every screen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import ceil, floor, log10

from attrs import frozen

from .markup import Flattenable, Tag, tags

_WIDTH, _HEIGHT = 600, 100
_ROWS = 12  # of the table

Values = Sequence["float | None"]


@frozen
class Series:
    """A line of a chart.

    Attributes:
        name: for people.
        values: one for each time; None: none is known.
        key: the number of its color: 1, 2.
    """

    name: str
    values: Values
    key: int


def chart(
    name: str,
    title: str,
    times: Sequence[float],
    series: Sequence[Series],
    *,
    text: Callable[[float], str],
    whole: bool = False,
) -> Tag:
    """Return a figure.

    Args:
        name: of the figure, among all of a page: a word.
        title: for people.
        times: wall times, in UTC, at equal distances.
        series: the lines.
        text: returns a value for people.
        whole: whether the numbers are whole, so that the highest number of the axis is 1 or more.
    """
    known = [value for each in series for value in each.values if value is not None]
    top = _round_up(max(known, default=0.0), whole)
    if not known:
        drawn: Flattenable = tags.p("Nothing is known of this time.", class_="faint")
    else:
        drawn = tags.div(
            tags.div(tags.span(text(top)), tags.span(text(0)), class_="scale"),
            _lines(name, title, series, top, text),
            tags.div(*(tags.span(_clock(at, times)) for at in _some(times)), class_="times"),
            class_="plot",
        )
    return tags.figure(
        tags.figcaption(title),
        tags.ul(
            *(
                tags.li(
                    tags.span(class_=f"key k{each.key}", **{"aria-hidden": "true"}),
                    f"{each.name}: {_last(each, text)}",
                )
                for each in series
            ),
            class_="legend",
        ),
        drawn,
        tags.details(
            tags.summary(f"{title} as a table"),
            _table(title, times, series, text),
            id=f"{name}-table",
        )
        if known
        else "",
    )


def _lines(
    name: str, title: str, series: Sequence[Series], top: float, text: Callable[[float], str]
) -> Tag:
    highest = "; ".join(
        f"{each.name}: at most {text(max(values))}, last {_last(each, text)}"
        for each in series
        if (values := [value for value in each.values if value is not None])
    )
    return tags.svg(
        tags.title(title, id=f"{name}-title"),
        tags.desc(highest, id=f"{name}-desc"),
        *(
            tags.line(x1="0", x2=str(_WIDTH), y1=str(y), y2=str(y), class_="grid")
            for y in (1, _HEIGHT // 2, _HEIGHT - 1)
        ),
        *(
            tags.path(d=path, class_=f"k{each.key}")
            for each in series
            if (path := _path(each.values, top))
        ),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        **{"aria-labelledby": f"{name}-title {name}-desc"},
    )


def _path(values: Values, top: float) -> str:
    """Return the commands of a line, which is broken where no value is known."""
    steps = max(1, len(values) - 1)
    commands: list[str] = []
    pen = False
    for place, value in enumerate(values):
        if value is None:
            pen = False
            continue
        x = place * _WIDTH / steps
        y = _HEIGHT - 1 - min(1.0, value / top) * (_HEIGHT - 2)
        commands.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}")
        if not pen:  # a single value is a dot
            commands.append("h0.1")
        pen = True
    return "".join(commands)


def _table(
    title: str, times: Sequence[float], series: Sequence[Series], text: Callable[[float], str]
) -> Tag:
    """Return a table of some rows; each has the highest value of its time."""
    step = max(1, ceil(len(times) / _ROWS))

    def cell(values: Values) -> str:
        known = [value for value in values if value is not None]
        return text(max(known)) if known else "-"

    starts = range(0, len(times), step)
    return tags.table(
        tags.caption(f"{title}: the highest of each time"),
        tags.thead(
            tags.tr(
                tags.th("From (UTC)", scope="col"),
                *(tags.th(each.name, scope="col") for each in series),
            )
        ),
        tags.tbody(
            tags.tr(
                tags.th(_clock(times[start], times), scope="row"),
                *(
                    tags.td(cell(each.values[start : start + step]), **{"data-label": each.name})
                    for each in series
                ),
            )
            for start in starts
        ),
        class_="numbers",
    )


def _last(series: Series, text: Callable[[float], str]) -> str:
    value = series.values[-1] if series.values else None
    return "none" if value is None else text(value)


def _some(times: Sequence[float]) -> list[float]:
    return [times[0], times[len(times) // 2], times[-1]] if len(times) > 2 else [*times]


def _clock(at: float, times: Sequence[float]) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%a %H:%M}" if times[-1] - times[0] > 86_400 else f"{moment:%H:%M}"


def _round_up(number: float, whole: bool) -> float:
    """Return the next number that is 1, 2 or 5 times a power of ten."""
    if number <= 0:
        return 1.0
    power = 10.0 ** floor(log10(number))
    nice = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= number * 0.999)
    return max(nice, 1.0) if whole else nice
