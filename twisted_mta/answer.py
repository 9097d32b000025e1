"""HTTP as the page and the control socket have it: a question, and the answer to it.

What is answered is decided by functions of `Question` to `Answer`; here alone is
``twisted.web``. Bodies of requests are read past and never kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from .smtp.reply import printable

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

READING = ("GET", "HEAD")
"""The methods that change nothing (RFC 9110 §9.2.1), as far as they mean something here."""


@frozen(kw_only=True)
class Question:
    """A request.

    Attributes:
        method: upper-case as it is sent: ``GET``.
        path: without the query.
        hosts: each Host field that came.
        accept: the Accept field.
        version: of HTTP: ``HTTP/1.1``.
    """

    method: str
    path: str
    hosts: tuple[str, ...] = ()
    accept: str = ""
    version: str = "HTTP/1.1"


@frozen(kw_only=True)
class Answer:
    """A response.

    Attributes:
        body: its content; a HEAD gets its length alone.
        content_type: of the body.
        code: the status code.
        reason: its phrase, None for the usual one.
        headers: what else is said, by name.
    """

    body: bytes
    content_type: str = TEXT
    code: int = 200
    reason: bytes | None = None
    headers: dict[str, str] = field(factory=dict)


Answerer = Callable[[Question], "Answer | Deferred[Answer]"]
"""Answers what is asked; what it raises is logged, and is a 503."""


def short(text: str, code: int = 200, **rest: Any) -> Answer:
    """Return one line for people."""
    return Answer(body=f"{printable(text)}\n".encode("ascii"), code=code, **rest)


def json_answer(value: Any, code: int = 200, **rest: Any) -> Answer:
    """Return JSON, all of it in ASCII."""
    body = json.dumps(value, indent=2).encode("ascii") + b"\n"
    return Answer(body=body, content_type=JSON, code=code, **rest)


def error_answer(text: str, code: int, **rest: Any) -> Answer:
    """Return ``{"error": text}``."""
    return json_answer({"error": printable(text)}, code, **rest)


class AnswerSite(Site):
    """The factory of connections that are answered.

    Args:
        answer: see `Answerer`.
        headers: what every response says.
        reactor: times connections out.
    """

    noisy = False

    def __init__(
        self,
        answer: Answerer,
        *,
        headers: dict[str, str] | None = None,
        reactor: IReactorTime | None = None,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            _Answers(answer, headers or {}), requestFactory=_BodilessRequest, reactor=reactor
        )

    def log(self, request: http.Request) -> None:
        """Say nothing: who looks is not worth a line a second."""


class _BodilessRequest(Request):
    """A request whose body is nobody's business: it is read past, and never stored."""

    def gotLength(self, length: int | None) -> None:
        super().gotLength(0)  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        """Drop it."""


class _Answers(Resource):
    isLeaf = True
    _log = Logger()

    def __init__(self, answer: Answerer, headers: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answer = answer
        self._headers = {"Cache-Control": "no-store", "Server": "twisted-mta", **headers}

    def render(self, request: Request) -> int:
        """Answer a request (called by Twisted)."""
        left: list[Failure] = []
        request.notifyFinish().addErrback(left.append)

        def send(answer: Answer) -> None:
            if left:
                return
            request.setResponseCode(answer.code, answer.reason)
            for name, value in {**self._headers, **answer.headers}.items():
                request.setHeader(name, value)
            request.setHeader("Content-Type", answer.content_type)
            request.setHeader("Content-Length", str(len(answer.body)))
            request.write(b"" if request.method == b"HEAD" else answer.body)
            request.finish()

        asked = Deferred.fromCoroutine(self._answered(_question(request)))
        asked.addErrback(self._failed).addCallback(send)
        return NOT_DONE_YET

    async def _answered(self, question: Question) -> Answer:
        answer = self._answer(question)
        return await answer if isinstance(answer, Deferred) else answer

    def _failed(self, failure: Failure) -> Answer:
        self._log.failure("a request could not be answered", failure)
        return short("The status cannot be told now; the log says why.", 503)


def _question(request: Request) -> Question:
    hosts = request.requestHeaders.getRawHeaders(b"host") or []
    return Question(
        method=request.method.decode("latin-1"),
        path=request.path.decode("latin-1"),
        hosts=tuple(host.decode("latin-1") for host in hosts),
        accept=(request.getHeader(b"accept") or b"").decode("latin-1"),
        version=request.clientproto.decode("latin-1"),
    )
