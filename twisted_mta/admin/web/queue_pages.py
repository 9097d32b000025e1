"""The pages of the queue: a list that can be searched, and one message.

    GET /queue           messages, the oldest first; the query is that of ``/v1/queue``
    GET /queue/<id>      one message: envelope, recipients, attempts, explanation; and, for clients
                         that may see contents, the transcripts of its sessions and its header

The pages are clients of the API (`queue_api`, `api`), which decides what a client may see. All that
is shown was written by strangers, and is made printable and escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, TimeoutError

from ...interfaces import Clock
from ...mail.printable import printable
from ...queue.operator.selection import STATES
from ..explanation_text import lines as explanation_lines
from ..http import READING, Request, Responder, Response, only
from ..status import short_duration
from .action_pages import action_form, small_form
from .markup import Flattenable, Tag, breakable, tags
from .page import (
    LIVE_POLICY,
    View,
    framed,
    quoted,
    size_text,
    state_tag,
    table,
    time_tag,
)

PATH = "/queue"

_API = "/v1/queue"
_EXPLAIN = "/v1/explain"
_PATIENCE = 3.0  # seconds for an explanation: it may ask the DNS
_HTML = "text/html; charset=utf-8"
_MESSAGES = 50  # of one page
_MOST_SHOWN = 20  # recipients of each message in the list
_MOST_RECIPIENTS = 200  # on the page of a message
_MOST_ATTEMPTS = 200
_AGES = {"": "any age", "3600": "1 hour", "86400": "1 day", "432000": "5 days"}
_FIELDS = ("to", "from", "domain", "state", "older")


class QueuePages:
    """Answers requests for the pages of the queue.

    Args:
        ask: answers requests for the API.
        clock: for time-outs.
    """

    def __init__(self, ask: Responder, *, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock

    def serves(self, path: str) -> bool:
        """Whether a path is answered here."""
        return path == PATH or path.startswith(f"{PATH}/")

    def answer(self, request: Request, view: View) -> Response | Deferred[Response]:
        """Answer a request of a client that may read."""
        if request.method not in READING:
            return only(READING)
        id = request.path.removeprefix(PATH).removeprefix("/")
        made = self._message(request, view, id) if id else self._list(request, view)
        return Deferred.fromCoroutine(made)

    async def _get(self, request: Request, path: str, query: str = "") -> tuple[int, Any]:
        """Ask the API; return the status code and the answer."""
        asked = evolve(request, method="GET", path=path, query=query)
        made: Any = self._ask(asked)
        answer = await made if isinstance(made, Deferred) else made
        assert isinstance(answer, Response)
        return answer.code, json.loads(answer.body)

    async def _list(self, request: Request, view: View) -> Response:
        given = {
            name: value.strip()
            for name, value in parse_qsl(request.query, max_num_fields=100)
            if name in (*_FIELDS, "after") and value.strip()
        }
        code, answer = await self._get(request, _API, urlencode({**given, "limit": str(_MESSAGES)}))
        if code != 200:
            found: Flattenable = tags.p(
                printable(str(answer.get("error", ""))), class_="failed", role="alert"
            )
        else:
            found = _found(answer, given)
        body = framed(
            "Queue - mail",
            view,
            tags.section(tags.h1("Queue"), _search(given), id="search"),
            _actions(view, given) if code == 200 else "",
            tags.section(found, id="found", **{"aria-label": "Messages"}),
            current=PATH,
        )
        return _page(body, code)

    async def _message(self, request: Request, view: View, id: str) -> Response:
        code, answer = 404, dict[str, Any](error=f"there is {PATH} and {PATH}/ID")
        if "/" not in id:
            code, answer = await self._get(request, f"{_API}/{id}")
        if code != 200:
            text = printable(str(answer.get("error", "")))
            gone = tags.section(
                tags.h1("No such message"),
                tags.p(text, role="alert"),
                tags.p("It was delivered, returned or removed; the log says which."),
                id="gone",
            )
            return _page(framed("No such message - mail", view, gone, current=""), code)
        message = answer["message"]
        title = f"Message {printable(str(message['id']))}"
        body = framed(
            f"{title} - mail",
            view,
            tags.section(tags.h1(title), _facts(message), id="facts"),
            _actions(view, {"id": str(message["id"])}),
            _recipients(message),
            await self._explanation(request, str(message["id"])),
            _attempts(message),
            *_transcripts(message),
            _header(message),
            current="",
        )
        return _page(body, 200)

    async def _explanation(self, request: Request, id: str) -> Flattenable:
        asked = Deferred.fromCoroutine(self._get(request, f"{_EXPLAIN}/{quoted(id)}"))
        asked.addTimeout(_PATIENCE, self._clock)
        try:
            code, facts = await asked
        except (TimeoutError, CancelledError):
            shown: Flattenable = tags.p(
                f"It takes longer than {_PATIENCE:.0f} s: see twisted-mta explain {printable(id)}"
            )
        else:
            if code != 200:
                return ""
            text = "\n".join(explanation_lines({**facts, "troubles": (), "unready": ""}))
            shown = tags.pre(text, tabindex="0", **{"aria-label": "Explanation", "role": "region"})
        return tags.section(tags.h2("Why it is still here"), shown, id="explanation")


def _page(body: bytes, code: int) -> Response:
    return Response(
        body=body,
        content_type=_HTML,
        code=code,
        headers={"Content-Security-Policy": LIVE_POLICY},
    )


def _actions(view: View, given: Mapping[str, str]) -> Flattenable:
    if not view.acts:
        return ""
    about = {name: value for name, value in given.items() if name != "after"}
    meant = "this message" if "id" in about else "all that match" if about else "all mail"
    domain = about.get("domain", "")
    suspend: Flattenable = ""
    if domain and not domain.startswith("."):
        name = f"Suspend deliveries to {printable(domain)}"
        suspend = small_form(view.csrf, "suspend", name, about={"destination": domain})
    return tags.section(
        tags.h2(f"Do with {meant}"), action_form(view.csrf, about), suspend, id="actions"
    )


# The list.


def _search(given: Mapping[str, str]) -> Tag:
    def box(name: str, title: str, example: str) -> Tag:
        return tags.label(
            title,
            tags.input(
                name=name,
                value=given.get(name, ""),
                placeholder=example,
                autocomplete="off",
                spellcheck="false",
            ),
        )

    def choice(name: str, title: str, options: Mapping[str, str]) -> Tag:
        return tags.label(
            title,
            tags.select(
                *(
                    tags.option(
                        text,
                        value=value,
                        **({"selected": ""} if value == given.get(name, "") else {}),
                    )
                    for value, text in options.items()
                ),
                name=name,
            ),
        )

    return tags.form(
        box("to", "To", "bob@example.net or *@*"),
        box("from", "From", "<> for notices"),
        box("domain", "Domain", "example.net"),
        choice("state", "State", {"": "any state", **{each: each for each in STATES}}),
        choice("older", "Older than", _AGES),
        tags.button("Search", type="submit"),
        tags.a("All", href=PATH) if given else "",
        method="get",
        action=PATH,
        role="search",
    )


_LIST_COLUMNS = ("Id", "Received", "From", "To", "State", "Next attempt", "Last reply")


def _found(answer: Mapping[str, Any], given: Mapping[str, str]) -> Flattenable:
    rows = [row for message in answer["messages"] for row in _listed(message)]
    following: Flattenable = ""
    if answer["next"] is not None:
        query = urlencode({**given, "after": answer["next"]})
        following = tags.a("Next page", href=f"{PATH}?{query}", rel="next")
    first: Flattenable = ""
    if "after" in given:
        query = urlencode({name: value for name, value in given.items() if name != "after"})
        first = tags.a("First page", href=f"{PATH}?{query}" if query else PATH)
    if not rows:
        nothing = "No message matches." if given else "The queue is empty."
        if answer["next"] is not None:
            nothing = "No message in this part of the queue; the next page continues."
    return (
        [
            tags.p(f"A part is missing: {printable(str(each['why']))}", class_="failed")
            for each in answer["missing"]
        ],
        table(_LIST_COLUMNS, ("whole", "whole", "", "", "whole", "whole", ""), rows)
        if rows
        else tags.p(nothing, class_="faint"),
        tags.nav(first, " ", following, **{"aria-label": "Pages of the list"})
        if first or following
        else "",
    )


def _listed(message: Mapping[str, Any]) -> Iterator[Sequence[Flattenable]]:
    id = str(message["id"])
    recipients = message["recipients"]
    for place, each in enumerate(recipients[:_MOST_SHOWN]):
        to = breakable(printable(str(each["address"])))
        if place == _MOST_SHOWN - 1 and len(recipients) > _MOST_SHOWN:
            more = len(recipients) - _MOST_SHOWN
            to = (tags.div(to), tags.div(f"and {more:,} more", class_="faint"))
        yield (
            tags.a(tags.code(printable(id)), href=f"{PATH}/{quoted(id)}"),
            time_tag(message["received_at"]),
            breakable(_sender(message)),
            to,
            _state(each),
            _next(each),
            _last(each),
        )


def _sender(message: Mapping[str, Any]) -> str:
    reverse_path = message["reverse_path"]
    return "<>" if reverse_path is None else printable(str(reverse_path))


def _state(recipient: Mapping[str, Any]) -> Flattenable:
    state: Flattenable = state_tag(printable(str(recipient["state"])))
    if recipient["in_delivery"]:
        return (state, ", in delivery")
    if recipient["elsewhere"]:
        return (state, ", leased by another machine")
    if recipient["suspended"]:
        return (state, ", suspended")  # the page of the message says by whom
    return (state, ", next in line") if recipient["waiting"] else state


def _next(recipient: Mapping[str, Any]) -> Flattenable:
    at, suspended = recipient["next_attempt"], recipient["suspended"]
    if at is not None and suspended and not recipient["in_delivery"]:
        if suspended["until"] is None:
            return "when it is resumed"
        at = max(at, suspended["until"])
    return "" if at is None else time_tag(at)


def _last(recipient: Mapping[str, Any]) -> str:
    last = recipient["last"]
    if last is None:
        return ""
    remote = f"{last['remote']}: " if last["remote"] else ""
    return printable(f"{remote}{last['reply']}")


# One message.


def _facts(message: Mapping[str, Any]) -> Tag:
    life = short_duration(message["expires_at"] - message["received_at"])
    facts: list[tuple[str, Flattenable]] = [
        ("From", _sender(message)),
        ("Received", (time_tag(message["received_at"]), " UTC")),
        ("Returned at the latest", (time_tag(message["expires_at"]), f" UTC, after {life}")),
        ("Size", size_text(message["size"])),
    ]
    if message["parameters"]:
        facts.append(("Parameters of MAIL", _parameters(message["parameters"])))
    if message["quarantine"]:
        facts.append(("Quarantined", printable(str(message["quarantine"]))))
    assessment = message.get("assessment") or {}
    for name, title in (("quarantine", "Junk"), ("hold", "Held by a policy")):
        if assessment.get(name):
            facts.append((title, printable(str(assessment[name]))))
    for each in assessment.get("verdicts", ()):
        facts.append(
            (printable(str(each["policy"])), printable(f"{each['result']}: {each['text']}"))
        )
    return tags.dl(
        (tags.div(tags.dt(title), tags.dd(fact)) for title, fact in facts), class_="facts"
    )


def _parameters(parameters: Mapping[str, Any]) -> str:
    return printable(
        " ".join(name if value is None else f"{name}={value}" for name, value in parameters.items())
    )


_RECIPIENT_COLUMNS = ("To", "State", "Attempts", "Next attempt", "Last reply", "Parameters")


def _recipients(message: Mapping[str, Any]) -> Tag:
    def row(each: Mapping[str, Any]) -> Sequence[Flattenable]:
        to: Flattenable = printable(str(each["address"]))
        if each["original"]:
            original = printable(str(each["original"]))
            to = (tags.div(to), tags.div(f"sent to {original}", class_="faint"))
        return (
            to,
            _state(each),
            f"{each['attempts']:,}",
            _next(each),
            _last(each),
            _parameters(each["parameters"]),
        )

    recipients = message["recipients"]
    more = len(recipients) - _MOST_RECIPIENTS
    return tags.section(
        tags.h2("Recipients"),
        table(
            _RECIPIENT_COLUMNS,
            ("", "whole", "whole", "whole", "", ""),
            map(row, recipients[:_MOST_RECIPIENTS]),
        ),
        tags.p(f"And {more:,} more.", class_="faint") if more > 0 else "",
        id="recipients",
    )


_ATTEMPT_COLUMNS = ("Ended", "To", "Attempt", "Next hop", "Reply", "TLS")


def _attempts(message: Mapping[str, Any]) -> Flattenable:
    addresses = {each["number"]: each["address"] for each in message["recipients"]}

    def row(each: Mapping[str, Any]) -> Sequence[Flattenable]:
        remote = f"{each['remote']}: " if each["remote"] else ""
        return (
            time_tag(each["ended_at"]),
            printable(str(addresses.get(each["recipient"], each["recipient"]))),
            str(each["attempt"]),
            printable(str(each["next_hop"])),
            printable(f"{remote}{each['reply']}"),
            printable(str(each["tls"] or "")),
        )

    attempts = message["attempts"]
    if not attempts:
        return ""
    return tags.section(
        tags.h2("Attempts"),
        table(
            _ATTEMPT_COLUMNS,
            ("whole", "", "whole", "", "", ""),
            map(row, attempts[-_MOST_ATTEMPTS:]),
        ),
        id="attempts",
    )


def _transcripts(message: Mapping[str, Any]) -> Iterator[Tag]:
    """Yield each transcript once: recipients of one transaction share it."""
    shown = {each["transcript"]: each for each in message["attempts"] if each.get("transcript")}
    for place, (transcript, each) in enumerate(shown.items()):
        title = f"Session of attempt {each['attempt']} with {printable(str(each['next_hop']))}"
        yield tags.section(
            tags.details(
                tags.summary(title),
                tags.pre("\n".join(map(printable, transcript.splitlines()))),
                id=f"transcript-{place}-details",
            ),
            id=f"transcript-{place}",
        )


def _header(message: Mapping[str, Any]) -> Flattenable:
    header = message.get("header")
    if not header:
        return ""
    cut = " (its beginning)" if message.get("header_truncated") else ""
    return tags.section(
        tags.h2(f"Header section{cut}"),
        table(
            ("Field", "Value"),
            ("whole", ""),
            ((printable(name), printable(" ".join(value.split()))) for name, value in header),
        ),
        id="header",
    )
