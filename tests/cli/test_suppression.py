"""``twisted-mta suppression``: requests, output and exit status, against a scripted MTA."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.test_queue import NOW, QueueCommandTestCase


def entry(**other: Any) -> dict[str, Any]:
    return {
        "address": "bob\x1b@far.example",
        "since": NOW,
        "until": NOW + 86_400,
        "bounces": 3,
        "reply": "550 5.1.1 User unknown",
        **other,
    }


class Suppression(QueueCommandTestCase):
    group = "suppression"

    def test_a_list_has_a_printable_line_for_each_address(self) -> None:
        answer = {"version": 1, "entries": [entry(), entry(address="eve@far.example", until=None)]}
        result = self.run_tool("list", answers=[answer])
        self.assertEqual(result.exit_code, 0, result.output)
        head, first, second = result.output.splitlines()
        self.assertEqual(head.split("\t"), ["Address", "Since", "Until", "Bounces", "Reply"])
        self.assertEqual(first.split("\t")[0], r"bob\x1b@far.example")
        self.assertEqual(second.split("\t")[2], "removed")
        result = self.run_tool("list", "--json", answers=[answer])
        self.assertEqual(json.loads(result.output)["entries"][1]["until"], None)

    def test_a_long_list_is_read_page_by_page(self) -> None:
        page = [entry(address=f"{number:04}@far.example") for number in range(1000)]
        answers = [{"version": 1, "entries": page}, {"version": 1, "entries": [entry()]}]
        result = self.run_tool("list", answers=answers)
        self.assertEqual(len(result.output.splitlines()), 1002)
        self.assertIn("after=0999%40far.example", self.requests[1][0])

    def test_addresses_are_added_and_removed(self) -> None:
        answer = {"version": 1, "address": "bob@far.example"}
        result = self.run_tool("add", "Bob@far.example", "--reason", "left", answers=[answer])
        self.assertEqual(result.output, "Suppressed: bob@far.example\n")
        result = self.run_tool("remove", "bob@far.example", answers=[answer])
        self.assertEqual(result.output, "Removed: bob@far.example\n")
        self.assertEqual(
            [request for request, _ in self.requests],
            [
                "POST /v1/suppression/add?address=Bob%40far.example&reason=left",
                "POST /v1/suppression/remove?address=bob%40far.example",
            ],
        )

    def test_a_refusal_is_said(self) -> None:
        refused = 404, {"error": "x@y.example is not on the suppression list"}
        result = self.run_tool("remove", "x@y.example", answers=[refused])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is not on the suppression list", result.output)
        self.assertEqual(self.run_tool("list").exit_code, 3)
