"""The page of a capture server: what came, one message, and the same as JSON.

Strangers wrote all that is shown here. Text is escaped; the HTML of a message is a document of its
own, which a Content-Security-Policy puts into a sandbox: no script runs, nothing is loaded, and it
has no origin. Attachments are only saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred

from ...attachment import TooManyParts
from ...inbox_message import InboxMessage
from ...interfaces import Executor
from ..captured_mail import MOST_LISTED, CapturedMail, CapturedMessage
from ..http import READING, Request, Response, error_response, json_response, only, short
from .markup import Flattenable, Tag, tags
from .page import STYLE_HASH, document, table

_HTML = "text/html; charset=utf-8"
_API = "/v1/captured"
_PAGE = re.compile(
    r"/captured/(?P<id>[0-9a-f]{24})(?P<part>/html|/raw|/attachments/(?P<number>[0-9]{1,4}))?",
    re.ASCII,
)
_ONE = re.compile(r"/v1/captured/([0-9a-f]{24})", re.ASCII)
_LONGEST_TEXT = 262_144  # characters of a text on the page
_UNSEEN = "\N{REPLACEMENT CHARACTER}"
_PIECE = 65_536  # octets of a content that are sent at a time
_LONGEST_FIELD = 1000  # characters
_COLUMNS = ("Received", "From", "To", "Subject")
_SANDBOX = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'self'"
)
_FRAMING = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; frame-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_NOTHING = "sandbox; default-src 'none'; frame-ancestors 'none'"


class CapturedPages:
    """Answers requests about the mail of a capture server.

    Args:
        mail: what came.
        run: runs blocking calls in a thread.
    """

    def __init__(self, mail: CapturedMail, run: Executor) -> None:
        self._mail = mail
        self._run = run

    def serves(self, path: str) -> bool:
        """Whether a path is answered here."""
        return path in ("/", _API) or bool(_PAGE.fullmatch(path) or _ONE.fullmatch(path))

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request whose Host and Origin are ours."""
        methods = (*READING, "DELETE") if request.path == _API else READING
        if request.method not in methods:
            return only(methods)
        return self._run(self._answer, request)

    def _answer(self, request: Request) -> Response:
        """Answer a request; in a thread."""
        if request.path == "/":
            return Response(body=_list_page(self._mail.newest()), content_type=_HTML)
        if request.path == _API:
            if request.method == "DELETE":
                return json_response({"deleted": self._mail.clear()})
            recipient = request.parameters.get("recipient", "")
            return json_response({"messages": [*map(_summary, self._mail.newest(recipient))]})
        api = _ONE.fullmatch(request.path)
        page = _PAGE.fullmatch(request.path)
        match = api or page
        captured = self._mail.find(match[1]) if match else None
        if captured is None:
            return error_response("found no such message", 404)
        try:
            if page is None:
                return json_response(_details(captured))
            return self._part(captured, page["part"] or "", page["number"])
        except TooManyParts as error:
            return error_response(f"found a message that cannot be shown: {error}", 422)

    def _part(self, captured: CapturedMessage, part: str, number: str | None) -> Response:
        if part == "/raw":
            raw = captured.message.raw
            return self._streamed(
                (raw[start : start + _PIECE] for start in range(0, len(raw), _PIECE)),
                len(raw),
                headers={"Content-Security-Policy": _NOTHING},
            )
        if part == "/html":
            return Response(
                body=captured.html.encode("utf-8", "replace"),
                content_type=_HTML,
                headers={"Content-Security-Policy": _SANDBOX},
            )
        if number is not None:
            return self._attachment(captured.message, int(number))
        return Response(
            body=_message_page(captured),
            content_type=_HTML,
            headers={"Content-Security-Policy": _FRAMING},
        )

    def _attachment(self, message: InboxMessage, number: int) -> Response:
        found = message.attachments
        if not 0 < number <= len(found):
            return short("found no such attachment", 404)
        each = found[number - 1]
        return self._streamed(
            filter(None, each.chunks()),
            sum(map(len, each.chunks())),
            content_type="application/octet-stream",
            headers={
                "Content-Security-Policy": _NOTHING,
                # RFC 6266 §4.3, RFC 8187 §3.2
                "Content-Disposition": f"attachment; filename*=UTF-8''{_quoted(each.safe_name)}",
            },
        )

    def _streamed(self, chunks: Iterator[bytes], size: int, **rest: Any) -> Response:
        """Return a response whose content is made in a thread, as fast as the client reads."""
        return Response(body=b"", size=size, pieces=lambda: self._run(next, chunks, b""), **rest)


def _quoted(name: str) -> str:
    return quote(name.encode("utf-8", "replace"), safe="")


# JSON.


def _summary(captured: CapturedMessage) -> Mapping[str, Any]:
    message = captured.message
    return {
        "id": captured.id,
        "received_at": captured.received_at,
        "sender": message.sender,
        "to": list(message.to),
        "subject": message.subject,
    }


def _details(captured: CapturedMessage) -> Mapping[str, Any]:
    message, page = captured.message, f"/captured/{captured.id}"
    return {
        **_summary(captured),
        "size": captured.size,
        "text": captured.text,
        "html": captured.html,
        "links": list(captured.links),
        "attachments": [
            {
                "filename": each.filename,
                "content_type": each.content_type,
                "url": f"{page}/attachments/{number}",
            }
            for number, each in enumerate(message.attachments, 1)
        ],
        "raw": f"{page}/raw",
    }


# Pages.


def _list_page(messages: Sequence[CapturedMessage]) -> bytes:
    rows = [
        (
            _time(each.received_at),
            _shown(each.message.sender or "<>"),
            [tags.div(_shown(to)) for to in each.message.to],
            tags.a(_shown(each.message.subject) or "(no subject)", href=f"/captured/{each.id}"),
        )
        for each in messages
    ]
    more: Flattenable = ""
    if len(messages) == MOST_LISTED:
        more = tags.p(f"The newest {MOST_LISTED}.", class_="faint")
    body: Flattenable = table(_COLUMNS, ("whole", "", "", ""), rows)
    return document(
        "Captured mail",
        tags.header(tags.h1("Captured mail")),
        tags.main(body if rows else tags.p("None yet.", class_="faint"), more),
        tags.footer(tags.a("The same as JSON", href=_API), ", ", tags.a("Status", href="/status")),
    )


def _message_page(captured: CapturedMessage) -> bytes:
    message, page = captured.message, f"/captured/{captured.id}"
    text, html = captured.text, captured.html
    fields = [
        ("Received", _time(captured.received_at)),
        ("Sender", _shown(message.sender or "<>")),
        ("Recipient", _shown(", ".join(message.to))),
        *((name, _shown(message.header(name) or "")) for name in ("From", "To", "Subject")),
    ]
    attachments = [
        tags.li(
            tags.a(_shown(each.filename or each.safe_name), href=f"{page}/attachments/{number}"),
            f" {_shown(each.content_type)}",
        )
        for number, each in enumerate(message.attachments, 1)
    ]
    return document(
        "Captured mail",
        tags.header(tags.h1(_shown(message.subject) or "(no subject)")),
        tags.main(
            table(("Field", "Value"), ("whole", ""), fields),
            _section("Text", tags.pre(_lines(text)) if text else ""),
            _section("HTML", tags.iframe(src=f"{page}/html", sandbox="") if html else ""),
            _section("Attachments", tags.ul(attachments) if attachments else ""),
        ),
        tags.footer(
            tags.a("All messages", href="/"),
            ", ",
            tags.a("Raw", href=f"{page}/raw"),
            ", ",
            tags.a("The same as JSON", href=f"{_API}/{captured.id}"),
        ),
    )


def _section(title: str, content: Flattenable) -> Flattenable:
    return tags.section(tags.h2(title), content) if content else ""


def _shown(text: str) -> str:
    """Return a stranger's text in one line; what cannot be seen, or turns text, is U+FFFD."""
    return "".join(each if each.isprintable() else _UNSEEN for each in text[:_LONGEST_FIELD])


def _lines(text: str) -> str:
    return "".join(
        each if each.isprintable() or each in "\n\t" else _UNSEEN for each in text[:_LONGEST_TEXT]
    )


def _time(moment: float) -> Tag:
    at = datetime.fromtimestamp(moment, UTC)
    return tags.time(f"{at:%Y-%m-%d %H:%M:%S}", datetime=f"{at:%Y-%m-%dT%H:%M:%SZ}")
