"""Actions by forms: who may send them, what they ask first, and what they do."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.admin.test_access import HOST, AccessTestCase, Answered
from twisted_mta.admin.http import Request, Response, error_response, json_response

EVIL = "<script>alert(1)</script>"


class ActionPagesTestCase(AccessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.recipients = 2
        self.cookie = self.log_in().cookie

    def answer(self, request: Request) -> Response:
        """Stand in for the API."""
        self.reached.append(request)
        if request.path == "/v1/queue":
            return json_response({"messages": [], "next": None, "missing": []})
        if request.path == "/v1/tls":
            return json_response({"hosts": [{"host": "mx.example.net", "port": 25}]})
        if request.path == "/v1/reload":
            return error_response(f"{EVIL} is not a setting", 409)
        return json_response(
            {"messages": 1, "recipients": self.recipients, "busy": 1, "elsewhere": 2, "missing": []}
        )

    def act(self, *, csrf: str | None = None, **form: str) -> Answered:
        token = self.csrf(self.cookie) if csrf is None else csrf
        self.reached.clear()
        return self.ask(
            "/act",
            method="POST",
            fields={
                "Cookie": self.cookie,
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": f"http://{HOST}",
            },
            body=urlencode({"csrf": token, **form}),
        )

    def bodies(self) -> list[Any]:
        return [json.loads(each.body) for each in self.reached]


class Asking(ActionPagesTestCase):
    def test_an_action_is_counted_first_and_changes_nothing(self) -> None:
        page = self.act(action="remove", domain="a.example", older="3600", **{"from": "<>"})
        self.assertEqual(page.code, 200)
        self.assertEqual(
            self.bodies(),
            [{"domain": "a.example", "older": 3600.0, "from": "<>", "dry_run": True}],
        )
        for text in (
            "<h1>Remove 2 recipients of 1 message?</h1>",
            "from &lt;&gt;, domain a.example, older 3600",
            "1 of them is in delivery",
            "2 of them are leased by another machine, whose attempt ends first.",
            '<input type="hidden" name="confirmed" value="yes" />',
            '<input type="hidden" name="domain" value="a.example" />',
            'class="grave"',
        ):
            self.assertIn(text, page.body)

    def test_it_is_done_once_confirmed_by_the_one_who_is_logged_in(self) -> None:
        page = self.act(action="hold", id="1M81ARNJN5BHJ", confirmed="yes")
        self.assertIn("<h1>On hold: 2 recipients of 1 message</h1>", page.body)
        (asked,) = self.reached
        self.assertEqual((asked.method, asked.path), ("POST", "/v1/queue/hold"))
        self.assertEqual(asked.user, "ann (login)")
        self.assertEqual(self.bodies(), [{"ids": ["1M81ARNJN5BHJ"], "dry_run": False}])

    def test_without_filters_all_mail_is_meant_and_said(self) -> None:
        page = self.act(action="retry")
        self.assertEqual(self.bodies(), [{"all": True, "dry_run": True}])
        self.assertIn("All mail in the queue is meant.", page.body)

    def test_where_nothing_would_change_nothing_is_asked(self) -> None:
        self.recipients = 0
        page = self.act(action="release", domain="a.example")
        self.assertIn("There is nothing to release", page.body)
        self.assertNotIn("confirmed", page.body)

    def test_a_reload_is_confirmed_and_its_refusal_is_shown(self) -> None:
        self.assertIn("Reload the settings?", self.act(action="reload").body)
        self.assertEqual(self.reached, [])
        page = self.act(action="reload", confirmed="yes")
        self.assertEqual(page.code, 409)
        self.assertIn("&lt;script&gt;alert(1)", page.body)
        self.assertNotIn(EVIL, page.body)

    def test_a_host_with_tls_is_forgotten_by_name(self) -> None:
        self.assertIn("not known to do TLS", self.act(action="forget", host="b.example").body)
        page = self.act(action="forget", host="MX.example.net")
        self.assertIn("known to do TLS on port 25", page.body)
        self.assertEqual([each.method for each in self.reached], ["GET"])
        self.act(action="forget", host="mx.example.net", confirmed="yes")
        last = self.reached[-1]
        self.assertEqual((last.method, last.path), ("POST", "/v1/tls/mx.example.net/forget"))


class Refused(ActionPagesTestCase):
    def test_a_form_without_the_token_of_the_login_does_nothing(self) -> None:
        for token in ("", "x" * 32):
            page = self.act(csrf=token, action="remove", confirmed="yes")
            self.assertEqual(page.code, 403)
            self.assertEqual(self.reached, [])

    def test_clients_that_may_not_act_do_nothing(self) -> None:
        body = urlencode({"action": "remove", "confirmed": "yes"})
        for fields in ({}, self.bearer("read"), self.bearer("submit")):
            fields = {**fields, "Content-Type": "application/x-www-form-urlencoded"}
            refused = self.ask("/act", method="POST", fields=fields, body=body)
            self.assertIn(refused.code, (401, 403))
        self.assertEqual(self.reached, [])

    def test_forms_are_there_for_those_alone_who_may_act(self) -> None:
        shown = self.ask("/queue?domain=a.example", fields={"Cookie": self.cookie}).body
        self.assertIn('<form method="post" action="/act" aria-label="Actions">', shown)
        self.assertIn('<input type="hidden" name="domain" value="a.example" />', shown)
        self.assertIn("Log out", shown)
        shown = self.ask("/queue", fields=self.bearer("read")).body
        self.assertNotIn("/act", shown)
        self.assertIn("Reload the settings", self.ask("/", fields={"Cookie": self.cookie}).body)
        self.assertNotIn("Reload the settings", self.ask("/", fields=self.bearer("read")).body)

    def test_forms_that_cannot_be_read_are_400(self) -> None:
        for form in ({"action": EVIL}, {}, {"action": "hold", "older": "x"}):
            page = self.act(**form)
            self.assertEqual((page.code, self.reached), (400, []), form)
            self.assertNotIn(EVIL, page.body)
        page = self.ask("/act", fields={"Cookie": self.cookie})
        self.assertEqual(page.code, 405)
