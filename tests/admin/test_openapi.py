"""The description of the API: each request is there, and needs the scope that is described."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.admin.http import Request, Response
from twisted_mta.admin.openapi import document
from twisted_mta.admin.web.access import scope_of
from twisted_mta.testing.memory_mta import MemoryMTA

_NOT_HERE = (
    "/v1/take-in",
    "/v1/reopen-logs",
)  # of the program that delivers cron's mail; of twistd


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
