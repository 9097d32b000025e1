"""The operator's page: the verdict first, then charts, the queue, and what works on it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from urllib.parse import quote

from attrs import field, frozen

from ...agent.expiry import Expiry
from ...cluster.machines import ClusterStatus, Machine
from ...health.trouble import Trouble
from ...mail.counted import counted
from ...mail.printable import printable
from ...webhooks.status import WebhookStatus
from ..history import SPANS, Slot, Span
from ..report import Destination, RecentMessage, SuspendedHop
from ..status import ProcessStatus, Status, label, moment, short_duration
from .chart import Series, chart
from .markup import Flattenable, Tag, breakable, tags

_STATIC = files("twisted_mta.admin.web") / "static"
_STYLE = (_STATIC / "page.css").read_text("ascii")
STYLE_HASH = b64encode(sha256(_STYLE.encode("ascii")).digest()).decode("ascii")
"""Of the style, for the Content-Security-Policy: base64 of its SHA-256."""

SCRIPT = (_STATIC / "page.js").read_bytes()
"""Keeps an open page current (``/page.js``)."""

ICON = (_STATIC / "icon.svg").read_bytes()
"""``/icon.svg``."""

LIVE_POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; script-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of pages with the script."""

_RELOADED = 30  # seconds, without the script


def document(
    title: str, *content: Flattenable, live: bool = False, reloaded: bool = False
) -> bytes:
    """Return a page with the style of all pages.

    Args:
        title: of the window.
        content: of the body.
        live: whether the script keeps it current; its policy has to be `LIVE_POLICY`.
        reloaded: whether the browser reloads it without the script.
    """
    moving: Flattenable = ""
    if live:
        moving = (
            tags.link(rel="icon", href="/icon.svg", type="image/svg+xml"),
            tags.script(type="module", src="/page.js"),
            tags.noscript(tags.meta(**{"http-equiv": "refresh", "content": str(_RELOADED)}))
            if reloaded
            else "",
        )
    page = tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.title(title),
            tags.style(Tag(_STYLE)),
            moving,
        ),
        tags.body(*content),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n".encode()


@frozen(kw_only=True)
class View:
    """What the page shows besides the status.

    Attributes:
        span: of the charts.
        slots: the history of it (`History.slots`); empty: none is kept.
        expiries: what expires, the first first.
        home: the path of the page.
        queue: whether there are pages of the queue.
        account: the login, and the way out of it; or the way to one.
        acts: whether there are forms for actions.
        events: whether the script may read ``/v1/events``.
        csrf: what these repeat; empty where the client has no session.
    """

    span: Span = SPANS["1h"]
    slots: Sequence[tuple[int, Slot | None]] = ()
    expiries: Sequence[Expiry] = ()
    home: str = "/"
    queue: bool = False
    account: Flattenable = ""
    acts: bool = False
    events: bool = False
    csrf: str = field(default="", repr=False)


def framed(
    title: str,
    view: View,
    *content: Flattenable,
    current: str,
    state: Flattenable = "",
    live: bool = True,
) -> bytes:
    """Return a page with its navigation.

    Args:
        title: of the window.
        view: where its links lead.
        content: sections, each with an id where the page is ``live``.
        current: the path of this page, in the navigation.
        state: a line below the heading.
        live: whether the script keeps it current.
    """
    more = [("/queue", "Queue"), ("/sessions", "Sessions")] if view.queue else []
    places = [(view.home, "State"), *more]
    links = [
        tags.a(name, href=path, **({"aria-current": "page"} if path == current else {}))
        for path, name in places
    ]
    return document(
        title,
        tags.a("To the content", href="#content", class_="skip"),
        tags.header(
            state,
            tags.nav(*links, **{"aria-label": "Pages"}),
            view.account,
        ),
        tags.p(class_="unseen", id="news", role="status"),
        tags.p(class_="stale", id="stale", role="alert", hidden="hidden"),
        tags.main(
            *content,
            id="content",
            **({"data-live": ""} if live else {}),
            **({"data-events": ""} if live and view.events else {}),
        ),
        tags.footer(
            tags.a("The same as JSON", href="/status.json"),
            ", ",
            tags.a("metrics", href="/metrics"),
        ),
        live=live,
        reloaded=current == view.home,
    )


def html(
    status: Status,
    view: View | None = None,
    more: Flattenable = "",
    *,
    by_operator: Flattenable = "",
) -> bytes:
    """Return the page of the state of everything.

    Args:
        status: of all processes.
        view: what else it shows.
        more: sections below.
        by_operator: the section of destinations that the operator has suspended.
    """
    view = view or View()
    up = short_duration(status.now - status.started_at)
    hostname = printable(status.hostname)
    return framed(
        f"{_verdict(status)} - {hostname} - mail",
        view,
        _verdict_section(status),
        _charts(view) if view.slots else "",
        _destinations(status, view),
        _suspended(status) if status.suspended else "",
        by_operator,
        _webhooks(status) if status.webhooks else "",
        tags.section(tags.h2("Recent messages"), _recent(status.recent, view), id="recent"),
        _expiries(status, view) if view.expiries else "",
        "" if status.cluster is None else _machines(status.cluster, status.now),
        _processes(status) if len(status.processes) > 1 else "",
        _now(status),
        _listeners(status),
        _numbers("Since the start", status.counters, "counters"),
        more,
        current=view.home,
        state=tags.div(
            tags.h1(hostname),
            tags.p(
                f"twisted-mta {printable(status.version)}, up for {up}, as of ",
                time_tag(status.now),
                " UTC",
            ),
            id="state",
        ),
    )


# The verdict.


def _verdict(status: Status) -> str:
    if status.unready:
        return "Mail is refused"
    worst = [each for each in status.troubles if each.severity != "info"]
    if worst:
        return counted(len(worst), "trouble")
    return "All is well"


def _verdict_section(status: Status) -> Tag:
    tone = "well" if _verdict(status) == "All is well" else "troubled"
    if status.unready or any(each.severity == "critical" for each in status.troubles):
        tone = "refusing"
    return tags.section(
        tags.h2(_verdict(status)),
        tags.p(f"not ready: {printable(status.unready)}") if status.unready else "",
        [tags.p(printable(each)) for each in status.incomplete],
        tags.ul(_trouble(each) for each in status.troubles) if status.troubles else "",
        class_=f"verdict {tone}",
        id="verdict",
        **{"aria-label": "Verdict"},
    )


def _trouble(trouble: Trouble) -> Tag:
    since: Flattenable = ""
    if trouble.since is not None:
        since = (
            f", for {short_duration(trouble.seconds)} (since ",
            time_tag(trouble.since),
            " UTC)",
        )
    return tags.li(
        tags.strong(trouble.severity),
        since,
        tags.p(printable(trouble.text)),
        tags.p(tags.strong("What to do: "), printable(trouble.remedy)) if trouble.remedy else "",
    )


# Charts.


def _charts(view: View) -> Tag:
    slots = list(view.slots)
    if len(slots) > 1 and slots[-2][1] is not None:
        slots.pop()  # the time that is not over yet would seem to be a decline
    times = [float(at) for at, _ in slots]

    def rate(name: str) -> list[float | None]:
        return [
            None if slot is None else getattr(slot, name) / max(1, slot.minutes)
            for _, slot in slots
        ]

    def delay(share: float) -> list[float | None]:
        return [None if slot is None else slot.delay(share) for _, slot in slots]

    queue = [None if slot is None else float(slot.queue) for _, slot in slots]
    links = tags.nav(
        *(
            tags.a(
                span.title,
                href=f"{view.home}?span={span.name}",
                **({"aria-current": "true"} if span is view.span else {}),
            )
            for span in SPANS.values()
        ),
        **{"aria-label": "Time that the charts show"},
    )
    return tags.section(
        tags.h2(f"The last {view.span.title.removeprefix('1 ')}"),
        links,
        tags.div(
            chart(
                "throughput",
                "Throughput, a minute",
                times,
                (
                    Series("messages accepted", rate("accepted"), 1),
                    Series("recipients delivered", rate("delivered"), 2),
                ),
                text=_decimal,
            ),
            chart(
                "length",
                "Recipients in the queue",
                times,
                (Series("recipients", queue, 1),),
                text=_decimal,
                whole=True,
            ),
            chart(
                "latency",
                "Time to delivery",
                times,
                (Series("half of the mail", delay(0.5), 1), Series("95 %", delay(0.95), 2)),
                text=_seconds,
            ),
            chart(
                "refusals",
                "Refused and deferred, a minute",
                times,
                (
                    Series("refused to clients", rate("refused"), 1),
                    Series("deferred or failed", _sum(rate("deferred"), rate("failed")), 2),
                ),
                text=_decimal,
            ),
            class_="charts",
        ),
        id="charts",
    )


def _sum(one: Sequence[float | None], other: Sequence[float | None]) -> list[float | None]:
    return [
        None if left is None or right is None else left + right
        for left, right in zip(one, other, strict=True)
    ]


def _decimal(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}"


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else short_duration(seconds)


# The queue.


_DESTINATION_COLUMNS = ("Domain", "Recipients", "Deferred", "On hold", "Oldest", "Why deferred")


def _destinations(status: Status, view: View) -> Tag:
    def row(each: Destination) -> tuple[Flattenable, ...]:
        domain = printable(each.domain)
        reasons = sorted(each.reasons.items(), key=lambda reason: -reason[1])
        return (
            tags.a(domain, href=f"/queue?domain={quoted(each.domain)}") if view.queue else domain,
            f"{each.recipients:,}",
            f"{each.deferred:,}" if each.deferred else "",
            f"{each.held:,}" if each.held else "",
            short_duration(status.now - each.since),
            ", ".join(f"{label(name)}: {count:,}" for name, count in reasons),
        )

    counts = {name: count for name, count in status.queue.items() if count or name == "messages"}
    rows = list(map(row, status.destinations))
    return tags.section(
        tags.h2("Queue"),
        _definitions(counts),
        tags.details(
            tags.summary("By age and reason"),
            _definitions(status.ages),
            _definitions(status.reasons),
            id="by-age",
        )
        if any(status.ages.values())
        else "",
        table(_DESTINATION_COLUMNS, ("", *("whole",) * 4, ""), rows) if rows else "",
        id="queue",
    )


_SUSPENDED_COLUMNS = ("Next hop", "Next probe in", "Failures in a row", "Waiting", "Last reply")


def _suspended(status: Status) -> Tag:
    def row(each: SuspendedHop) -> tuple[Flattenable, ...]:
        return (
            breakable(printable(each.next_hop)),
            short_duration(each.seconds),
            f"{each.times:,}",
            f"{each.waiting:,}",
            printable(each.last),
        )

    return tags.section(
        tags.h2("Suspended next hops"),
        table(_SUSPENDED_COLUMNS, ("", *("whole",) * 3, ""), map(row, status.suspended)),
        id="suspended",
    )


_WEBHOOK_COLUMNS = ("URL", "State", "Waiting", "Posted", "Last success", "Last failure")


def _webhooks(status: Status) -> Tag:
    def row(each: WebhookStatus) -> tuple[Flattenable, ...]:
        since = each.failing_since
        return (
            breakable(printable(each.url)),
            each.state if since is None else f"{each.state}, {short_duration(status.now - since)}",
            f"{each.waiting:,}",
            f"{each.posted:,}",
            "" if each.last_success is None else time_tag(each.last_success),
            printable(each.error),
        )

    return tags.section(
        tags.h2("Webhooks"),
        table(_WEBHOOK_COLUMNS, ("", *("whole",) * 4, ""), map(row, status.webhooks)),
        id="webhooks",
    )


# Everything else.


def _definitions(numbers: Mapping[str, int]) -> Flattenable:
    if not numbers:
        return ""
    return tags.dl(
        tags.div(tags.dt(printable(label(name))), tags.dd(f"{number:,}"))
        for name, number in numbers.items()
    )


def _numbers(title: str, numbers: Mapping[str, int], id: str) -> Tag:
    return tags.section(tags.h2(title), _definitions(numbers), id=id)


def _now(status: Status) -> Flattenable:
    if not status.connections:
        return ""
    open_now = sum(each.open for each in status.connections.values())
    return _numbers(
        "Under way", {"connections": open_now, "deliveries": status.deliveries}, "under-way"
    )


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
        tags.h2("Listeners"),
        table(("Listener", "Open", "Accepted"), ("", "whole", "whole"), rows),
        id="listeners",
    )


_EXPIRY_COLUMNS = ("What", "Of", "Expires", "Left", "What to do")


def _expiries(status: Status, view: View) -> Tag:
    def row(each: Expiry) -> tuple[Flattenable, ...]:
        days = each.days_left(status.now)
        left = counted(days, "day") if days >= 0 else "it is over"
        return (
            each.kind,
            each.of,
            each.day,
            tags.span(left, class_="failed" if days < 0 else ""),
            each.do,
        )

    return tags.section(
        tags.h2("Certificates and keys"),
        table(_EXPIRY_COLUMNS, ("", "", "whole", "whole", ""), map(row, view.expiries)),
        id="expiries",
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
        id="workers",
    )


_MACHINE_COLUMNS = ("Machine", "Id", "State", "Up for", "Program", "Workers", "In delivery")


def _machines(cluster: ClusterStatus, now: float) -> Tag:
    def row(machine: Machine) -> tuple[Flattenable, ...]:
        state = "alive"
        if not machine.alive:
            state = f"silent for {short_duration(machine.silent + (cluster.seen or 0.0))}"
        if machine.id == cluster.own:
            state += ", this one"
        return (
            printable(machine.hostname),
            printable(machine.id[:8]),
            tags.span(state, class_="" if machine.alive else "failed"),
            short_duration(now - machine.since),
            printable(machine.version),
            f"{machine.workers:,}",
            f"{machine.leases:,}",
        )

    return tags.section(
        tags.h2("Machines"),
        table(_MACHINE_COLUMNS, ("", *("whole",) * 6), map(row, cluster.machines)),
        tags.p(f"Limits of all machines: {cluster.limits}.", class_="faint"),
        id="machines",
    )


_MOST_RECENT = 20  # messages; the JSON has more
_COLUMNS = ("Received", "From", "To", "Size", "State", "Last reply", "Id")
_IN_QUEUE = ("queued", "deferred", "held")


def _recent(messages: Sequence[RecentMessage], view: View) -> Tag:
    if not messages:
        return tags.p("None yet.", class_="faint")
    classes = ("whole", "", "", "whole", "whole", "", "whole")
    return table(_COLUMNS, classes, (_row(message, view) for message in messages[:_MOST_RECENT]))


def table(
    columns: Sequence[str], classes: Sequence[str], rows: Iterable[Sequence[Flattenable]]
) -> Tag:
    """Return a table, whose cells have the classes of their columns.

    The roles are said because the style shows the rows of a narrow screen as blocks, which are no
    table to browsers.
    """
    return tags.table(
        tags.thead(
            tags.tr(
                (tags.th(name, scope="col", role="columnheader") for name in columns), role="row"
            ),
            role="rowgroup",
        ),
        tags.tbody(
            (
                tags.tr(
                    (
                        tags.td(tags.div(cell), class_=name, **{"data-label": label}, role="cell")
                        for label, name, cell in zip(columns, classes, row, strict=True)
                    ),
                    role="row",
                )
                for row in rows
            ),
            role="rowgroup",
        ),
        role="table",
    )


def _row(message: RecentMessage, view: View) -> Sequence[Flattenable]:
    reverse_path = "<>" if message.reverse_path is None else message.reverse_path
    state = printable(message.state)
    recipients = [tags.div(breakable(printable(recipient))) for recipient in message.recipients]
    if message.more:
        recipients.append(tags.div(f"and {message.more:,} more", class_="faint"))
    id: Flattenable = tags.code(printable(message.id))
    if view.queue and message.state in _IN_QUEUE:
        id = tags.a(id, href=f"/queue/{quoted(message.id)}")
    return (
        time_tag(message.received_at),
        breakable(printable(reverse_path)),
        recipients,
        size_text(message.size),
        state_tag(state),
        printable(message.last),
        id,
    )


def state_tag(state: str) -> Tag:
    """Return the state of a message or a recipient, in its color."""
    known = state in ("delivered", "failed", "deferred", "held")
    return tags.span(state, class_=state if known else "")


def time_tag(at: float) -> Tag:
    """Return a wall time for people, in UTC."""
    machine = f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    return tags.time(moment(at), datetime=machine)


def quoted(text: str) -> str:
    """Return a text for a URL."""
    return quote(text.encode("utf-8", "replace"), safe="")


def size_text(octets: float) -> str:
    """Return a number of octets for people."""
    for unit in ("octets", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "octets" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"
