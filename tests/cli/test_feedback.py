"""``twisted-mta feedback``: the request, the output and the exit status, against a scripted MTA."""

from __future__ import annotations

import json

from tests.cli.test_queue import NOW, QueueCommandTestCase

ANSWER = {
    "version": 1,
    "accounts": [{"account": "shop\x1b", "reports": 3, "first": NOW, "last": NOW + 60}],
    "reports": [
        {"at": NOW, "account": "", "message": "ID", "type": "abuse", "reporter": "far.example"}
    ],
}


class Feedback(QueueCommandTestCase):
    group = "feedback"

    def test_accounts_and_reports_have_a_printable_line_each(self) -> None:
        result = self.run_tool("shop@a", answers=[ANSWER])
        self.assertEqual(result.exit_code, 0, result.output)
        rows = [line.split("\t") for line in result.output.splitlines()]
        self.assertEqual(rows[1][:2], [r"shop\x1b", "3"])
        self.assertEqual(rows[4][1:], ["abuse", "ID", "(none)", "far.example"])
        self.assertEqual(self.requests, [("GET /v1/feedback?account=shop%40a", None)])

    def test_programs_get_json(self) -> None:
        result = self.run_tool("--json", answers=[ANSWER])
        self.assertEqual(json.loads(result.output), ANSWER)

    def test_a_refusal_is_said(self) -> None:
        result = self.run_tool(answers=[(409, {"error": "no reports are asked for"})])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("no reports are asked for", result.output)
