"""The page of recent sessions.

    GET /sessions        the last sessions of clients that have ended; the query is that of
                         ``/v1/sessions``

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
from .markup import Flattenable, Tag, tags
from .page import LIVE_POLICY, View, framed, table, time_tag

PATH = "/sessions"

_HTML = "text/html; charset=utf-8"
_SHOWN = 100
_COLUMNS = ("Began", "Client", "Listener", "TLS", "Taken", "Refusals", "End")


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
        wanted = {"peer": peer, "refused": "true" if refused else "false", "limit": str(_SHOWN)}
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
            nothing = "No session matches." if peer or refused else "No session has ended yet."
            shown = tags.p(nothing, class_="faint")
        body = framed(
            "Sessions - mail",
            view,
            tags.section(tags.h1("Recent sessions"), _search(peer, refused), id="search"),
            tags.section(shown, id="found", **{"aria-label": "Sessions"}),
            current=PATH,
        )
        headers = {"Content-Security-Policy": LIVE_POLICY}
        return Response(body=body, content_type=_HTML, code=answer.code, headers=headers)


def _search(peer: str, refused: bool) -> Tag:
    return tags.form(
        tags.label(
            "Client",
            tags.input(
                name="peer",
                value=peer,
                placeholder="192.0.2.0/24, a name or an account",
                autocomplete="off",
                spellcheck="false",
            ),
        ),
        tags.label(
            "Sessions",
            tags.select(
                *(
                    tags.option(
                        name, value=value, **({"selected": ""} if chosen is refused else {})
                    )
                    for name, value, chosen in (
                        ("all", "false", False),
                        ("with a refusal", "true", True),
                    )
                ),
                name="refused",
            ),
        ),
        tags.button("Search", type="submit"),
        tags.a("All", href=PATH) if peer or refused else "",
        method="get",
        action=PATH,
        role="search",
    )


def _row(each: Mapping[str, Any], *, traces: bool) -> Sequence[Flattenable]:
    peer: Flattenable = printable(str(each["peer"]))
    trace: Flattenable = ""
    if traces and each["address"]:
        query = urlencode({"client": each["address"]})
        label = f"Trace the next sessions of {printable(str(each['address']))}"
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
        (tags.div(peer), *(tags.div(name, class_="faint") for name in names), trace),
        printable(str(each["kind"])),
        printable(str(each["tls"])) or "none",
        f"{each['accepted']:,}",
        replies or "",
        printable(str(each["end"])),
    )
