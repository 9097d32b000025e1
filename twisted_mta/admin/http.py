"""HTTP as the page and the control socket speak it: requests, and functions that respond.

A `Responder` decides on the response to a request; only this file and `channel` import
``twisted.web``. Bodies of requests are read past, except where a length is allowed.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, Any
from urllib.parse import parse_qsl

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocolNegotiationFactory,
    IPushProducer,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from zope.interface import implementer

from ..mail.printable import printable
from ..system.accepting import share
from ..system.ownership import peer
from .channel import Bounds, Channel, Connections, Lane
from .grant import OPERATOR, Grant

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
LINES = "application/x-ndjson"
"""A line of JSON for each thing."""

EVENTS = "text/event-stream"
"""Server-sent events (HTML, "Server-sent events")."""

IN_MEMORY = 1 << 20
"""Octets of a request's body that are kept in memory; a longer one goes to a file."""

# Those that Twisted does not know.
_REASONS = {422: b"Unprocessable Content", 429: b"Too Many Requests"}

_READABLE = 65_536  # octets of JSON
_MOST_FILES = 4  # bodies that are kept in files at a time, for each site
_RENEWED = 32_768  # octets of such a body that must come in the time that a request has

READING = ("GET", "HEAD")
"""The methods that change nothing (RFC 9110 §9.2.1), as far as they mean something here."""


@frozen(kw_only=True)
class Request:
    """A request.

    Attributes:
        method: in upper case: ``GET``.
        path: without the query; percent-encoded.
        hosts: each Host field; the host of the target instead, where that names one.
        origins: each Origin field.
        accept: the Accept field.
        version: of HTTP: ``HTTP/1.1``.
        query: the octets behind the question mark, percent-encoded.
        body: the content, where contents are taken, and it is short (`IN_MEMORY`).
        file: a longer content, from its beginning; None: ``body`` is all.
        fields: all header fields, by lower-case name; they may hold secrets.
        client: the address of the client; empty for a UNIX socket.
        secure: whether it came under TLS.
        user: the client's user, where the kernel tells, or its login: ``uid 0``, ``ann (login)``.
        public: whether clients other than the operator can send it.
        grant: what the client may do.
        gone: whether the client has hung up.
    """

    method: str
    path: str
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    accept: str = ""
    version: str = "HTTP/1.1"
    query: str = ""
    body: bytes = field(default=b"", repr=False)
    file: IO[bytes] | None = field(default=None, eq=False, repr=False)
    fields: Mapping[str, tuple[str, ...]] = field(factory=dict, repr=False)
    client: str = ""
    secure: bool = False
    user: str = ""
    public: bool = False
    grant: Grant = OPERATOR
    gone: Callable[[], bool] = field(default=lambda: False, eq=False, repr=False)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters in the query; of several with one name, the last."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def only_field(self, name: str) -> str:
        """Return the value of a header field, by its lower-case name; empty unless there is one."""
        values = self.fields.get(name, ())
        return values[0] if len(values) == 1 else ""

    @property
    def content(self) -> IO[bytes]:
        """The content, however long, from its beginning."""
        return BytesIO(self.body) if self.file is None else self.file


Pieces = Callable[[], "Deferred[bytes]"]
"""Returns the next piece of a content, empty behind the last; called for one at a time."""


@frozen(kw_only=True)
class Response:
    """A response.

    Attributes:
        body: its content; the response to a HEAD has only its length.
        content_type: of the body.
        code: the status code.
        reason: its phrase; None: the usual one.
        headers: other header fields, by name.
        pieces: returns the content instead of ``body``, where that is too long for the memory.
        size: octets of all pieces together.
    """

    body: bytes
    content_type: str = TEXT
    code: int = 200
    reason: bytes | None = None
    headers: dict[str, str] = field(factory=dict)
    pieces: Pieces | None = None
    size: int = 0


@implementer(IPushProducer)
class Outlet:
    """The connection that a `Stream` is written to.

    Attributes:
        resumed: called when it takes octets again.
    """

    def __init__(self, request: http.Request) -> None:
        self.resumed: Callable[[], object] = lambda: None
        self._request = request
        self._paused = False
        self._ended = False

    @property
    def ready(self) -> bool:
        """Whether it takes octets now."""
        return not (self._paused or self._ended)

    def write(self, octets: bytes) -> None:
        """Send octets, unless the client has hung up."""
        if not self._ended:
            self._request.write(octets)

    def end(self) -> None:
        """End the response."""
        if not self._ended:
            self._ended = True
            self._request.unregisterProducer()
            self._request.finish()

    def left(self) -> None:
        """Note that the client has hung up."""
        self._ended = True

    def pauseProducing(self) -> None:
        """Take no octets for now (called by Twisted)."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Take octets again (called by Twisted)."""
        self._paused = False
        self.resumed()

    def stopProducing(self) -> None:
        """Note that the connection is lost (called by Twisted)."""
        self._ended = True


@frozen
class Stream:
    """A response that goes on until the client hangs up.

    Attributes:
        begin: takes the connection, and returns a function that is called when the client has hung
            up.
        content_type: of the body.
    """

    begin: Callable[[Outlet], Callable[[], object]]
    content_type: str = LINES


Responder = Callable[[Request], "Response | Stream | Deferred[Response]"]
"""Answers a request; an error is logged, and becomes a 503."""


def short(text: str, code: int = 200, *, more: Iterable[str] = (), **rest: Any) -> Response:
    """Return a line of text, and more lines below it."""
    lines = "".join(f"{printable(line)}\n" for line in (text, *more))
    return Response(body=lines.encode("ascii"), code=code, **rest)


def json_response(value: Any, code: int = 200, **rest: Any) -> Response:
    """Return JSON in ASCII; indented for people, unless it is long."""
    body = json.dumps(value)
    if len(body) <= _READABLE:
        body = json.dumps(value, indent=2)  # takes ten times as long
    return Response(body=body.encode("ascii") + b"\n", content_type=JSON, code=code, **rest)


def only(methods: Iterable[str]) -> Response:
    """Return the refusal of a method that is none of these."""
    allowed = ", ".join(methods)
    return error_response(f"expected the method {allowed}", 405, headers={"Allow": allowed})


def error_response(text: str, code: int, **rest: Any) -> Response:
    """Return ``{"error": text}``."""
    return json_response({"error": printable(text)}, code, **rest)


@implementer(IProtocolNegotiationFactory)
class ResponderSite(http.HTTPFactory):
    """The factory of HTTP connections.

    ``twisted.web.server`` has the same with resources and sessions, and takes long to import.

    Args:
        answer: answers requests.
        headers: of every response, by name.
        reactor: times connections out.
        longest: octets of a request's body, or a function that returns them for a request without
            its body; 0: bodies are read past.
        spool: the directory of files without a name, for bodies that are too long for the memory;
            needed where there are such.
        bounds: for the connections.

    Attributes:
        connections: the open ones.
        lane: the line of their requests.
    """

    noisy = False
    protocol = Channel  # type: ignore[assignment]  # HTTP/1.1 alone

    def __init__(
        self,
        answer: Responder,
        *,
        headers: dict[str, str] | None = None,
        reactor: IReactorTime | None = None,
        longest: int | Callable[[Request], int] = 0,
        spool: str = "",
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(reactor=reactor)
        self.answers = _Answers(answer, headers or {})
        self.requestFactory = partial(_BoundedRequest, longest, spool)
        self.files = 0  # bodies that are kept in files now
        bounds = bounds or Bounds()
        # The rest of the descriptors is for mail.
        most = share(bounds.connections)
        per_peer = max(1, bounds.per_peer * most // bounds.connections)
        self.connections = Connections(evolve(bounds, connections=most, per_peer=per_peer))
        self.lane = self.answers.lane = Lane(self.reactor)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a connection (called by Twisted)."""
        channel: Any = super().buildProtocol(addr)
        channel.requestFactory = self.requestFactory
        channel.site = self
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols under TLS: the bounds are those of HTTP/1.1."""
        return [b"http/1.1"]

    def log(self, request: http.Request) -> None:
        """Log nothing: monitors ask every second."""

    def _updateLogDateTime(self) -> None:
        """Keep no date for the log: Twisted would wake the process for it every second."""


class _BoundedRequest(http.Request):
    """A request whose body is kept up to a length; the rest is dropped.

    Attributes:
        body: the octets that were kept in memory.
        file: a body that is too long for that; None: there is none.
        too_long: whether octets were dropped.
        unstored: why the body could not be written to the file; empty: it was.
    """

    def __init__(
        self,
        longest: int | Callable[[Request], int],
        spool: str,
        *arguments: Any,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._allowed = longest
        self._spool = spool
        self._longest = 0
        self._size = 0
        self._dropped = 0
        self._unrenewed = 0
        self.body = bytearray()
        self.file: IO[bytes] | None = None
        self.too_long = False
        self.unstored = ""

    def allow(self) -> int:
        """Decide how many octets of the body are kept, when the header is there; return that."""
        channel: Any = self.channel
        if callable(self._allowed):
            head = _request(self, channel._command, channel._path, channel._version)
            self._longest = self._allowed(head)
        else:
            self._longest = self._allowed
        return self._longest

    def process(self) -> None:
        """Answer the request, which is complete (called by Twisted)."""
        if self.file is not None and not self.unstored:
            try:
                self.file.seek(0)  # writes the last octets
            except OSError as error:
                self._cannot_store(error)
        channel: Any = self.channel
        channel.site.answers.answer(self)

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        """Keep octets of the body, or drop them."""
        if self._size + len(data) <= self._longest and not self.unstored:
            self._size += len(data)
            self._keep(data)
            return
        self.too_long = bool(self._longest) and not self.unstored
        self._dropped += len(data)
        channel: Any = self.channel
        if self._dropped > channel.site.connections.bounds.body:
            channel.too_long()

    def _keep(self, data: bytes) -> None:
        if self._size <= IN_MEMORY:
            self.body += data
            return
        channel: Any = self.channel
        try:
            if self.file is None:
                self._open(channel.site)
            if self.file is not None:
                self.file.write(data)
        except OSError as error:
            self._cannot_store(error)
        self._unrenewed += len(data)
        if self._unrenewed >= _RENEWED:
            self._unrenewed = 0
            channel.renew()

    def _cannot_store(self, error: OSError) -> None:
        self.unstored = f"the body cannot be stored: {error.strerror}"

    def _open(self, site: Any) -> None:
        if site.files >= _MOST_FILES:
            self.unstored = "too many long requests at a time; try again"
            return
        self.file = file = TemporaryFile(dir=self._spool)  # noqa: SIM115 - until it has ended
        site.files += 1

        def ended(_: object) -> None:
            site.files -= 1
            # A client that has hung up hears of no message: it is not taken. Octets that could not
            # be written cannot be written now either; the client has been told.
            with suppress(OSError):
                file.close()

        self.notifyFinish().addBoth(ended)
        file.write(self.body)
        self.body.clear()


@implementer(IPushProducer)
class _Stream:
    """Writes a content piece by piece, as fast as the client reads."""

    def __init__(self, request: http.Request, pieces: Pieces, failed: Callable[[Failure], object]):
        self._request = request
        self._pieces = pieces
        self._failed = failed
        self._paused = False
        self._asking = False
        self._ended = False

    def start(self) -> None:
        """Begin to write."""
        self._request.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Write no more for now (called by Twisted)."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Write again (called by Twisted)."""
        self._paused = False
        if not self._asking and not self._ended:
            self._asking = True
            self._pieces().addCallbacks(self._came, self._broken)

    def stopProducing(self) -> None:
        """End: the client has hung up (called by Twisted)."""
        self._ended = True

    def _came(self, piece: bytes) -> None:
        self._asking = False
        if self._ended:
            return
        if not piece:
            self._ended = True
            self._request.unregisterProducer()
            self._request.finish()
            return
        self._request.write(piece)
        if not self._paused:
            self.resumeProducing()

    def _broken(self, failure: Failure) -> None:
        """Abort the connection: a client must not take this for the end of the content."""
        self._failed(failure)
        if not self._ended:
            self._ended = True
            channel: Any = self._request.channel
            channel.abortConnection()


class _Answers:
    """Answers requests that are complete."""

    _log = Logger()

    lane: Lane

    def __init__(self, answer: Responder, headers: dict[str, str]) -> None:
        self._answer = answer
        self._headers = {"Cache-Control": "no-store", "Server": "twisted-mta", **headers}

    def answer(self, request: Any) -> None:
        """Answer a request when it is its turn."""
        request.setHeader("Date", http.datetimeToString())
        left: list[Failure] = []
        request.notifyFinish().addErrback(left.append)

        def send(answer: Response | Stream) -> None:
            if left:
                return
            if isinstance(answer, Stream):
                self._stream(request, answer)
                return
            request.setResponseCode(answer.code, answer.reason or _REASONS.get(answer.code))
            for name, value in {**self._headers, **answer.headers}.items():
                request.setHeader(name, value)
            request.setHeader("Content-Type", answer.content_type)
            pieces = answer.pieces
            size = len(answer.body) if pieces is None else answer.size
            request.setHeader("Content-Length", str(size))
            if pieces is not None and request.method != b"HEAD":
                channel: Any = request.channel
                channel.streams = True
                _Stream(request, pieces, self._failed).start()
                return
            request.write(b"" if request.method == b"HEAD" else answer.body)
            request.finish()

        def ask() -> None:
            if not left:
                uri: Any = request.uri
                made = _request(request, request.method, uri, request.clientproto)
                received = evolve(made, gone=lambda: bool(left))
                answered = Deferred.fromCoroutine(self._answered(received))
                answered.addErrback(self._failed).addCallback(send)

        if request.uri == b"*":  # RFC 9110 §9.3.7: a client asks whether there is a server at all
            send(Response(body=b"") if request.method == b"OPTIONS" else only(("OPTIONS",)))
        elif request.too_long:
            send(error_response("the request is too long", 413))
        elif request.unstored:
            send(error_response(request.unstored, 503, headers={"Retry-After": "5"}))
        else:
            self.lane.enter(ask)

    def _stream(self, request: http.Request, stream: Stream) -> None:
        for name, value in self._headers.items():
            request.setHeader(name, value)
        request.setHeader("Content-Type", stream.content_type)
        if request.method == b"HEAD":
            request.finish()
            return
        outlet = Outlet(request)
        channel: Any = request.channel
        channel.streams = True
        request.registerProducer(outlet, True)
        end = stream.begin(outlet)

        def gone(_: object) -> None:
            outlet.left()
            end()

        request.notifyFinish().addBoth(gone)

    async def _answered(self, request: Request) -> Response | Stream:
        answer = self._answer(request)
        return await answer if isinstance(answer, Deferred) else answer

    def _failed(self, failure: Failure) -> Response:
        self._log.failure("a request could not be answered", failure)
        return short("The request could not be answered; the log says why.", 503)


# RFC 9112 §3.2.2: the form of a target for a proxy; a server takes it too.
_ABSOLUTE = re.compile(r"https?://([^/]*)(.*)", re.DOTALL | re.IGNORECASE)


def _request(request: Any, method: bytes, target: bytes, version: bytes) -> Request:
    uri, _, query = target.decode("latin-1").partition("?")
    fields: dict[str, tuple[str, ...]] = {
        name.decode("latin-1").lower(): tuple(each.decode("latin-1") for each in values)
        for name, values in request.requestHeaders.getAllRawHeaders()
    }
    hosts = fields.get("host", ())
    absolute = _ABSOLUTE.fullmatch(uri)
    if absolute:
        uri = absolute[2] or "/"
        # RFC 9112 §3.2.2: the host of the target counts; the field has to be there all the same.
        hosts = tuple(absolute[1] for _ in hosts)
    return Request(
        method=method.decode("latin-1"),
        path=uri,
        hosts=hosts,
        origins=fields.get("origin", ()),
        accept=(fields.get("accept") or ("",))[-1],
        version=version.decode("latin-1"),
        query=query,
        body=bytes(request.body),
        file=request.file,
        fields=fields,
        client=getattr(request.getClientAddress(), "host", ""),
        secure=bool(request.isSecure()),
        user=_user(request),
    )


def _user(request: http.Request) -> str:
    """Return the user at the other end of a UNIX socket, where the kernel tells; else nothing."""
    connected: Any = getattr(request.channel.transport, "socket", None)
    if getattr(connected, "family", None) != socket.AF_UNIX:
        return ""
    try:
        client = peer(connected)
    except OSError:
        return ""
    return "" if client is None else f"uid {client.user}"
