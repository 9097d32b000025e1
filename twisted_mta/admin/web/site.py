"""The status page: what waits, what came and what became of it. It only shows, and changes nothing.

``GET /`` is for people, ``/status.json`` the same for programs. ``/healthz`` is ``200`` while the
queue answers, for those who would start the process again; ``/readyz`` while connections may come,
for those who send them; both are ``503`` otherwise. ``/metrics`` and ``/v1/`` are answered by
`admin.api.Admin`: only what reads is let through, and of the messages in the queue no content.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from ...interfaces import Clock
from ..channel import Lane
from ..http import (
    READING,
    Request,
    Responder,
    ResponderSite,
    Response,
    Stream,
    json_response,
    short,
)
from ..status import Status
from .page import STYLE_HASH, html

StatusReport = Callable[[], "Status | Deferred[Status]"]
"""Says how things stand now."""

_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none';"
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
            "/": lambda status: Response(body=html(status), content_type=_HTML),
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
