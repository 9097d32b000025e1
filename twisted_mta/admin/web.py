"""The status page: what waits, what came and what became of it. It only shows, and changes nothing.

``GET /`` is for people, ``/status.json`` the same for programs. ``/healthz`` is ``200`` while the
queue answers, for those who would start the process again; ``/readyz`` while connections may come,
for those who send them; both are ``503`` otherwise. ``/metrics`` and ``/v1/`` are answered by
`admin.api.Admin`: only what reads is let through, and of the messages in the queue no content.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from ..interfaces import Clock
from ..mail.printable import printable
from .channel import Lane
from .http import READING, Request, Responder, ResponderSite, Response, Stream, json_response, short
from .markup import Flattenable, Tag, tags
from .status import Process, RecentMessage, Status, SuspendedHop, label, short_duration

__all__ = ["RecentMessage", "Status", "StatusReport", "StatusSite"]

StatusReport = Callable[[], "Status | Deferred[Status]"]
"""Says how things stand now."""

# No character in it that HTML would escape: its hash stands in the Content-Security-Policy.
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
@media (max-width: 45rem) {
  thead { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden }
  tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0 }
  td { display: flex; gap: 1rem; border: 0; padding: .1rem 0 }
  td:has(div:empty) { display: none }
  td::before { content: attr(data-label); flex: 0 0 5rem; color: var(--faint) }
}
"""
_STYLE_HASH = b64encode(sha256(_STYLE.encode("ascii")).digest()).decode("ascii")

_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_HTML = "text/html; charset=utf-8"
# RFC 9110 §7.2: Host = uri-host [ ":" port ], and no user before it; of the names that a URI may
# have, those that the DNS can have.
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z._-]+))(?::[0-9]{0,5})?", re.ASCII
)
_QUEUE = "/v1/queue"
_PASSED_ON = ("/metrics", "/v1/status", "/v1/metrics", _QUEUE)
# What watches over programs asks for these, by whatever name; no message and no peer is in them.
_BY_ANY_NAME = ("/metrics", "/healthz", "/readyz")
# While others wait, an answer is given again for so many times as long as it took to make, and for
# so many seconds at the most. Who asks alone is always told how things stand now.
_GIVEN_AGAIN = 10.0
_OLDEST = 1.0
_MOST_GIVEN = 16  # answers that are kept


class StatusSite(ResponderSite):
    """The factory of the status page.

    Args:
        status: says how things stand.
        hosts: names by which browsers may ask for the page, besides localhost and addresses. A
            page elsewhere could make a name of its own point here, and read what its visitor sees
            (DNS rebinding); it cannot make the browser send one of these names.
        answer: of `admin.api.Admin`: answers what programs ask.
        reactor: times connections out.
    """

    def __init__(
        self,
        status: StatusReport,
        *,
        hosts: Sequence[str] = (),
        answer: Responder | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        pages = _Pages(status, hosts, answer)
        super().__init__(pages.answer, headers=_HEADERS, reactor=reactor)
        pages.clock = self.reactor
        pages.lane = self.lane


class _InTurn:
    """Answers one request after the other.

    What is asked of the queue looks at all that is there, slice by slice, while mail comes in. The
    connections are bounded, but who asks may leave at once, and ask again on another one.

    Args:
        answer: is asked.
    """

    def __init__(self, answer: Responder | None) -> None:
        self._answer = answer
        self._waiting: deque[tuple[Request, Deferred[Response | Stream]]] = deque()
        self._busy = False  # with a request
        self._going_on = False

    def take(self, request: Request) -> Deferred[Any]:
        """Answer a request when those before it are; never, where nobody waits any more."""
        done: Deferred[Response | Stream] = Deferred()
        self._waiting.append((request, done))
        self._go_on()
        return done

    def _go_on(self) -> None:
        if self._going_on:  # not within one another, however many are answered at once
            return
        self._going_on = True
        try:
            while self._waiting and not self._busy:
                request, done = self._waiting.popleft()
                if not request.gone():
                    self._busy = True
                    assert self._answer is not None
                    maybeDeferred(self._answer, request).addBoth(self._answered, done)
        finally:
            self._going_on = False

    def _answered(self, result: Any, done: Deferred[Response | Stream]) -> None:
        self._busy = False
        done.callback(result)  # a `Failure` too
        self._go_on()


class _Pages:
    clock: Clock
    lane: Lane

    def __init__(
        self, status: StatusReport, hosts: Sequence[str], answer: Responder | None
    ) -> None:
        self._status = status
        self._given: dict[tuple[str, str], tuple[float, Response]] = {}  # until when, and what
        self._hosts = tuple(host.lower().removesuffix(".") for host in ("localhost", *hosts))
        self._answer = answer
        self._in_turn = _InTurn(answer)
        self._pages: Mapping[str, Callable[[Status], Response]] = {
            "/": _html,
            "/status.json": lambda status: json_response(status.to_json()),
            "/healthz": _health,
            "/readyz": _readiness,
        }

    def answer(self, request: Request) -> Response | Stream | Deferred[Response]:
        """Answer a request."""
        # RFC 9112 §3.2: one Host field, which HTTP/1.0 may leave out; a browser never does.
        if len(request.hosts) > 1 or not (request.hosts or request.version == "HTTP/1.0"):
            return short("A request has one Host field.", 400)
        if request.path not in _BY_ANY_NAME:
            if not all(map(self._ours, request.hosts)):
                # RFC 9110 §15.5.20
                return short(
                    "This name does not lead here; ask by address.",
                    421,
                    reason=b"Misdirected Request",
                )
            # A browser says which page asks, where that is not one of ours.
            if not all(map(self._of_ours, request.origins)):
                return short("Pages from elsewhere are not answered.", 403)
        passed_on: tuple[str, ...] = _PASSED_ON if self._answer is not None else ()
        if self._answer is not None and request.path.startswith(f"{_QUEUE}/"):
            passed_on += (request.path,)
        if request.path not in self._pages and request.path not in passed_on:
            *most, last = (*self._pages, *passed_on)
            return short(f"There is {', '.join(most)} and {last}.", 404)
        if request.method not in READING:
            return short("This page can only be read.", 405, headers={"Allow": ", ".join(READING)})
        if request.path == _QUEUE or request.path not in (*self._pages, *_PASSED_ON):
            return self._in_turn.take(evolve(request, public=True))
        return self._given_again(request) or Deferred.fromCoroutine(self._made(request))

    def _given_again(self, request: Request) -> Response | None:
        """Return an answer that was given just now, if there is one and others wait for theirs."""
        if not self.lane.crowded:
            return None
        until, answer = self._given.get((request.path, request.accept), (0.0, None))
        now = self.clock.seconds()
        return answer if now < until <= now + _OLDEST else None

    async def _made(self, request: Request) -> Response:
        began = self.clock.seconds()
        if request.path in self._pages:
            answer = await self._page(self._pages[request.path])
        else:
            assert self._answer is not None
            made = self._answer(evolve(request, public=True))
            assert not isinstance(made, Stream)
            answer = await made if isinstance(made, Deferred) else made
        now = self.clock.seconds()
        while len(self._given) >= _MOST_GIVEN:
            del self._given[next(iter(self._given))]
        lasts = min(_GIVEN_AGAIN * (now - began), _OLDEST)
        self._given[request.path, request.accept] = now + lasts, answer
        return answer

    async def _page(self, page: Callable[[Status], Response]) -> Response:
        status = self._status()
        return page(await status if isinstance(status, Deferred) else status)

    def _ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if not found:
            return False
        try:
            # An address cannot be made to point elsewhere.
            IPv4Address(found["name"]) if found["name"] else IPv6Address(found["v6"])
        except ValueError:
            return bool(found["name"]) and found["name"].lower().removesuffix(".") in self._hosts
        return True

    def _of_ours(self, origin: str) -> bool:
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and self._ours(host)


def _health(status: Status) -> Response:
    return short("ok") if status.healthy else short("the queue is closed", 503)


def _readiness(status: Status) -> Response:
    """Say whether connections may come, and in the lines below what else is wrong."""
    code = 503 if status.unready else 200
    more = (*status.more_troubles, *status.incomplete)
    return short(status.unready or "ready", code, more=more)


def _html(status: Status) -> Response:
    page = f"<!DOCTYPE html>\n{_page(status)}\n"
    return Response(body=page.encode("utf-8"), content_type=_HTML)


def _page(status: Status) -> Tag:
    up = short_duration(status.now - status.started_at)
    return tags.html(
        tags.head(
            tags.meta(charset="utf-8"),
            tags.meta(name="viewport", content="width=device-width, initial-scale=1"),
            tags.title(f"{printable(status.hostname)} - mail"),
            tags.style(_STYLE),
        ),
        tags.body(
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
                [
                    tags.p(printable(each), class_="failed")
                    for each in (*status.more_troubles, *status.incomplete)
                ],
            ),
            tags.main(
                _numbers("Queue", status.queue),
                _numbers("Age of what is there", status.ages) if any(status.ages.values()) else "",
                _numbers("Why it was deferred", status.reasons)
                if any(status.reasons.values())
                else "",
                _numbers("Since the start", status.counters),
                _now(status),
                _listeners(status),
                _processes(status) if len(status.processes) > 1 else "",
                _suspended(status) if status.suspended else "",
                tags.section(tags.h2("Recent messages"), _recent(status.recent)),
            ),
            tags.footer(tags.a("The same as JSON", href="/status.json")),
        ),
        lang="en",
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
    said = [(name, status.connections.get(name)) for name in names]
    rows = [
        (
            printable(name),
            "" if each is None else f"{each.open:,}",
            f"{each.taken:,}" if each else "",
        )
        for name, each in said
    ]
    return tags.section(
        tags.h2("Listeners"), _table(("Listener", "Open", "Taken"), ("", "whole", "whole"), rows)
    )


_PROCESS_COLUMNS = (
    "Worker",
    "Process",
    "State",
    "Up for",
    "Restarts",
    "Open",
    "Taken",
    "Accepted",
    "Deliveries",
)


def _processes(status: Status) -> Tag:
    def row(process: Process) -> tuple[Flattenable, ...]:
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
        _table(_PROCESS_COLUMNS, ("whole",) * len(_PROCESS_COLUMNS), map(row, status.processes)),
    )


_SUSPENDED_COLUMNS = ("Next hop", "Tried again in", "Failures in a row", "Last answer")


def _suspended(status: Status) -> Tag:
    def row(each: SuspendedHop) -> tuple[Flattenable, ...]:
        return (
            printable(each.next_hop),
            short_duration(each.seconds),
            f"{each.times:,}",
            printable(each.last),
        )

    return tags.section(
        tags.h2("Next hops that cannot be reached"),
        _table(_SUSPENDED_COLUMNS, ("", "whole", "whole", ""), map(row, status.suspended)),
    )


_COLUMNS = ("Received", "From", "To", "Size", "State", "Last answer", "Id")


def _recent(messages: Sequence[RecentMessage]) -> Tag:
    if not messages:
        return tags.p("None yet.", class_="faint")
    classes = ("whole", "", "", "whole", "whole", "", "whole")
    return _table(_COLUMNS, classes, map(_row, messages))


def _table(
    columns: Sequence[str], classes: Sequence[str], rows: Iterable[Sequence[Flattenable]]
) -> Tag:
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
