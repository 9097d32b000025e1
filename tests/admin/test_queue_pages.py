"""The pages of the queue: the list, its search and its pages, and one message."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.admin.test_web import PageTestCase
from twisted_mta.admin.http import Request, Response, error_response, json_response
from twisted_mta.admin.web.page import View
from twisted_mta.admin.web.queue_pages import QueuePages

NOW = 1_790_000_000.0
EVIL = "<script>alert('1')</script>\x1b[2J\u202e"


def recipient(number: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "number": number,
        "address": f"bob{number}@example.net",
        "original": None,
        "state": "deferred",
        "in_delivery": False,
        "waiting": False,
        "elsewhere": False,
        "expected_at": None,
        "removing": False,
        "held_at": None,
        "attempts": 1,
        "next_attempt": NOW + 60,
        "last": {"reply": "450 4.2.0 Later", "remote": "mx.example.net", "classification": None},
        "suspended": None,
        "parameters": {"NOTIFY": "NEVER"},
        **other,
    }


def message(id: str = "1M81ARNJN5BHJ", **other: Any) -> dict[str, Any]:
    return {
        "id": id,
        "received_at": NOW,
        "expires_at": NOW + 432_000,
        "reverse_path": "ann@sender.example",
        "parameters": {"SIZE": "100"},
        "size": 2048,
        "quarantine": None,
        "assessment": {},
        "recipients": [recipient()],
        "attempts": [],
        **other,
    }


def attempt(**other: Any) -> dict[str, Any]:
    return {
        "recipient": 0,
        "attempt": 1,
        "ended_at": NOW + 1,
        "next_hop": "smtp:example.net",
        "remote": "mx.example.net",
        "reply": "450 4.2.0 Later",
        "tls": "TLSv1.3",
        "transcript": None,
        **other,
    }


class QueuePagesTestCase(PageTestCase):
    def setUp(self) -> None:
        self.asked: list[Request] = []
        self.messages: list[dict[str, Any]] = [message()]
        self.following: str | None = None
        self.explanation: Response | Deferred[Response] = error_response("not now", 503)
        self.clock = Clock()
        self.answer = self.api
        self.pages = QueuePages(self.api, clock=self.clock)

    def api(self, request: Request) -> Response | Deferred[Response]:
        self.asked.append(request)
        if request.path == "/v1/queue":
            if "bad" in request.query:
                return error_response(f"domain: {EVIL}", 400)
            page = {"messages": self.messages, "next": self.following, "missing": []}
            return Response(body=json.dumps(page).encode("ascii"))
        if request.path.startswith("/v1/explain/"):
            return self.explanation
        for each in self.messages:
            if request.path == f"/v1/queue/{each['id']}":
                return json_response({"message": each})
        return error_response("it is not in the queue", 404)

    def show(self, path: str, query: str = "") -> Response:
        answered = self.pages.answer(
            Request(method="GET", path=path, query=query), View(queue=True)
        )
        assert isinstance(answered, Deferred)
        return self.successResultOf(answered)

    def text(self, path: str, query: str = "") -> str:
        return self.show(path, query).body.decode()


class List(QueuePagesTestCase):
    def test_the_list_has_a_row_for_each_recipient(self) -> None:
        self.messages = [message(recipients=[recipient(0), recipient(1, state="held")])]
        body = self.text("/queue").replace("<wbr />", "")  # where an address may break
        for text in (
            '<a href="/queue/1M81ARNJN5BHJ">',
            "bob0@example.net",
            "bob1@example.net",
            '<span class="held">held</span>',
            "mx.example.net: 450 4.2.0 Later",
        ):
            self.assertIn(text, body)

    def test_an_address_of_two_lines_breaks_behind_its_at_sign(self) -> None:
        self.messages = [message(recipients=[recipient(0)])]
        self.assertIn("bob0@<wbr />example.net", self.text("/queue"))

    def test_a_search_is_that_of_the_api_and_stays_in_the_form(self) -> None:
        body = self.text("/queue", "to=bob*&from=&domain=example.net&state=held&older=86400&x=1")
        self.assertEqual(
            parse_qs(self.asked[0].query),
            {
                "to": ["bob*"],
                "domain": ["example.net"],
                "state": ["held"],
                "older": ["86400"],
                "limit": ["50"],
            },
        )
        self.assertIn('name="to" value="bob*"', body)
        self.assertIn('<option value="held" selected="">', body)

    def test_the_next_page_keeps_the_search(self) -> None:
        self.following = "1M81ARNJN5BHJ"
        body = self.text("/queue", "domain=a.example")
        self.assertIn('href="/queue?domain=a.example&amp;after=1M81ARNJN5BHJ" rel="next"', body)
        self.assertNotIn("First page", body)
        self.following = None
        body = self.text("/queue", "domain=a.example&after=1M81ARNJN5BHJ")
        self.assertIn('<a href="/queue?domain=a.example">First page</a>', body)
        self.assertNotIn("Next page", body)

    def test_an_empty_list_says_so(self) -> None:
        self.messages = []
        self.assertIn("The queue is empty.", self.text("/queue"))
        self.assertIn("No message matches.", self.text("/queue", "domain=a.example"))
        self.following = "1M81ARNJN5BHJ"
        self.assertIn("the next page continues", self.text("/queue", "domain=a.example"))

    def test_a_search_that_cannot_be_read_is_said(self) -> None:
        answer = self.show("/queue", "domain=bad")
        self.assertEqual(answer.code, 400)
        self.assertIn('role="alert">domain: &lt;script&gt;', answer.body.decode())

    def test_many_recipients_of_a_message_are_cut_short(self) -> None:
        self.messages = [message(recipients=[recipient(each) for each in range(500)])]
        body = self.text("/queue")
        self.assertIn("and 480 more", body)
        self.assertNotIn("bob20@", body)


class OneMessage(QueuePagesTestCase):
    def test_envelope_recipients_and_attempts_are_shown(self) -> None:
        self.messages = [message(attempts=[attempt()])]
        body = self.text("/queue/1M81ARNJN5BHJ")
        for text in ("ann@sender.example", "SIZE=100", "NOTIFY=NEVER", "TLSv1.3", "2.0 KiB"):
            self.assertIn(text, body)
        self.assertNotIn("Header section", body)

    def test_the_explanation_is_shown_if_it_comes_in_time(self) -> None:
        facts = {
            "id": "1M81ARNJN5BHJ",
            "now": NOW,
            "reverse_path": None,
            "size": 1,
            "received_at": NOW,
            "recipients": [],
        }
        self.explanation = json_response(facts)
        self.assertIn("1M81ARNJN5BHJ: from &lt;&gt;, 1 octets", self.text("/queue/1M81ARNJN5BHJ"))
        self.explanation = Deferred()
        answered = self.pages.answer(
            Request(method="GET", path="/queue/1M81ARNJN5BHJ"), View(queue=True)
        )
        assert isinstance(answered, Deferred)
        self.assertNoResult(answered)
        self.clock.advance(3.1)
        body = self.successResultOf(answered).body.decode()
        self.assertIn("see twisted-mta explain 1M81ARNJN5BHJ", body)

    def test_contents_are_shown_where_the_api_gives_them(self) -> None:
        given = message(
            attempts=[attempt(transcript="S: 220 hello\nC: EHLO me"), attempt(recipient=1)],
            header=[["Subject", "Good\x07 morning"]],
        )
        self.messages = [given]
        body = self.text("/queue/1M81ARNJN5BHJ")
        self.assertIn("S: 220 hello\nC: EHLO me", body)
        self.assertIn(r"Good\x07 morning", body)

    def test_a_message_that_is_gone_is_404(self) -> None:
        for path in ("/queue/1M81ARNJN5BHK", "/queue/1M81ARNJN5BHJ/body", "/queue/../x"):
            answer = self.show(path)
            self.assertEqual(answer.code, 404, path)
            self.assertIn("No such message", answer.body.decode())

    def test_texts_of_peers_are_escaped(self) -> None:
        evil = recipient(
            address=EVIL,
            original=EVIL,
            state=EVIL,
            last={"reply": EVIL, "remote": EVIL},
            parameters={EVIL: EVIL},
        )
        self.messages = [
            message(
                reverse_path=EVIL,
                parameters={EVIL: EVIL},
                quarantine=EVIL,
                assessment={
                    "hold": EVIL,
                    "verdicts": [{"policy": EVIL, "result": EVIL, "text": EVIL}],
                },
                recipients=[evil],
                attempts=[attempt(next_hop=EVIL, reply=EVIL, remote=EVIL, transcript=EVIL)],
                header=[[EVIL, EVIL]],
            )
        ]
        for path in ("/queue", "/queue/1M81ARNJN5BHJ"):
            body = self.text(path, "to=%22%3E%3Cscript%3E")
            self.assertEqual(body.count("<script"), 1, path)  # ours
            self.assertNotIn("\x1b", body)
            self.assertNotIn("\u202e", body)
        body = self.text("/queue", "to=%22%3E%3Cscript%3E")
        self.assertIn('value="&quot;&gt;&lt;script&gt;"', body)


class Served(QueuePagesTestCase):
    def test_the_site_serves_them_to_anybody_without_contents(self) -> None:
        page = self.ask("/queue?domain=a.example")
        self.assertEqual(
            (page.code, page.headers["content-type"]), (200, "text/html; charset=utf-8")
        )
        self.assertIn("script-src 'self'", page.headers["content-security-policy"])
        self.assertTrue(self.asked[0].public)
        self.assertEqual(self.ask("/queue/1M81ARNJN5BHJ").code, 200)
        self.assertEqual(self.ask("/queue", method="POST").code, 405)
        self.assertEqual(self.ask("/queue", host="evil.example").code, 421)
        self.assertEqual(self.ask("/queues").code, 404)

    def test_script_and_icon_are_files_of_the_site(self) -> None:
        for path, kind in (("/page.js", "text/javascript"), ("/icon.svg", "image/svg+xml")):
            answer = self.ask(path)
            self.assertEqual((answer.code, answer.headers["content-type"]), (200, kind))
            self.assertIn("max-age", answer.headers["cache-control"])
            self.assertEqual(self.ask(path, method="POST").code, 404)
