"""The site of the status page. Without a login it can only be read (`access`).

``GET /`` is the page, ``/status.json`` the same for programs. ``/healthz`` is ``200`` while a queue
is open, for programs that restart the MTA; ``/readyz`` while connections may come, for load
balancers; both are ``503`` otherwise. ``/metrics`` and paths below ``/v1/`` are answered by
`admin.api.Admin`; for clients without a login some of them alone, without the contents of messages.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime

from ...agent.expiry import Expiry
from ...interfaces import Clock
from ...mail.printable import printable
from ..channel import Lane
from ..grant import ACT, ANONYMOUS
from ..history import SPANS, History
from ..http import (
    READING,
    Request,
    Responder,
    ResponderSite,
    Response,
    Stream,
    error_response,
    json_response,
    only,
    short,
)
from ..openapi import PATH as DESCRIPTION
from ..report import SuspendedByOperator
from ..sessions_api import PATH as SESSIONS
from ..status import Status
from .access import LOGIN, LOGOUT, Access
from .action_pages import PATH as ACTION_PATH
from .action_pages import ActionPages, small_form
from .markup import Flattenable, Tag, tags
from .page import ICON, LIVE_POLICY, SCRIPT, STYLE_HASH, View, html, table, time_tag
from .queue_pages import QueuePages
from .session_pages import PATH as SESSIONS_PATH
from .session_pages import SessionPages

if TYPE_CHECKING:
    from .captured_pages import CapturedPages

StatusReport = Callable[[], "Status | Deferred[Status]"]
"""Returns the status now."""

_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    # Under no-referrer a browser would send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_HTML = "text/html; charset=utf-8"
_KEPT_AN_HOUR = {"Cache-Control": "max-age=3600"}
# RFC 9110 §7.2: Host = uri-host [ ":" port ], without a user; of names, those that the DNS allows.
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z._-]+))(?::[0-9]{0,5})?", re.ASCII
)
_QUEUE = "/v1/queue"
_PASSED_ON = ("/metrics", "/v1/status", "/v1/metrics", DESCRIPTION, SESSIONS, _QUEUE)
# Monitors ask for these, by any name; they mention no message and no peer.
_BY_ANY_NAME = ("/metrics", "/healthz", "/readyz")
# While other requests wait, a response is reused for so many times as long as it took to make, and
# for so many seconds at most. A request that is alone always gets the present status.
_REUSED = 10.0
_OLDEST = 1.0
_MOST_KEPT = 16  # responses


class StatusSite(ResponderSite):
    """The factory of the status page.

    Args:
        status: returns the status.
        hosts: names by which browsers may ask for the page, besides localhost and addresses. The
            name of a hostile page could be made to lead here, so that the page reads what its
            visitor can (DNS rebinding); it cannot make the browser send one of these names.
        access: decides on clients; None: everybody may read.
        spool: the directory of files for long bodies (`ResponderSite`).
        answer: answers the requests of programs (`admin.api.Admin`).
        captured: the pages of a capture server; the status page is ``/status`` there. None: this is
            none.
        history: what the charts show; None: there are none.
        expiries: returns what expires.
        reactor: times connections out.
    """

    def __init__(
        self,
        status: StatusReport,
        *,
        hosts: Sequence[str] = (),
        access: Access | None = None,
        spool: str = "",
        answer: Responder | None = None,
        captured: CapturedPages | None = None,
        history: History | None = None,
        expiries: Callable[[], Sequence[Expiry]] = tuple,
        reactor: IReactorTime | None = None,
    ) -> None:
        pages = _Pages(status, hosts, access, answer, captured)
        pages.history = history
        pages.expiries = expiries
        super().__init__(
            pages.answer,
            headers=_HEADERS,
            reactor=reactor,
            longest=0 if access is None else access.longest,
            spool=spool,
        )
        pages.use(self.reactor, self.lane)


class _InTurn:
    """Answers one request after the other.

    A request may look through the whole queue, slice by slice, while mail comes in. Connections are
    bounded, but a client may hang up at once, and ask again on another one.

    Args:
        answer: answers each.
    """

    def __init__(self, answer: Responder | None) -> None:
        self._answer = answer
        self._waiting: deque[tuple[Request, Deferred[Response | Stream]]] = deque()
        self._busy = False  # whether a request is being answered
        self._looping = False

    def take(self, request: Request) -> Deferred[Any]:
        """Answer a request after those before it; never, where its client has hung up."""
        done: Deferred[Response | Stream] = Deferred()
        self._waiting.append((request, done))
        self._go_on()
        return done

    def _go_on(self) -> None:
        if self._looping:  # a request that is answered at once does not recur
            return
        self._looping = True
        try:
            while self._waiting and not self._busy:
                request, done = self._waiting.popleft()
                if not request.gone():
                    self._busy = True
                    assert self._answer is not None
                    maybeDeferred(self._answer, request).addBoth(self._answered, done)
        finally:
            self._looping = False

    def _answered(self, result: Any, done: Deferred[Response | Stream]) -> None:
        self._busy = False
        done.callback(result)  # a `Failure` too
        self._go_on()


class _Pages:
    clock: Clock
    lane: Lane
    history: History | None
    expiries: Callable[[], Sequence[Expiry]]

    def __init__(
        self,
        status: StatusReport,
        hosts: Sequence[str],
        access: Access | None,
        answer: Responder | None,
        captured: CapturedPages | None,
    ) -> None:
        self._access = access
        self._captured = captured
        self._status = status
        # By path, query and Accept: until when a response is reused.
        self._kept: dict[tuple[str, str, str], tuple[float, Response]] = {}
        self._hosts = tuple(host.lower().removesuffix(".") for host in ("localhost", *hosts))
        self._answer = answer
        self._in_turn = _InTurn(self._about_queue)
        self._queue_pages: QueuePages | None = None
        self._session_pages: SessionPages | None = None
        self._action_pages: ActionPages | None = None
        self._home = "/" if captured is None else "/status"
        self._pages: Mapping[str, Callable[[Status, Request], Response]] = {
            self._home: self._state,
            "/status.json": lambda status, request: json_response(status.to_json()),
            "/healthz": lambda status, request: _health(status),
            "/readyz": lambda status, request: _readiness(status),
        }
        self._files = {
            "/page.js": Response(
                body=SCRIPT, content_type="text/javascript", headers=_KEPT_AN_HOUR
            ),
            "/icon.svg": Response(body=ICON, content_type="image/svg+xml", headers=_KEPT_AN_HOUR),
            # Browsers ask for it where a page names no icon.
            "/favicon.ico": Response(
                body=ICON, content_type="image/svg+xml", headers=_KEPT_AN_HOUR
            ),
        }

    def use(self, clock: Clock, lane: Lane) -> None:
        """Take what there is once the site is made."""
        self.clock, self.lane = clock, lane
        if self._answer is not None:
            self._queue_pages = QueuePages(self._answer, clock=clock)
            self._session_pages = SessionPages(self._answer)
            self._action_pages = ActionPages(self._answer)

    def _view(self, request: Request) -> View:
        """Return what a page shows besides the status."""
        grant, access = request.grant, self._access
        account: Flattenable = ""
        if grant.csrf:
            account = tags.form(
                tags.span(printable(grant.name)),
                tags.input(type="hidden", name="csrf", value=grant.csrf),
                tags.button("Log out", type="submit"),
                method="post",
                action=LOGOUT,
                class_="account",
            )
        elif access is not None and access.has_logins and not grant.name:
            account = tags.a("Log in", href=LOGIN, class_="account")
        return View(
            home=self._home,
            queue=self._answer is not None,
            account=account,
            acts=grant.may(ACT),
            events=bool(grant.csrf),
            csrf=grant.csrf,
        )

    def _state(self, status: Status, request: Request) -> Response:
        span = SPANS.get(request.parameters.get("span", ""), SPANS["1h"])
        view = evolve(
            self._view(request),
            span=span,
            slots=() if self.history is None else self.history.slots(span, status.now),
            expiries=self.expiries(),
        )
        return Response(
            body=html(
                status,
                view,
                _settings_section(view) if view.acts else "",
                by_operator=_suspended_section(status, view),
            ),
            content_type=_HTML,
            headers={"Content-Security-Policy": LIVE_POLICY},
        )

    def _about_queue(self, request: Request) -> Response | Stream | Deferred[Response]:
        pages, actions = self._queue_pages, self._action_pages
        if pages is not None and pages.serves(request.path):
            return pages.answer(request, self._view(request))
        if self._session_pages is not None and self._session_pages.serves(request.path):
            return self._session_pages.answer(request, self._view(request))
        if actions is not None and request.path == ACTION_PATH:
            return actions.answer(request, self._view(request))
        assert self._answer is not None
        return self._answer(request)

    def answer(self, request: Request) -> Response | Stream | Deferred[Any]:
        """Answer a request."""
        # RFC 9112 §3.2: one Host field, which HTTP/1.0 may leave out; browsers always send it.
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
            # A browser names the page that asks, where it is from another site.
            if not all(map(self._of_ours, request.origins)):
                return short("Pages from elsewhere are not answered.", 403)
        access = self._access
        if access is None or request.path in _BY_ANY_NAME:
            return self._answer_public(evolve(request, public=True, grant=ANONYMOUS))
        if access.serves(request.path):
            return access.answer(request)
        admitted = access.admit(request)
        if isinstance(admitted, Response):
            return admitted
        if admitted.grant.public:
            return self._answer_public(admitted)
        return self._answer_login(admitted)

    def _answer_login(self, request: Request) -> Response | Stream | Deferred[Any]:
        """Answer a request of a client with a login or a token, which has the scope for it."""
        if self._captured is not None and self._captured.serves(request.path):
            return self._captured.answer(request)
        page = self._pages.get(request.path)
        if page is not None:
            if request.method not in READING:
                return only(READING)
            return Deferred.fromCoroutine(self._page(page, request))
        if request.path in self._files and request.method in READING:
            return self._files[request.path]
        pages = self._queue_pages
        if pages is not None and (
            pages.serves(request.path) or request.path in (ACTION_PATH, SESSIONS_PATH)
        ):
            return self._in_turn.take(request)
        if self._answer is None:
            return error_response("there is nothing at this path", 404)
        return self._answer(request)

    def _answer_public(self, request: Request) -> Response | Deferred[Any]:
        """Answer a request of a client without a login, which may read some paths."""
        # The mail of tests may also be deleted, where there are no logins (`Access.admit`).
        if self._captured is not None and self._captured.serves(request.path):
            return self._captured.answer(request)
        if request.path in self._files and request.method in READING:
            return self._files[request.path]
        passed_on: tuple[str, ...] = _PASSED_ON if self._answer is not None else ()
        pages = self._queue_pages
        if pages is not None and (
            pages.serves(request.path)
            or request.path == SESSIONS_PATH
            or request.path.startswith(f"{_QUEUE}/")
        ):
            passed_on += (request.path,)
        if request.path not in self._pages and request.path not in passed_on:
            if self._access is not None and self._access.configured and request.path[:4] == "/v1/":
                return self._access.refusal_of_anonymous(request)
            *most, last = (*self._pages, *passed_on)
            return short(f"There is {', '.join(most)} and {last}.", 404)
        if request.method not in READING:
            return short("This page can only be read.", 405, headers={"Allow": ", ".join(READING)})
        if request.path == _QUEUE or request.path not in (*self._pages, *_PASSED_ON):
            return self._in_turn.take(request)
        return self._reused(request) or Deferred.fromCoroutine(self._made(request))

    def _reused(self, request: Request) -> Response | None:
        """Return a response of just now, if there is one and other requests wait."""
        if not self.lane.crowded:
            return None
        until, answer = self._kept.get(_kept_as(request), (0.0, None))
        now = self.clock.seconds()
        return answer if now < until <= now + _OLDEST else None

    async def _made(self, request: Request) -> Response:
        began = self.clock.seconds()
        if request.path in self._pages:
            answer = await self._page(self._pages[request.path], request)
        else:
            assert self._answer is not None
            made = self._answer(request)
            assert not isinstance(made, Stream)
            answer = await made if isinstance(made, Deferred) else made
        now = self.clock.seconds()
        while len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        lasts = min(_REUSED * (now - began), _OLDEST)
        self._kept[_kept_as(request)] = now + lasts, answer
        return answer

    async def _page(
        self, page: Callable[[Status, Request], Response], request: Request
    ) -> Response:
        status = self._status()
        return page(await status if isinstance(status, Deferred) else status, request)

    def _ours(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if not match:
            return False
        try:
            # The address of another host cannot be made to lead here.
            IPv4Address(match["name"]) if match["name"] else IPv6Address(match["v6"])
        except ValueError:
            return bool(match["name"]) and match["name"].lower().removesuffix(".") in self._hosts
        return True

    def _of_ours(self, origin: str) -> bool:
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and self._ours(host)


_SUSPENDED_COLUMNS = ("Destination", "Since", "Until", "Waiting", "Reason")


def _suspended_section(status: Status, view: View) -> Flattenable:
    """Return the destinations that the operator has suspended, with forms that resume them."""
    suspended = status.suspended_by_operator
    if not suspended:
        return ""

    def row(each: SuspendedByOperator) -> tuple[Flattenable, ...]:
        cells: tuple[Flattenable, ...] = (
            printable(each.destination),
            time_tag(each.since),
            "it is resumed" if each.until is None else time_tag(each.until),
            f"{each.waiting:,}",
            (
                tags.div(printable(each.reason) or "none given"),
                tags.div(f"by {printable(each.by)}", class_="faint") if each.by else "",
            ),
        )
        if not view.acts:
            return cells
        about = {"destination": each.destination}
        return (*cells, small_form(view.csrf, "resume", "Resume", about=about))

    columns = (*_SUSPENDED_COLUMNS, "Act") if view.acts else _SUSPENDED_COLUMNS
    kinds = ("", "whole", "whole", "whole", "")
    return tags.section(
        tags.h2("Suspended by the operator"),
        table(columns, (*kinds, "whole") if view.acts else kinds, map(row, suspended)),
        _more_suspended(status.operator_suspensions.number - len(suspended)),
        id="suspended-by-operator",
    )


def _more_suspended(number: int) -> Flattenable:
    if number <= 0:
        return ""
    return tags.p(
        f"And {number:,} more, with less mail: ",
        tags.code("twisted-mta queue suspended"),
        " lists all.",
        class_="faint",
    )


def _settings_section(view: View) -> Tag:
    """Return the actions that are not about mail."""
    suspend = small_form(
        view.csrf,
        "suspend",
        "Suspend deliveries",
        (
            tags.label("Domain or next hop", tags.input(name="destination", required="")),
            tags.label("Reason", tags.input(name="reason", maxlength="300")),
            tags.label("For how long", tags.input(name="for", placeholder="2 hours")),
        ),
    )
    host = tags.label("Host that has given up TLS", tags.input(name="host", required=""))
    return tags.section(
        tags.h2("Settings"),
        suspend,
        small_form(view.csrf, "reload", "Reload the settings"),
        small_form(view.csrf, "forget", "Forget its TLS", host),
        id="settings",
    )


def _kept_as(request: Request) -> tuple[str, str, str]:
    return request.path, request.query, request.accept


def _health(status: Status) -> Response:
    return short("ok") if status.healthy else short("the queue is closed", 503)


def _readiness(status: Status) -> Response:
    """Say whether connections may come, and in the lines below which other troubles there are.

    Everybody may ask: peers and messages are not named.
    """
    refusing = [each.brief for each in status.troubles if each.stops]
    others = [each.brief for each in status.troubles if not each.stops]
    code = 503 if refusing else 200
    return short("; ".join(refusing) or "ready", code, more=(*others, *status.incomplete))
