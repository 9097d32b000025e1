"""The page of recent sessions.

    GET /sessions        the last sessions with clients and with servers that have ended; the query
                         is that of ``/v1/sessions``

All that is shown was written by strangers, and is made printable and escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.internet.defer import Deferred

from ...mail.printable import printable
from ..http import READING, Request, Responder, Response, only
from ..sessions_api import PATH as API
from ..status import short_duration
from .markup import Flattenable, Tag, breakable, tags
from .page import LIVE_POLICY, View, framed, table, time_tag

PATH = "/sessions"

_HTML = "text/html; charset=utf-8"
_SHOWN = 100
_COLUMNS = ("Began", "With", "Kind", "TLS", "Taken", "Refusals", "End")
_DIRECTIONS = (("all", ""), ("of clients with us", "in"), ("of us with servers", "out"))
_REFUSALS = (("all", "false"), ("with a refusal", "true"))


class SessionPages:
    """Answers requests for the page.

    Args:
        ask: answers requests for the API.
    """

    def __init__(self, ask: Responder) -> None:
        self._ask = ask

    def serves(self, path: str) -> bool:
        """Whether a path is answered here."""
        return path == PATH

    def answer(self, request: Request, view: View) -> Response | Deferred[Response]:
        """Answer a request of a client that may read."""
        if request.method not in READING:
            return only(READING)
        return Deferred.fromCoroutine(self._page(request, view))

    async def _page(self, request: Request, view: View) -> Response:
        peer = request.parameters.get("peer", "").strip()
        refused = request.parameters.get("refused") == "true"
        direction = request.parameters.get("direction", "")
        wanted = {"peer": peer, "refused": "true" if refused else "false", "limit": str(_SHOWN)}
        if direction:
            wanted["direction"] = direction
        asked = evolve(request, method="GET", path=API, query=urlencode(wanted))
        made: Any = self._ask(asked)
        answer = await made if isinstance(made, Deferred) else made
        found = json.loads(answer.body)
        shown: Flattenable
        if answer.code != 200:
            shown = tags.p(printable(str(found.get("error", ""))), class_="failed", role="alert")
        elif found["sessions"]:
            rows = [_row(each, traces=view.acts) for each in found["sessions"]]
            shown = table(_COLUMNS, ("whole", "", "whole", "whole", "whole", "", ""), rows)
        else:
            chosen = peer or refused or direction
            nothing = "No session matches." if chosen else "No session has ended yet."
            shown = tags.p(nothing, class_="faint")
        body = framed(
            "Sessions - mail",
            view,
            tags.section(
                tags.h1("Recent sessions"), _search(peer, refused, direction), id="search"
            ),
            tags.section(shown, id="found", **{"aria-label": "Sessions"}),
            current=PATH,
        )
        headers = {"Content-Security-Policy": LIVE_POLICY}
        return Response(body=body, content_type=_HTML, code=answer.code, headers=headers)


def _search(peer: str, refused: bool, direction: str) -> Tag:
    return tags.form(
        tags.label(
            "With",
            tags.input(
                name="peer",
                value=peer,
                placeholder="192.0.2.0/24, a name or an account",
                autocomplete="off",
                spellcheck="false",
            ),
        ),
        _choice("Sessions", "direction", _DIRECTIONS, direction),
        _choice("Refusals", "refused", _REFUSALS, "true" if refused else "false"),
        tags.button("Search", type="submit"),
        tags.a("All", href=PATH) if peer or refused or direction else "",
        method="get",
        action=PATH,
        role="search",
    )


def _choice(label: str, name: str, options: Sequence[tuple[str, str]], chosen: str) -> Tag:
    """Return a labeled menu; the options are words with their values."""
    return tags.label(
        label,
        tags.select(
            *(
                tags.option(words, value=value, **({"selected": ""} if value == chosen else {}))
                for words, value in options
            ),
            name=name,
        ),
    )


def _row(each: Mapping[str, Any], *, traces: bool) -> Sequence[Flattenable]:
    peer = breakable(printable(str(each["peer"])))
    trace: Flattenable = ""
    outgoing = each["direction"] == "out"
    if traces and each["address"]:
        other = each["host"] if outgoing else each["address"]
        query = urlencode({"next_hop" if outgoing else "client": other})
        label = f"Trace the next sessions with {printable(str(other))}"
        trace = tags.div(
            tags.a("trace the next", href=f"/v1/trace?{query}", **{"aria-label": label})
        )
    names = [printable(str(each["helo"]))] if each["helo"] else []
    if each["account"]:
        names.append(f"account {printable(str(each['account']))}")
    replies = [tags.div(printable(str(reply))) for reply in each["replies"]]
    more = each["refused"] - len(replies)
    if more > 0:
        replies.insert(0, tags.div(f"{more:,} before", class_="faint"))
    return (
        (
            tags.div(time_tag(each["began"])),
            tags.div(f"for {short_duration(each['seconds'])}", class_="faint"),
        ),
        (
            tags.div("to " if outgoing else "from ", peer),
            *(tags.div(name, class_="faint") for name in names),
            trace,
        ),
        printable(str(each["kind"])),
        (
            tags.div(printable(str(each["tls"])) or "none"),
            tags.div(printable(str(each["verdict"])), class_="faint") if each["verdict"] else "",
        ),
        f"{each['accepted']:,}",
        replies or "",
        printable(str(each["end"])),
    )
