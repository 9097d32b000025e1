"""The description of the API: each request is there, and needs the scope that is described."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from typing import Any

from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta import admin
from twisted_mta.admin.http import Request, Response
from twisted_mta.admin.openapi import document
from twisted_mta.admin.web.access import scope_of
from twisted_mta.queue.operator.operations import ACTIONS
from twisted_mta.testing.memory_mta import MemoryMTA

_NOT_HERE = (
    "/v1/take-in",
    "/v1/reopen-logs",
)  # of the program that delivers cron's mail; of twistd


_ROUTE = re.compile(r"^ *(GET|POST|DELETE) +(/\S+)", re.M)
_NOT_JSON = {("get", "/metrics")}  # for Prometheus, which asks for no description


def routes() -> set[tuple[str, str]]:
    """Return the method and path of each route, as the modules that answer them list them."""
    found = set()
    for each in pkgutil.iter_modules(admin.__path__):
        module = importlib.import_module(f"{admin.__name__}.{each.name}")
        for method, path in _ROUTE.findall(module.__doc__ or ""):
            paths = [path.replace("<id or address>", "<subject>").replace("<host>", "<domain>")]
            if path == "/v1/explain/<id":
                paths = ["/v1/explain/<subject>"]
            elif path == "/v1/queue/<action>":
                paths = [f"/v1/queue/{action}" for action in ACTIONS]
            elif path == "/v1/<action>":
                paths = ["/v1/reload", "/v1/reopen-logs"]
            found |= {(method.lower(), re.sub("<(.+?)>", r"{\1}", one)) for one in paths}
    return found - _NOT_JSON


class Description(TidyTestCase):
    def setUp(self) -> None:
        self.described: Any = json.loads(document("1.2.3"))

    def test_each_operation_needs_the_scope_that_is_described(self) -> None:
        names = []
        for path, operations in self.described["paths"].items():
            for method, operation in operations.items():
                self.assertEqual(
                    operation["security"], [{"token": [scope_of(method.upper(), path)]}], path
                )
                names.append(operation["operationId"])
        self.assertEqual(len(names), len(set(names)))

    def test_each_route_is_described_and_nothing_else(self) -> None:
        described = {
            (method, path)
            for path, operations in self.described["paths"].items()
            for method in operations
        }
        self.assertEqual(described, routes())

    def test_each_operation_is_routed(self) -> None:
        """A path that no part answers is 404 with the paths that there are."""
        with MemoryMTA(domain="user.test") as mta:
            for path, operations in self.described["paths"].items():
                if path in _NOT_HERE:
                    continue
                for method in operations:
                    asked = path.replace("{id}", "0" * 13).replace("{subject}", "a@user.test")
                    asked = asked.replace("{domain}", "next.test")
                    answered = mta.mta.admin.answer(Request(method=method.upper(), path=asked))
                    answers: list[Any] = []
                    if isinstance(answered, Deferred):
                        answered.addBoth(answers.append)
                        mta.advance(30)
                        (answered,) = answers
                    if isinstance(answered, Response):
                        self.assertNotEqual(answered.code, 405, asked)
                        self.assertNotIn(b"there is ", answered.body, asked)

    def test_what_the_api_names_is_described_and_nothing_else(self) -> None:
        with MemoryMTA(domain="user.test") as mta:
            answer: Any = mta.mta.admin.answer(Request(method="GET", path="/nothing"))
        assert isinstance(answer, Response)
        named = set(
            re.findall(r"(?:GET|POST) (/[^\s,<]*[^\s,</])", json.loads(answer.body)["error"])
        )
        described = set(self.described["paths"])
        for path in named - {"/metrics", *_NOT_HERE}:
            self.assertTrue(
                any(each == path or each.startswith(f"{path}/") for each in described), path
            )
        for path in described - {*_NOT_HERE}:
            self.assertTrue(
                any(path == each or path.startswith(f"{each}/") for each in named), path
            )
