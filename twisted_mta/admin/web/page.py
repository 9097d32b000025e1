"""The status page as HTML: queue, listeners, workers, suspended next hops, recent messages."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256

from ...health.trouble import Trouble
from ...mail.printable import printable
from ..report import RecentMessage, SuspendedHop
from ..status import ProcessStatus, Status, label, short_duration
from .markup import Flattenable, Tag, tags

# Without characters that HTML escapes: its hash is in the Content-Security-Policy.
_STYLE = """
:root { color-scheme: light dark; --line: #ccd; --faint: #667; --bad: #b3261e; --good: #1a6b35 }
@media (prefers-color-scheme: dark) {
  :root { --line: #445; --faint: #99a; --bad: #ff8a80; --good: #7bd88f }
}
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem }
h1 { margin: 0; font-size: 1.5rem; overflow-wrap: anywhere }
h2 { margin: 2rem 0 .5rem; font-size: 1.1rem }
header p, .faint { margin: 0; color: var(--faint) }
dl { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 }
dl div { border: 1px solid var(--line); border-radius: .5rem; min-width: 6rem; padding: .5rem 1rem }
dt { color: var(--faint) }
dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .4rem .75rem .4rem 0; text-align: left;
  vertical-align: top; overflow-wrap: anywhere }
th { color: var(--faint); font-weight: normal }
.whole { white-space: nowrap; font-variant-numeric: tabular-nums }
code { font-size: .9em }
.delivered { color: var(--good) }
.failed { color: var(--bad) }
footer { margin-top: 2rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere }
iframe { border: 1px solid var(--line); background: #fff; width: 100%; height: 30rem }
@media (max-width: 45rem) {
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden }
  tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0 }
  td { display: flex; gap: 1rem; border: 0; padding: .1rem 0 }
  td:has(div:empty) { display: none }
  td::before { content: attr(data-label); flex: 0 0 5rem; color: var(--faint) }
}
"""
STYLE_HASH = b64encode(sha256(_STYLE.encode("ascii")).digest()).decode("ascii")
"""Of the style, for the Content-Security-Policy: base64 of its SHA-256."""


def document(title: str, *content: Flattenable) -> bytes:
    """Return a page with the style of all pages."""
    page = tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.title(title),
            tags.style(_STYLE),
        ),
        tags.body(*content),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n".encode()


def html(status: Status) -> bytes:
    """Return the page."""
    up = short_duration(status.now - status.started_at)
    return document(
        f"{printable(status.hostname)} - mail",
        tags.header(
            tags.h1(printable(status.hostname)),
            tags.p(
                f"twisted-mta {printable(status.version)}, up for {up}, as of ",
                _time(status.now),
                " UTC",
            ),
            tags.p(f"not ready: {printable(status.unready)}", class_="failed")
            if status.unready
            else "",
            [tags.p(printable(each), class_="failed") for each in status.incomplete],
        ),
        tags.main(
            _troubles(status) if status.troubles else "",
            _numbers("Queue", status.queue),
            _numbers("Age of recipients", status.ages) if any(status.ages.values()) else "",
            _numbers("Why it was deferred", status.reasons) if any(status.reasons.values()) else "",
            _numbers("Since the start", status.counters),
            _now(status),
            _listeners(status),
            _processes(status) if len(status.processes) > 1 else "",
            _suspended(status) if status.suspended else "",
            tags.section(tags.h2("Recent messages"), _recent(status.recent)),
        ),
        tags.footer(tags.a("The same as JSON", href="/status.json")),
    )


_TROUBLE_COLUMNS = ("Trouble", "Since", "What was found", "What to do")


def _troubles(status: Status) -> Tag:
    def row(each: Trouble) -> tuple[Flattenable, ...]:
        return (
            tags.span(each.severity, class_="failed" if each.severity == "critical" else ""),
            "" if each.since is None else f"{short_duration(each.seconds)} ago",
            printable(each.text),
            printable(each.remedy),
        )

    return tags.section(
        tags.h2("Troubles"),
        table(_TROUBLE_COLUMNS, ("whole", "whole", "", ""), map(row, status.troubles)),
    )


def _numbers(title: str, numbers: Mapping[str, int]) -> Tag:
    return tags.section(
        tags.h2(title),
        tags.dl(
            tags.div(tags.dt(printable(label(name))), tags.dd(f"{number:,}"))
            for name, number in numbers.items()
        ),
    )


def _now(status: Status) -> Flattenable:
    if not status.connections:
        return ""
    open_now = sum(each.open for each in status.connections.values())
    return _numbers("Under way", {"connections": open_now, "deliveries": status.deliveries})


def _listeners(status: Status) -> Flattenable:
    names = dict.fromkeys((*status.listeners, *status.connections))
    if not names:
        return ""
    rows = [
        (
            printable(name),
            "" if each is None else f"{each.open:,}",
            f"{each.taken:,}" if each else "",
        )
        for name, each in ((name, status.connections.get(name)) for name in names)
    ]
    return tags.section(
        tags.h2("Listeners"), table(("Listener", "Open", "Accepted"), ("", "whole", "whole"), rows)
    )


_PROCESS_COLUMNS = (
    "Worker",
    "Process",
    "State",
    "Up for",
    "Restarts",
    "Open",
    "Accepted",
    "Messages",
    "Deliveries",
)


def _processes(status: Status) -> Tag:
    def row(process: ProcessStatus) -> tuple[Flattenable, ...]:
        state = process.state if process.queue_open else f"{process.state}, queue closed"
        right = process.state == "ready" and process.queue_open
        return (
            "" if process.number is None else str(process.number),
            str(process.pid),
            tags.span(state, class_="" if right else "failed"),
            short_duration(status.now - process.started_at),
            f"{process.restarts:,}",
            f"{process.connections.open:,}",
            f"{process.connections.taken:,}",
            f"{process.accepted:,}",
            f"{process.deliveries:,}",
        )

    return tags.section(
        tags.h2("Workers"),
        table(_PROCESS_COLUMNS, ("whole",) * len(_PROCESS_COLUMNS), map(row, status.processes)),
    )


_SUSPENDED_COLUMNS = ("Next hop", "Next probe in", "Failures in a row", "Last reply")


def _suspended(status: Status) -> Tag:
    def row(each: SuspendedHop) -> tuple[Flattenable, ...]:
        return (
            printable(each.next_hop),
            short_duration(each.seconds),
            f"{each.times:,}",
            printable(each.last),
        )

    return tags.section(
        tags.h2("Suspended next hops"),
        table(_SUSPENDED_COLUMNS, ("", "whole", "whole", ""), map(row, status.suspended)),
    )


_COLUMNS = ("Received", "From", "To", "Size", "State", "Last reply", "Id")


def _recent(messages: Sequence[RecentMessage]) -> Tag:
    if not messages:
        return tags.p("None yet.", class_="faint")
    classes = ("whole", "", "", "whole", "whole", "", "whole")
    return table(_COLUMNS, classes, map(_row, messages))


def table(
    columns: Sequence[str], classes: Sequence[str], rows: Iterable[Sequence[Flattenable]]
) -> Tag:
    """Return a table, whose cells have the classes of their columns."""
    return tags.table(
        tags.thead(tags.tr(tags.th(name, scope="col") for name in columns)),
        tags.tbody(
            tags.tr(
                tags.td(tags.div(cell), class_=name, **{"data-label": label})
                for label, name, cell in zip(columns, classes, row, strict=True)
            )
            for row in rows
        ),
    )


def _row(message: RecentMessage) -> Sequence[Flattenable]:
    reverse_path = "<>" if message.reverse_path is None else message.reverse_path
    state = printable(message.state)
    recipients = [tags.div(printable(recipient)) for recipient in message.recipients]
    if message.more:
        recipients.append(tags.div(f"and {message.more:,} more", class_="faint"))
    return (
        _time(message.received_at),
        printable(reverse_path),
        recipients,
        _size(message.size),
        tags.span(state, class_=state if state in ("delivered", "failed") else ""),
        printable(message.last),
        tags.code(printable(message.id)),
    )


def _time(moment: float) -> Tag:
    at = datetime.fromtimestamp(moment, UTC)
    return tags.time(f"{at:%Y-%m-%d %H:%M:%S}", datetime=f"{at:%Y-%m-%dT%H:%M:%SZ}")


def _size(octets: float) -> str:
    for unit in ("octets", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "octets" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"
