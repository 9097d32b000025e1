"""The page of a capture server: what came, in HTML and in JSON, with all of it escaped."""

from __future__ import annotations

import json
import re
from email.message import EmailMessage
from typing import Any
from urllib.parse import quote

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from tests.admin.test_web import STATUS, RawResponse
from tests.tidy import TidyTestCase
from twisted_mta.admin.captured_mail import CapturedMail
from twisted_mta.admin.web.captured_pages import CapturedPages
from twisted_mta.admin.web.site import StatusSite
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles

ROOT = "/maildir"
EVIL = "<script>alert('1')</script>\"&\N{RIGHT-TO-LEFT OVERRIDE}"


def mail(subject: str = "Hi", *, html: str = "", attachment: str = "") -> bytes:
    message = EmailMessage()
    message["From"] = "Ann <ann@sender.test>"
    message["Subject"] = subject
    message.set_content("Please see https://app.test/confirm/1.\n")
    if html:
        message.add_alternative(html, subtype="html")
    if attachment:
        message.add_attachment(b"\0\1", maintype="image", subtype="svg+xml", filename=attachment)
    return message.as_bytes()


class Captured(TidyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.files = UnsyncedFiles()
        self.count = 0

    def deliver(self, recipient: str, raw: bytes, sender: str = "ann@sender.test") -> None:
        local_part, _, domain = recipient.partition("@")
        new = f"{ROOT}/{domain}/{local_part}/new"
        self.files.make_directories(new)
        self.count += 1
        file = self.files.create(f"{new}/{1_790_000_000 + self.count}.M5P1Q1.mta.example")
        file.write(f"Return-Path: <{sender}>\nDelivered-To: {recipient}\n".encode() + raw)
        file.close()

    def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "127.0.0.1:8025",
        origin: str = "",
    ) -> RawResponse:
        return RawResponse(b"".join(self.writes(path, method=method, host=host, origin=origin)))

    def writes(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        host: str = "127.0.0.1:8025",
        origin: str = "",
    ) -> list[bytes]:
        pages = CapturedPages(CapturedMail(ROOT, self.files), inline_executor)
        site: Any = StatusSite(lambda: STATUS, captured=pages, reactor=Clock())
        connection = site.buildProtocol(None)
        transport = StringTransport()
        written: list[bytes] = []
        transport.write = written.append  # type: ignore[method-assign,assignment]
        transport.writeSequence = written.extend  # type: ignore[method-assign,assignment]
        connection.makeConnection(transport)
        field = f"Origin: {origin}\r\n" if origin else ""
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{field}Connection: close\r\n\r\n"
        connection.dataReceived(request.encode("ascii"))
        return written

    def json(self, path: str, *, method: str = "GET") -> Any:
        return json.loads(self.ask(path, method=method).body)

    def only(self) -> str:
        """Return the id of the only message."""
        (message,) = self.json("/v1/captured")["messages"]
        found: str = message["id"]
        return found

    # What came.

    def test_the_page_lists_what_came_the_newest_first(self) -> None:
        self.assertIn("None yet.", self.ask().body)
        self.deliver("bob@user.test", mail("One"))
        self.deliver("eve@elsewhere.example", mail("Two"), sender="")
        page = self.ask().body
        self.assertEqual(re.findall(r">(One|Two)</a>", page), ["Two", "One"])
        for text in ("bob@user.test", "ann@sender.test", "&lt;&gt;", "2026-09-21"):
            self.assertIn(text, page)

    def test_a_message_shows_its_parts(self) -> None:
        self.deliver("bob@user.test", mail("Hi", html="<b>Hi</b>", attachment="a.svg"))
        id = self.only()
        page = self.ask(f"/captured/{id}").body
        for text in (
            "<h1>Hi</h1>",
            "Ann &lt;ann@sender.test&gt;",
            "<pre>Please see https://app.test/confirm/1.\n</pre>",
            f'<iframe src="/captured/{id}/html" sandbox=""></iframe>',
            f'<a href="/captured/{id}/attachments/1">a.svg</a>',
            f'<a href="/captured/{id}/raw">Raw</a>',
        ):
            self.assertIn(text, page)

    def test_the_status_is_on_a_page_of_its_own(self) -> None:
        self.assertIn('href="/status"', self.ask().body)
        self.assertIn("<h1>mail.example.net</h1>", self.ask("/status").body)
        self.assertEqual(self.ask("/healthz").body, "ok\n")

    # JSON.

    def test_a_test_lists_reads_and_removes_messages(self) -> None:
        self.deliver("bob@user.test", mail("One", html='<a href="https://app.test/2">2</a>'))
        self.deliver("eve@user.test", mail("Two"))
        (found,) = self.json("/v1/captured?recipient=" + quote("Bob@user.test"))["messages"]
        self.assertEqual(
            {name: found[name] for name in ("sender", "to", "subject", "received_at")},
            {
                "sender": "ann@sender.test",
                "to": ["bob@user.test"],
                "subject": "One",
                "received_at": 1_790_000_001.000005,
            },
        )
        whole = self.json(f"/v1/captured/{found['id']}")
        self.assertEqual(whole["text"], "Please see https://app.test/confirm/1.\n")
        self.assertEqual(whole["links"], ["https://app.test/2", "https://app.test/confirm/1"])
        self.assertIn("Subject: One", self.ask(whole["raw"]).body)
        self.assertEqual(self.json("/v1/captured", method="DELETE"), {"deleted": 2})
        self.assertEqual(self.json("/v1/captured"), {"messages": []})
        self.assertEqual(self.ask(f"/v1/captured/{found['id']}").code, 404)

    def test_a_long_text_is_cut(self) -> None:
        self.deliver("bob@user.test", b"\n" + b"x" * 79 * 20_000)
        text = self.json(f"/v1/captured/{self.only()}")["text"]
        self.assertGreaterEqual(len(text), 512 * 1024)
        self.assertLess(len(text), 600 * 1024)

    # What strangers wrote.

    def test_texts_of_strangers_are_escaped(self) -> None:
        self.deliver("bob@user.test", mail(EVIL, attachment=EVIL), sender="<script>@x")
        pages = [self.ask().body, self.ask(f"/captured/{self.only()}").body]
        for page in pages:
            self.assertNotIn("<script", page)
            self.assertNotIn("\N{RIGHT-TO-LEFT OVERRIDE}", page)
            self.assertIn("&lt;script&gt;alert", page)

    def test_html_of_strangers_is_in_a_sandbox(self) -> None:
        self.deliver("bob@user.test", mail(html="<script>alert(1)</script>"))
        page = self.ask(f"/captured/{self.only()}/html")
        self.assertIn("<script>", page.body)
        policy = page.headers["content-security-policy"]
        self.assertTrue(policy.startswith("sandbox; default-src 'none'; "), policy)
        self.assertNotIn("script", policy)
        self.assertEqual(page.headers["x-content-type-options"], "nosniff")

    def test_other_pages_run_no_script_and_are_in_no_frame(self) -> None:
        self.deliver("bob@user.test", mail())
        for path in ("/", f"/captured/{self.only()}", f"/captured/{self.only()}/raw"):
            policy = self.ask(path).headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("script-src", policy)

    def test_an_attachment_is_saved_and_never_shown(self) -> None:
        self.deliver("bob@user.test", mail(attachment='ä"; x=1.svg'))
        answer = self.ask(f"/captured/{self.only()}/attachments/1")
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertRegex(
            answer.headers["content-disposition"], r"\Aattachment; filename\*=UTF-8''[\w.%-]+\Z"
        )
        self.assertEqual(answer.body, "\0\1")
        self.assertEqual(self.ask(f"/captured/{self.only()}/attachments/2").code, 404)

    def test_raw_is_plain_text(self) -> None:
        self.deliver("bob@user.test", b"\n<script>alert(1)</script>\n")
        answer = self.ask(f"/captured/{self.only()}/raw")
        self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")

    def test_long_contents_are_sent_in_pieces(self) -> None:
        message = EmailMessage()
        message.set_content("line\n" * 40_000)
        message.add_attachment(bytes(200_000), maintype="image", subtype="png", filename="a.png")
        self.deliver("bob@user.test", message.as_bytes())
        id = self.only()
        writes = self.writes(f"/captured/{id}/raw")
        self.assertGreater(len(writes), 4)
        self.assertLess(max(map(len, writes)), 100_000)
        raw = self.ask(f"/captured/{id}/raw")
        self.assertEqual(int(raw.headers["content-length"]), len(raw.body))
        self.assertTrue(raw.body.endswith(message.as_bytes().decode("ascii")))
        attachment = self.ask(f"/captured/{id}/attachments/1")
        self.assertEqual(attachment.headers["content-length"], "200000")
        self.assertEqual(attachment.body, "\0" * 200_000)

    # What strangers ask.

    def test_other_names_and_other_sites_get_nothing(self) -> None:
        self.deliver("bob@user.test", mail())
        self.assertEqual(self.ask(host="evil.example").code, 421)
        refused = self.ask("/v1/captured", method="DELETE", origin="https://evil.example")
        self.assertEqual(refused.code, 403)
        self.assertEqual(len(self.json("/v1/captured")["messages"]), 1)

    def test_only_the_list_can_be_deleted(self) -> None:
        self.deliver("bob@user.test", mail())
        for path in ("/", f"/captured/{self.only()}", f"/v1/captured/{self.only()}"):
            self.assertEqual(self.ask(path, method="DELETE").code, 405)
        self.assertEqual(self.ask("/v1/captured", method="POST").code, 405)

    def test_a_path_is_no_id(self) -> None:
        self.files.make_directories("/etc")
        for path in ("/captured/../../etc/passwd", "/captured/" + "0" * 24, "/captured/x"):
            self.assertEqual(self.ask(path).code, 404)

    def test_a_server_of_another_kind_has_none_of_it(self) -> None:
        site: Any = StatusSite(lambda: STATUS, reactor=Clock())
        for request in (b"GET /v1/captured", b"DELETE /v1/captured"):
            connection = site.buildProtocol(None)
            connection.makeConnection(transport := StringTransport())
            connection.dataReceived(request + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            self.assertEqual(RawResponse(transport.value()).code, 404)
