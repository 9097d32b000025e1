"""The suppression list over HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.admin.agents import ScriptedAgents
from tests.tidy import TidyTestCase
from twisted_mta.admin.http import Request, Response
from twisted_mta.admin.suppression_api import SuppressionAPI


class Suppression(TidyTestCase):
    def setUp(self) -> None:
        self.agents = ScriptedAgents()
        self.asked: list[Mapping[str, Any]] = []
        self.found: Any = True
        self.agents.answer_shard = self.shard
        self.api = SuppressionAPI(self.agents, clock=Clock())

    def shard(self, shard: int, name: str, arguments: Mapping[str, Any]) -> Any:
        self.asked.append(arguments)
        if isinstance(self.found, Exception):
            raise self.found
        if arguments["action"] == "list":
            return {"entries": []}
        return {"address": arguments["address"], "found": self.found}

    def ask(self, path: str, method: str = "GET", query: str = "", **other: Any) -> tuple[int, Any]:
        request = Request(method=method, path=f"/v1/suppression{path}", query=query, **other)
        answer: Response | Deferred[Response] = self.api.answer(request)
        if isinstance(answer, Deferred):
            answer = self.successResultOf(answer)
        return answer.code, json.loads(answer.body)

    def test_a_page_begins_behind_an_address(self) -> None:
        self.assertEqual(self.ask(""), (200, {"version": 1, "entries": []}))
        self.assertEqual(self.ask("", query="after=a%40b&limit=99999")[0], 200)
        self.assertEqual(
            self.asked,
            [
                {"action": "list", "address": "", "limit": 1000},
                {"action": "list", "address": "a@b", "limit": 1000},
            ],
        )
        self.assertEqual(self.ask("", query="limit=x")[0], 400)
        self.assertEqual(self.ask("", "POST")[0], 405)

    def test_the_operator_adds_and_removes(self) -> None:
        code, answer = self.ask("/add", "POST", "address=a%40b&reason=why", user="uid 0")
        self.assertEqual((code, answer["address"]), (200, "a@b"))
        expected = {"action": "add", "address": "a@b", "reason": "why", "by": "uid 0"}
        self.assertEqual(self.asked, [expected])
        self.found = False
        self.assertEqual(self.ask("/remove", "POST", "address=a%40b")[0], 404)

    def test_bad_requests_ask_no_agent(self) -> None:
        for path, method, query, public, code in (
            ("/add", "POST", "", False, 400),
            ("/add", "POST", f"address={'x' * 321}", False, 400),
            ("/add", "GET", "address=a%40b", False, 405),
            ("/add", "POST", "address=a%40b", True, 403),
            ("/delete", "POST", "address=a%40b", False, 404),
        ):
            self.assertEqual(self.ask(path, method, query, public=public)[0], code, (path, query))
        self.assertEqual(self.asked, [])

    def test_reports_of_complaints_are_those_of_an_account_or_all(self) -> None:
        self.agents.answer_shard = lambda shard, name, arguments: {name: arguments["account"]}
        for query, account in (("", None), ("account=a%40b", "a@b")):
            answer = self.successResultOf(
                self.api.feedback(Request(method="GET", path="/v1/feedback", query=query))
            )
            self.assertEqual(json.loads(answer.body), {"version": 1, "feedback": account})

    def test_what_an_agent_refuses_is_said(self) -> None:
        self.found = ValueError("there is no suppression list")
        code, answer = self.ask("/add", "POST", "address=a%40b")
        self.assertEqual((code, answer["error"]), (409, "there is no suppression list"))
        self.found = LookupError()
        self.assertEqual(self.ask("")[0], 503)
