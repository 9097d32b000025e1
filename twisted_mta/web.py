"""The status page: what waits, what came and what became of it. It only shows, and changes nothing.

``GET /`` is for people, ``/status.json`` the same for programs, ``/healthz`` for those who watch
over the process: ``200`` while the queue answers, ``503`` otherwise.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import ip_address

from attrs import asdict, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from twisted.web.template import Flattenable, Tag, flattenString, tags

from .smtp.reply import printable


@frozen(kw_only=True)
class RecentMessage:
    """A message that came not long ago.

    Attributes:
        id: its queue id.
        received_at: wall time of acceptance, seconds since the epoch.
        reverse_path: whom it is from; None is the null reverse-path.
        recipients: whom it is for; the first of them where they are many.
        size: octets.
        state: one word: ``queued``, ``delivered``, ``failed``, …
        last: the last answer that it got; empty before the first.
    """

    id: str
    received_at: float
    reverse_path: str | None
    recipients: tuple[str, ...]
    size: int
    state: str
    last: str = ""


@frozen(kw_only=True)
class Status:
    """What the page shows.

    Attributes:
        hostname: our name.
        version: of twisted-mta.
        started_at: wall time, seconds since the epoch.
        now: wall time of this report.
        queue: messages or recipients by state, in the order to show them: ``queued``, ``due``, …
        counters: since the start, likewise: ``accepted``, ``delivered``, ``deferred``, ``failed``.
        recent: newest first.
    """

    hostname: str
    version: str
    started_at: float
    now: float
    queue: Mapping[str, int]
    counters: Mapping[str, int]
    recent: tuple[RecentMessage, ...] = ()


StatusReport = Callable[[], Status | Deferred[Status]]
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
    b"Cache-Control": b"no-store",
    b"Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ).encode("ascii"),
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Referrer-Policy": b"no-referrer",
    b"Server": b"twisted-mta",
    b"X-Content-Type-Options": b"nosniff",
}
_HTML = b"text/html; charset=utf-8"
_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_METHODS = (b"GET", b"HEAD")


class _StatusRequest(Request):
    """A request whose body is nobody's business: it is read past, and never stored."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        """Drop it."""


class StatusSite(Site):
    """The factory of the status page.

    Args:
        status: says how things stand.
        hosts: names by which browsers may ask for the page, besides localhost and addresses. A
            page elsewhere could make a name of its own point here, and read what its visitor sees
            (DNS rebinding); it cannot make the browser send one of these names.
        reactor: times connections out.
    """

    noisy = False

    def __init__(
        self,
        status: StatusReport,
        *,
        hosts: Sequence[str] = (),
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            _Pages(status, hosts), requestFactory=_StatusRequest, reactor=reactor
        )

    def log(self, request: http.Request) -> None:
        """Say nothing: who looks is not worth a line a second."""


class _Pages(Resource):
    isLeaf = True
    _log = Logger()

    def __init__(self, status: StatusReport, hosts: Sequence[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._status = status
        self._hosts = tuple(host.lower().removesuffix(".") for host in ("localhost", *hosts))

    def render(self, request: Request) -> bytes | int:
        """Answer a request (called by Twisted)."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        if not self._ours(request):
            # RFC 9110 §15.5.20
            request.setResponseCode(421, b"Misdirected Request")
            return _short(request, "This name does not lead here; ask by address.")
        writers: Mapping[bytes, tuple[bytes, Callable[[Status], bytes | Deferred[bytes]]]] = {
            b"/": (_HTML, _html),
            b"/status.json": (_JSON, _json),
            b"/healthz": (_TEXT, lambda status: b"ok\n"),
        }
        if request.path not in writers:
            request.setResponseCode(404)
            return _short(request, "There is /, /status.json and /healthz.")
        if request.method not in _METHODS:
            request.setHeader(b"Allow", b", ".join(_METHODS))
            request.setResponseCode(405)
            return _short(request, "This page can only be read.")
        content_type, write = writers[request.path]
        left: list[Failure] = []
        request.notifyFinish().addErrback(left.append)

        def failed(failure: Failure) -> bytes:
            self._log.failure("the status page could not be made", failure)
            request.setResponseCode(503)
            return _short(request, "The status cannot be told now; the log says why.")

        def answer(content: bytes) -> None:
            if not left:
                request.setHeader(b"Content-Length", b"%d" % len(content))
                request.write(b"" if request.method == b"HEAD" else content)
                request.finish()

        request.setHeader(b"Content-Type", content_type)
        Deferred.fromCoroutine(self._content(write)).addErrback(failed).addCallback(answer)
        return NOT_DONE_YET

    async def _content(self, write: Callable[[Status], bytes | Deferred[bytes]]) -> bytes:
        status = self._status()
        content = write(await status if isinstance(status, Deferred) else status)
        return await content if isinstance(content, Deferred) else content

    def _ours(self, request: Request) -> bool:
        host = request.getHeader(b"host")
        if host is None:
            return True  # HTTP/1.0; no browser leaves it out
        name = host.decode("latin-1").lower()
        name = name[1:].partition("]")[0] if name[:1] == "[" else name.partition(":")[0]
        try:
            ip_address(name)
        except ValueError:
            return name.removesuffix(".") in self._hosts
        return True  # an address cannot be made to point elsewhere


def _short(request: Request, text: str) -> bytes:
    request.setHeader(b"Content-Type", _TEXT)
    return f"{text}\n".encode("ascii")


def _json(status: Status) -> bytes:
    return json.dumps(asdict(status), indent=2).encode("ascii") + b"\n"


def _html(status: Status) -> Deferred[bytes]:
    page = flattenString(None, _page(status))
    return page.addCallback(lambda content: b"<!DOCTYPE html>\n" + content + b"\n")


def _page(status: Status) -> Tag:
    up = _span(status.now - status.started_at)
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
            ),
            Tag("main")(
                _numbers("Queue", status.queue),
                _numbers("Since the start", status.counters),
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
            tags.div(tags.dt(printable(name)), tags.dd(f"{number:,}"))
            for name, number in numbers.items()
        ),
    )


_COLUMNS = ("Received", "From", "To", "Size", "State", "Last answer", "Id")


def _recent(messages: Sequence[RecentMessage]) -> Tag:
    if not messages:
        return tags.p("None yet.", class_="faint")
    return tags.table(
        tags.thead(tags.tr(tags.th(name, scope="col") for name in _COLUMNS)),
        tags.tbody(tags.tr(_row(message)) for message in messages),
    )


def _row(message: RecentMessage) -> list[Flattenable]:
    reverse_path = "<>" if message.reverse_path is None else message.reverse_path
    state = printable(message.state)
    cells: tuple[Flattenable, ...] = (
        _time(message.received_at),
        printable(reverse_path),
        [tags.div(printable(recipient)) for recipient in message.recipients],
        _size(message.size),
        tags.span(state, class_=state if state in ("delivered", "failed") else ""),
        printable(message.last),
        tags.code(printable(message.id)),
    )
    classes = ("whole", "", "", "whole", "whole", "", "whole")
    return [
        tags.td(tags.div(cell), class_=name, **{"data-label": label})
        for label, name, cell in zip(_COLUMNS, classes, cells, strict=True)
    ]


def _time(moment: float) -> Tag:
    at = datetime.fromtimestamp(moment, UTC)
    return tags.time(f"{at:%Y-%m-%d %H:%M:%S}", datetime=f"{at:%Y-%m-%dT%H:%M:%SZ}")


def _span(seconds: float) -> str:
    """Return a span of time by its two largest units, as people say it."""
    minutes, hours, days = (max(0, int(seconds)) // unit for unit in (60, 3600, 86400))
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{max(0, int(seconds))} s"


def _size(octets: float) -> str:
    for unit in ("octets", "KiB", "MiB"):
        if octets < 1024:
            return f"{octets:.0f} {unit}" if unit == "octets" else f"{octets:.1f} {unit}"
        octets /= 1024
    return f"{octets:.1f} GiB"
