"""``twisted-mta queue``: requests, output and exit status, against a scripted MTA."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner, Result

from tests.tidy import TidyTestCase
from twisted_mta.cli.command import main
from twisted_mta.cli.queue import actions, summary

ID = "1M81ARNJN5BHJ"
NOW = 1_790_000_000.0
PATIENCE = 10.0  # seconds for the last answer to be sent, once the tool has ended
EVIL = "[red]eve[/red]\x1b[2J@evil.example"


def recipient(**other: Any) -> dict[str, Any]:
    return {
        "number": 0,
        "address": EVIL,
        "original": None,
        "state": "deferred",
        "in_delivery": False,
        "removing": False,
        "held_at": None,
        "attempts": 3,
        "next_attempt": NOW + 60,
        "last": {"reply": "450 4.2.0 later\x07", "remote": "mx.example[192.0.2.1]:25"},
        **other,
    }


def listed(id: str = ID, **other: Any) -> dict[str, Any]:
    return {
        "id": id,
        "received_at": NOW,
        "reverse_path": None,
        "size": 1234,
        "recipients": [recipient(**other)],
    }


def page(*messages: Any, following: str | None = None, missing: Any = ()) -> dict[str, Any]:
    return {
        "version": 1,
        "messages": list(messages),
        "next": following,
        "missing": list(missing),
    }


def done(recipients: int, **other: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "messages": recipients,
        "recipients": recipients,
        "busy": 0,
        "looked_at": recipients,
        "next": None,
        "missing": [],
        **other,
    }


class QueueCommandTestCase(TidyTestCase):
    group = "queue"  # of commands

    def setUp(self) -> None:
        self.state = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.state)
        self.requests: list[tuple[str, Any]] = []

    def run_tool(
        self,
        *words: str,
        answers: Any = (),
        text: str | None = None,
        complete: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the tool against an MTA that gives these answers, one to a connection.

        Args:
            words: of the command line.
            answers: of the MTA.
            text: on standard input.
            complete: variables by which bash asks for completions instead.
        """
        answers = list(answers)
        listening = socket.socket(socket.AF_UNIX)
        if answers:
            listening.bind(os.path.join(self.state, "control.sock"))
            listening.listen()
        thread = threading.Thread(target=self._serve, args=(listening, answers))
        thread.start()
        words = (self.group, *words, "--state-dir", self.state)
        environment: Mapping[str, str] = {}
        if complete is not None:
            words, environment = (), {"_TWISTED_MTA_COMPLETE": "bash_complete", **complete}
        result = CliRunner().invoke(main, words, text, environment, prog_name="twisted-mta")
        thread.join(PATIENCE)
        unasked = thread.is_alive()
        if unasked:
            listening.shutdown(socket.SHUT_RDWR)  # ends `accept`
            thread.join()
        listening.close()
        if answers:
            os.unlink(os.path.join(self.state, "control.sock"))
        self.assertFalse(unasked, f"fewer requests than answers: {self.requests}\n{result.output}")
        return result

    def _serve(self, listening: socket.socket, answers: list[Any]) -> None:
        for answer in answers:
            code, content = answer if isinstance(answer, tuple) else (200, answer)
            try:
                connection, _ = listening.accept()
            except OSError:  # the tool has ended without this request
                return
            with connection, connection.makefile("rb") as file:
                request = file.readline().decode("ascii").rsplit(" ", 1)[0]
                length = 0
                while (line := file.readline().strip()) != b"":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                body = file.read(length)
                self.requests.append((request, json.loads(body) if body else None))
                octets = json.dumps(content).encode("ascii")
                head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (code, len(octets))
                connection.sendall(head + octets)


class Listing(QueueCommandTestCase):
    def test_a_pipe_gets_a_printable_line_for_each_recipient(self) -> None:
        result = self.run_tool("list", answers=[page(listed())])
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(
            result.output.splitlines()[1].split("\t"),
            [
                ID,
                "2026-09-21 14:13:20",
                "1234",
                "<>",
                "[red]eve[/red]\\x1b[2J@evil.example",
                "deferred",
                "3",
                "2026-09-21 14:14:20",
                "mx.example[192.0.2.1]:25: 450 4.2.0 later\\x07",
            ],
        )

    def test_filters_become_a_query_and_pages_follow_one_another(self) -> None:
        result = self.run_tool(
            *("list", "--to", "a+b@x", "--state", "held", "--older", "2 h", "--json"),
            answers=[page(listed("0" * 13), following=ID), page(listed())],
        )
        self.assertEqual(
            [each["id"] for each in json.loads(result.output)["messages"]], ["0" * 13, ID]
        )
        self.assertEqual(
            [request for request, _ in self.requests],
            [
                "GET /v1/queue?to=a%2Bb%40x&state=held&older=7200.0&limit=100",
                f"GET /v1/queue?to=a%2Bb%40x&state=held&older=7200.0&limit=100&after={ID}",
            ],
        )

    def test_mail_that_waits_for_its_turn_is_not_in_delivery(self) -> None:
        states = []
        for more in (
            {"in_delivery": True},
            {"waiting": True, "expected_at": None},
            {"waiting": True, "expected_at": NOW + 120},
            {"elsewhere": True},
        ):
            result = self.run_tool("list", answers=[page(listed(**more))])
            cells = result.output.splitlines()[1].split("\t")
            states.append((cells[5], cells[7]))
        self.assertEqual(
            states,
            [
                ("deferred, in delivery", ""),
                ("deferred, waiting", ""),
                ("deferred, waiting", "about 2026-09-21 14:15:20"),
                ("deferred, leased by another machine", ""),
            ],
        )

    def test_a_list_that_was_cut_short_names_its_next_and_is_continued_there(self) -> None:
        first, last = "0" * 13, ID
        result = self.run_tool(
            *("list", "--limit", "1", "--json"), answers=[page(listed(first), following=first)]
        )
        listing = json.loads(result.output)
        self.assertEqual((listing["more"], listing["next"]), (True, first))
        result = self.run_tool(
            *("list", "--after", first, "--limit", "1", "--json"), answers=[page(listed(last))]
        )
        listing = json.loads(result.output)
        self.assertEqual((listing["more"], listing["next"]), (False, None))
        self.assertEqual(
            [request for request, _ in self.requests],
            ["GET /v1/queue?limit=1", f"GET /v1/queue?limit=1&after={first}"],
        )

    def test_ids_behind_the_limit_are_not_called_missing(self) -> None:
        first, last = "0" * 13, ID
        result = self.run_tool(
            *("list", first, last, "--limit", "1", "--json"),
            answers=[page(listed(first), following=first)],
        )
        self.assertEqual(result.exit_code, 0, result.output)
        result = self.run_tool("list", first, last, "--after", first, answers=[page(listed(last))])
        self.assertEqual(result.exit_code, 0, result.output)

    def test_what_is_no_id_to_continue_behind_is_a_wrong_command_line(self) -> None:
        self.assertEqual(self.run_tool("list", "--after", "x\x1b").exit_code, 2)

    def test_an_id_that_is_not_found_is_named(self) -> None:
        result = self.run_tool("list", ID, answers=[page()])
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"{ID} is not in the queue", result.output)

    def test_a_summary_shortens_a_long_reason_on_a_terminal_alone(self) -> None:
        suspended = {
            "destination": "far.example",
            "since": 0.0,
            "until": None,
            "reason": "they move " * 20,
            "by": "ann",
            "waiting": 2,
        }
        answer = {
            "version": 1,
            "groups": [],
            "others": None,
            "missing": [],
            "suspended": [suspended],
        }
        start = "far.example is suspended by the operator until it is resumed: they move they"
        for is_terminal in (False, True):
            stderr = SimpleNamespace(isatty=lambda value=is_terminal: value)
            self.patch(summary, "sys", SimpleNamespace(stdout=sys.stdout, stderr=stderr))
            line = self.run_tool("summary", answers=[answer]).output.splitlines()[-1]
            self.assertTrue(line.startswith(start) and line.endswith(" (2 waiting)"), line)
            self.assertEqual(len(line) < 140, is_terminal, line)

    def test_a_part_of_the_queue_that_was_not_asked_is_named(self) -> None:
        missing = [{"shard": 1, "why": "it is gone\x1b"}]
        result = self.run_tool("list", answers=[page(missing=missing)])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("was not asked: it is gone\\x1b", result.output)

    def test_a_refusal_shows_the_reason(self) -> None:
        result = self.run_tool("list", answers=[(400, {"error": "no filter"})])
        self.assertEqual((result.exit_code, result.output), (1, "twisted-mta: no filter\n"))

    def test_a_command_without_an_mta_exits_with_3(self) -> None:
        self.assertEqual(self.run_tool("list").exit_code, 3)


class Showing(QueueCommandTestCase):
    def test_control_characters_are_escaped(self) -> None:
        message = {
            **listed(parameters={"NOTIFY": "NEVER"}),
            "expires_at": NOW + 100,
            "parameters": {"BODY": "8BITMIME", "SMTPUTF8": None},
            "quarantine": None,
            "assessment": {
                "verdicts": [{"policy": "spf", "result": "fail", "text": "evil.example\x1b"}],
                "quarantine": "dmarc=fail\x1b",
                "signs": True,
            },
            "attempts": [
                {
                    "recipient": 0,
                    "attempt": 3,
                    "ended_at": NOW,
                    "next_hop": "smtp:evil.example",
                    "reply": "450 \x1b",
                    "remote": None,
                    "tls": "TLSv1.3",
                    "transcript": "C: RCPT TO:<eve@evil.example>\nS: 450 \x1b[2J",
                }
            ],
            "header": [["Subject", "Hello\x1b[2J"]],
            "header_truncated": False,
        }
        result = self.run_tool("show", ID, answers=[{"version": 1, "message": message}])
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertNotIn("\x1b", result.output)
        for line in (
            "parameters: BODY=8BITMIME SMTPUTF8",
            "junk: dmarc=fail\\x1b",
            "signed: at delivery, if there is a key for the domain of From",
            "spf\tfail\tevil.example\\x1b",
            "Subject\tHello\\x1b[2J",
            "C: RCPT TO:<eve@evil.example>",
            "S: 450 \\x1b[2J",
        ):
            self.assertIn(line, result.output.splitlines())
        self.assertIn("NOTIFY=NEVER", result.output)
        self.assertEqual(self.requests[0][0], f"GET /v1/queue/{ID}")

    def test_body_with_json_is_a_usage_error(self) -> None:
        self.assertEqual(self.run_tool("show", ID, "--body", "--json").exit_code, 2)


class Acting(QueueCommandTestCase):
    def test_a_long_action_is_requested_part_by_part(self) -> None:
        result = self.run_tool(
            *("hold", "--domain", "example.net"),
            answers=[done(2000, next=f"0.{ID}"), done(5, busy=2, elsewhere=3)],
        )
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(
            result.output,
            "held: 2,005 recipients of 2,005 messages\n"
            "in delivery now: 2; held when that ends, unless it delivers them\n"
            "leased by another machine: 3; held when that ends, unless it delivers them\n",
        )
        wish = {"domain": "example.net", "dry_run": False, "limit": 2000}
        self.assertEqual(
            self.requests,
            [
                ("POST /v1/queue/hold", {**wish, "after": None}),
                ("POST /v1/queue/hold", {**wish, "after": f"0.{ID}"}),
            ],
        )

    def test_ids_in_the_queue_are_acted_on_and_the_others_are_named(self) -> None:
        other = "1" * 13
        result = self.run_tool("remove", ID, other, answers=[page(listed()), done(1)])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("removed: 1 recipient of 1 message\n", result.output)
        self.assertIn(f"{other} is not in the queue", result.output)
        self.assertEqual(self.requests[1][1]["ids"], [ID])

    def test_json_has_counts_and_missing_parts(self) -> None:
        result = self.run_tool("retry", "--all", "--dry-run", "--json", answers=[done(3)])
        counts = json.loads(result.output)
        self.assertEqual(
            (counts["recipients"], counts["dry_run"], counts["missing"]), (3, True, [])
        )
        self.assertTrue(self.requests[0][1]["all"])

    def test_on_a_terminal_a_removal_without_ids_is_confirmed_unless_yes_is_said(self) -> None:
        terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True), stderr=sys.stderr)
        self.patch(actions, "sys", terminal)
        for words, text, dry_runs in (
            (("--all",), "n\n", [True]),
            (("--all",), "y\n", [True, False]),
            (("--all", "--yes"), None, [False]),
            (("--all", "--dry-run"), None, [True]),
        ):
            self.requests.clear()
            result = self.run_tool("remove", *words, answers=[done(3)] * len(dry_runs), text=text)
            self.assertEqual([body["dry_run"] for _, body in self.requests], dry_runs, words)
            asked = "Remove 3 recipients of 3 messages for good?" in result.output
            self.assertEqual(asked, text is not None, result.output)
            self.assertEqual(result.exit_code, text == "n\n")

    def test_an_action_without_a_selection_is_a_usage_error(self) -> None:
        for words in (("remove",), ("hold", "--all", ID), ("retry", "x")):
            self.assertEqual(self.run_tool(*words).exit_code, 2, words)
        self.assertEqual(self.requests, [])
