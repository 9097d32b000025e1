"""The actions of an operator as forms: what would be done, and to how much; then it is done.

    POST /act            a form with an ``action``, and what it is about; ``confirmed`` is empty at
                         first, which changes nothing and asks

A form works without scripts. The site lets only clients with the scope ``act`` reach it, and of a
login only forms with its token (`access`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from ...config.amounts import period
from ...mail.counted import counted
from ...mail.printable import printable
from ..http import Request, Responder, Response, only
from ..queue_api import SUSPENDED_PATH
from ..status import short_duration
from .markup import Flattenable, Tag, tags
from .page import LIVE_POLICY, View, framed, quoted

PATH = "/act"

FILTERS = ("id", "to", "from", "domain", "state", "older")
"""The fields of a form that say which mail is meant."""

_HTML = "text/html; charset=utf-8"
_MOST_FIELDS = 50


@frozen(kw_only=True)
class Action:
    """An action on mail in the queue.

    Attributes:
        name: of the button.
        done: what was done, before the number of recipients.
        means: what it does; a sentence.
        grave: whether it cannot be undone.
    """

    name: str
    done: str
    means: str
    grave: bool = False


ACTIONS: Mapping[str, Action] = {
    "retry": Action(
        name="Retry",
        done="Due now:",
        means="They are tried at once, instead of at their next attempt.",
    ),
    "hold": Action(
        name="Hold",
        done="On hold:",
        means="They are neither tried nor returned until they are released.",
    ),
    "release": Action(name="Release", done="Released:", means="What is on hold is tried at once."),
    "remove": Action(
        name="Remove",
        done="Removed:",
        means="They leave the queue for good, and their senders get no notice.",
        grave=True,
    ),
}
"""The actions on mail, by their names in the API."""


def action_form(csrf: str, about: Mapping[str, str]) -> Tag:
    """Return a form with a button for each action on mail.

    Args:
        csrf: the token of the login.
        about: the filters; empty: all mail.
    """
    return tags.form(
        _hidden(csrf, about),
        *(
            tags.button(each.name, type="submit", name="action", value=name)
            for name, each in ACTIONS.items()
        ),
        method="post",
        action=PATH,
        **{"aria-label": "Actions"},
    )


def small_form(
    csrf: str, action: str, name: str, content: Flattenable = "", about: Mapping[str, str] = {}
) -> Tag:
    """Return a form for an action that is not about mail, with further fields."""
    return tags.form(
        _hidden(csrf, about),
        content,
        tags.button(name, type="submit", name="action", value=action),
        method="post",
        action=PATH,
    )


def _hidden(csrf: str, fields: Mapping[str, str]) -> Flattenable:
    given = {**({"csrf": csrf} if csrf else {}), **fields}
    return [tags.input(type="hidden", name=name, value=value) for name, value in given.items()]


class ActionPages:
    """Answers the forms.

    Args:
        ask: answers requests for the API.
    """

    def __init__(self, ask: Responder) -> None:
        self._ask = ask

    def answer(self, request: Request, view: View) -> Response | Deferred[Response]:
        """Answer a request of a client that may act."""
        if request.method != "POST":
            return only(("POST",))
        try:
            fields = parse_qsl(
                request.body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS
            )
        except ValueError:
            return _page(view, "Nothing was done", tags.p("The form cannot be read."), code=400)
        return Deferred.fromCoroutine(self._answer(request, view, dict(fields)))

    async def _answer(self, request: Request, view: View, form: dict[str, str]) -> Response:
        action, confirmed = form.get("action", ""), bool(form.get("confirmed"))
        if action in ACTIONS:
            return await self._mail(request, view, action, form, confirmed)
        if action == "suspend":
            return await self._suspend(request, view, form, confirmed)
        if action == "resume":
            return await self._resume(request, view, form.get("destination", ""), confirmed)
        if action == "reload":
            return await self._reload(request, view, confirmed)
        if action == "forget":
            return await self._forget(request, view, form.get("host", "").strip(), confirmed)
        known = ", ".join((*ACTIONS, "suspend", "resume", "reload", "forget"))
        text = f"found action {printable(action)}, expected one of {known}"
        return _page(view, "Nothing was done", tags.p(text), code=400)

    async def _call(
        self,
        request: Request,
        path: str,
        body: Mapping[str, Any] | None,
        method: str = "POST",
        query: str = "",
    ) -> tuple[int, Any]:
        """Ask the API; return the status code and the answer."""
        octets = b"" if body is None else json.dumps(body).encode("ascii")
        asked = evolve(request, method=method, path=path, query=query, body=octets)
        made: Any = self._ask(asked)
        answer = await made if isinstance(made, Deferred) else made
        return answer.code, json.loads(answer.body)

    async def _mail(
        self, request: Request, view: View, action: str, form: dict[str, str], confirmed: bool
    ) -> Response:
        about = {name: form[name] for name in FILTERS if form.get(name)}
        filters: dict[str, Any] = dict(about) or {"all": True}
        if "id" in filters:
            filters["ids"] = [filters.pop("id")]
        if "older" in filters:
            try:
                filters["older"] = float(filters["older"])
            except ValueError:
                return _page(view, "Nothing was done", tags.p("older: expected seconds"), code=400)
        body = {**filters, "dry_run": not confirmed}
        code, answer = await self._call(request, f"/v1/queue/{action}", body)
        if code != 200:
            return _refused(view, code, answer)
        what, recipients = ACTIONS[action], answer["recipients"]
        number = (
            f"{recipients:,} recipient{'' if recipients == 1 else 's'} of"
            f" {answer['messages']:,} message{'' if answer['messages'] == 1 else 's'}"
        )
        notes: list[Flattenable] = [
            tags.p(f"A part of the queue is missing: {printable(str(each['why']))}")
            for each in answer["missing"]
        ]
        if answer["busy"]:
            busy = counted(answer["busy"], "of them is", "of them are")
            notes.append(tags.p(f"{busy} in delivery, which ends first."))
        if answer["elsewhere"]:
            elsewhere = counted(answer["elsewhere"], "of them is", "of them are")
            notes.append(
                tags.p(f"{elsewhere} leased by another machine, whose attempt ends first.")
            )
        if confirmed:
            return _page(view, f"{what.done} {number}", *notes)
        if not recipients:
            text = f"There is nothing to {action} in what is selected."
            return _page(view, "Nothing to do", tags.p(text), *notes)
        return _confirmation(
            view,
            f"{what.name} {number}?",
            tags.p(_selected(about)),
            tags.p(what.means),
            *notes,
            button=what.name,
            grave=what.grave,
            fields={"action": action, **about},
        )

    async def _suspend(
        self, request: Request, view: View, form: Mapping[str, str], confirmed: bool
    ) -> Response:
        destination = form.get("destination", "").strip()
        reason, time = form.get("reason", "").strip(), form.get("for", "").strip()
        try:
            seconds = period(time) if time else None
        except ValueError as error:
            text = f"For how long: {printable(str(error))}"
            return _page(view, "Nothing was done", tags.p(text, role="alert"), code=400)
        body = {
            "destination": destination,
            "reason": reason,
            "seconds": seconds,
            "dry_run": not confirmed,
        }
        code, answer = await self._call(request, SUSPENDED_PATH, body)
        if code != 200:
            return _refused(view, code, answer)
        name, count = printable(str(answer["destination"])), _waiting(answer["waiting"])
        if confirmed:
            return _page(view, f"Suspended: {name}", tags.p(f"{count} for it."))
        return _confirmation(
            view,
            f"Suspend deliveries to {name}?",
            tags.p(f"{count} for it now. New mail is accepted, and waits as well."),
            tags.p(
                "No attempt begins until it is resumed; one that is under way ends by itself."
                if seconds is None
                else f"No attempt begins for {short_duration(seconds)}; one that is under way ends"
                " by itself."
            ),
            tags.p("Mail is returned to its senders at the end of its lifetime, as always."),
            tags.p(f"Reason: {printable(reason)}") if reason else "",
            button="Suspend",
            fields={
                "action": "suspend",
                "destination": destination,
                "reason": reason,
                "for": time,
            },
        )

    async def _resume(
        self, request: Request, view: View, destination: str, confirmed: bool
    ) -> Response:
        query = urlencode({"destination": destination})
        code, answer = await self._call(request, SUSPENDED_PATH, None, "GET", query)
        if code != 200:
            return _refused(view, code, answer)
        name = printable(destination)
        if not answer["destinations"]:
            text = f"{name} is not suspended by the operator."
            return _page(view, "Nothing to do", tags.p(text))
        if not confirmed:
            each = answer["destinations"][0]
            return _confirmation(
                view,
                f"Resume deliveries to {name}?",
                tags.p(f"{_waiting(each['waiting'])} for it, and are due at once then."),
                tags.p("The limits of the destination hold as always."),
                tags.p(f"It was suspended for: {printable(each['reason'])}")
                if each["reason"]
                else "",
                button="Resume",
                fields={"action": "resume", "destination": destination},
            )
        code, answer = await self._call(request, SUSPENDED_PATH, None, "DELETE", query)
        if code != 200:
            return _refused(view, code, answer)
        return _page(view, f"Resumed: {name}", tags.p("Its mail is due now."))

    async def _reload(self, request: Request, view: View, confirmed: bool) -> Response:
        if not confirmed:
            return _confirmation(
                view,
                "Reload the settings?",
                tags.p("The configuration and its files are read again; all of it, or nothing."),
                button="Reload",
                fields={"action": "reload"},
            )
        code, answer = await self._call(request, "/v1/reload", None)
        if code != 200:
            return _refused(view, code, answer)
        lines = [tags.li(printable(str(line))) for line in answer["lines"]]
        found: Flattenable = tags.ul(lines) if lines else tags.p("Nothing has changed.")
        return _page(view, "Reloaded", found)

    async def _forget(self, request: Request, view: View, host: str, confirmed: bool) -> Response:
        code, answer = await self._call(request, "/v1/tls", None, "GET")
        if code != 200:
            return _refused(view, code, answer)
        ports = [str(each["port"]) for each in answer["hosts"] if each["host"] == host.lower()]
        shown = printable(host)
        if not ports:
            return _page(view, "Nothing to do", tags.p(f"{shown} is not known to do TLS."))
        if not confirmed:
            return _confirmation(
                view,
                f"Forget the TLS of {shown}?",
                tags.p(
                    f"It is known to do TLS on port {', '.join(ports)}. Forget it only if the host"
                    " has given up TLS on purpose: from then on mail may be sent to it in clear."
                ),
                button="Forget",
                grave=True,
                fields={"action": "forget", "host": host},
            )
        code, answer = await self._call(request, f"/v1/tls/{quoted(host.lower())}/forget", None)
        if code != 200:
            return _refused(view, code, answer)
        return _page(view, f"Forgotten: the TLS of {shown}")


def _waiting(count: int) -> str:
    return counted(count, "recipient waits", "recipients wait")


def _selected(about: Mapping[str, str]) -> str:
    if not about:
        return "All mail in the queue is meant."
    named = ", ".join(f"{name} {value}" for name, value in about.items())
    return printable(f"Meant is mail with: {named}.")


def _refused(view: View, code: int, answer: Any) -> Response:
    text = printable(str(answer.get("error", "")))
    return _page(view, "Nothing was done", tags.p(text, role="alert"), code=code)


def _confirmation(
    view: View,
    title: str,
    *content: Flattenable,
    button: str,
    fields: Mapping[str, str],
    grave: bool = False,
) -> Response:
    return _page(
        view,
        title,
        *content,
        tags.form(
            _hidden(view.csrf, {**fields, "confirmed": "yes"}),
            tags.button(button, type="submit", class_="grave" if grave else "act"),
            tags.a("Do nothing", href="/queue"),
            method="post",
            action=PATH,
        ),
    )


def _page(view: View, title: str, *content: Flattenable, code: int = 200) -> Response:
    body = framed(
        f"{title} - mail",
        view,
        tags.section(tags.h1(title), *content, class_="act"),
        current="",
        live=False,
    )
    return Response(
        body=body,
        content_type=_HTML,
        code=code,
        headers={"Content-Security-Policy": LIVE_POLICY},
    )
