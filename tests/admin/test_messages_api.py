"""Mail over HTTP: what is taken, what is refused and how, and keys of repeated requests."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from io import BytesIO
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed

from tests.tidy import TidyTestCase
from twisted_mta.admin.grant import SUBMIT, Grant
from twisted_mta.admin.http import Request, Response
from twisted_mta.admin.idempotency import LIFETIME, IdempotencyKeys
from twisted_mta.admin.messages_api import LONGEST_JSON, MessagesAPI
from twisted_mta.mail.reply import Reply
from twisted_mta.server.application_mail import LimitReached, Receipt, SubmissionRefused
from twisted_mta.system.executors import inline_executor

ENVELOPE = "sender=a%40x.example&recipient=b%40x.example&recipient=c%2Bd%40x.example"
GRANT = Grant(name="billing", scopes=frozenset((SUBMIT,)))
GOOD = {"from": "ann@x.example", "to": ["bob@x.example"]}


class MessagesTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.now = 1_790_000_000.0
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.taken: list[Any] = []
        self.outcome: Callable[[], Deferred[Receipt]] = lambda: succeed(
            Receipt(f"ID{len(self.taken)}")
        )
        self.restart()

    def restart(self) -> None:
        keys = IdempotencyKeys(
            os.path.join(self.directory, "keys", "keys.sqlite"), lambda: self.now
        )
        self.api = MessagesAPI(self.submit, keys=keys, executor=inline_executor)

    def submit(self, message: Any, **envelope: Any) -> Deferred[Receipt]:
        octets = message.read() if hasattr(message, "read") else message
        self.taken.append((octets, envelope))
        return self.outcome()

    def pending(
        self,
        body: bytes,
        query: str = "",
        kind: str = "application/json",
        key: str = "",
        grant: Grant = GRANT,
        **more: Any,
    ) -> Response | Deferred[Response]:
        fields = {"content-type": (kind,), **({"idempotency-key": (key,)} if key else {})}
        request = Request(
            method="POST", path="/v1/messages", query=query, fields=fields, body=body, grant=grant
        )
        return self.api.answer(evolve(request, **more))

    def post(self, *arguments: Any, **named: Any) -> tuple[int, Any]:
        answer = self.pending(*arguments, **named)
        response = self.successResultOf(answer) if isinstance(answer, Deferred) else answer
        self.headers = response.headers
        return response.code, json.loads(response.body)

    def json(self, **fields: Any) -> tuple[int, Any]:
        return self.post(json.dumps({**GOOD, **fields}).encode())


class Whole(MessagesTestCase):
    """Messages as ``message/rfc822``."""

    def test_it_is_queued_for_its_envelope_and_the_account_of_the_token(self) -> None:
        code, answer = self.post(b"Subject: x\r\n\r\ny\r\n", ENVELOPE, "message/rfc822; a=b")
        self.assertEqual((code, answer["id"]), (202, "ID1"))
        octets, envelope = self.taken[0]
        self.assertEqual(octets, b"Subject: x\r\n\r\ny\r\n")
        self.assertEqual(
            envelope,
            {
                "sender": "a@x.example",
                "recipients": ["b@x.example", "c+d@x.example"],
                "account": "billing",
            },
        )

    def test_a_long_one_is_read_from_its_file(self) -> None:
        self.post(b"", ENVELOPE, "message/rfc822", file=BytesIO(b"x" * 3_000_000), key="k")
        self.assertEqual(len(self.taken[0][0]), 3_000_000)

    def test_the_null_reverse_path_is_empty(self) -> None:
        self.assertEqual(self.post(b"x", "sender=&recipient=b@x", "message/rfc822")[0], 202)
        self.assertEqual(self.taken[0][1]["sender"], "")

    def test_an_envelope_that_is_not_whole_is_refused(self) -> None:
        for query in (
            "",
            "sender=a@x",
            "recipient=b@x",
            "sender=a@x&sender=b@x&recipient=c@x",
            f"{ENVELOPE}&hold=1",
            f"{ENVELOPE}&%ff=1",
            "sender=%ff&recipient=b@x",
            "&&&",
            "sender=a@x" + "&recipient=b@x" * 1_001,
        ):
            self.assertEqual(self.post(b"x", query, "message/rfc822")[0], 400, query[:60])
        self.assertEqual(self.taken, [])

    def test_another_type_is_refused(self) -> None:
        for kind in ("", "text/plain", "message/rfc822x", "multipart/form-data"):
            self.assertEqual(self.post(b"x", ENVELOPE, kind)[0], 415, kind)


class Refusals(MessagesTestCase):
    def answered(self, error: Exception) -> tuple[int, Any]:
        self.outcome = lambda: fail(error)
        return self.post(b"x", ENVELOPE, "message/rfc822")

    def test_what_is_refused_for_good_is_422_with_the_reason_for_each_recipient(self) -> None:
        reply = Reply.of(550, "1.1", "No such mailbox here")
        code, answer = self.answered(SubmissionRefused(reply, {"b@x.example": reply}))
        self.assertEqual(code, 422)
        self.assertEqual(answer["reply"], str(reply))
        self.assertEqual(answer["recipients"], {"b@x.example": str(reply)})

    def test_what_is_refused_for_now_is_503_and_a_limit_429(self) -> None:
        reply = Reply.of(450, "7.1", "Too many messages")
        for error, expected in ((SubmissionRefused, 503), (LimitReached, 429)):
            self.assertEqual(self.answered(error(reply))[0], expected)
            self.assertEqual(self.headers["Retry-After"], "60")

    def test_an_agent_that_has_not_started_is_503_and_a_bad_address_422(self) -> None:
        self.assertEqual(self.answered(RuntimeError("submit: expected"))[0], 503)
        self.assertEqual(self.answered(ValueError("found nonsense"))[0], 422)


class Fields(MessagesTestCase):
    """Messages as fields of JSON."""

    def message(self) -> EmailMessage:
        message: Any = message_from_bytes(self.taken[-1][0].as_bytes(), policy=policy.default)
        return message  # type: ignore[no-any-return]

    def test_a_message_is_made_of_them(self) -> None:
        code, _ = self.json(
            **{"from": "Änn <ann@x.example>"},
            to=["bob@x.example", {"address": "carl@x.example", "name": "Carl, Jr."}],
            cc="dora@x.example",
            bcc=["eve@x.example", "bob@x.example"],
            reply_to="desk@x.example",
            subject="Grüße",
            text="hällo",
            html="<p>hällo</p>",
            headers={"In-Reply-To": "<1@x.example>", "X-Campaign": "7"},
            attachments=[
                {
                    "filename": "ü.pdf",
                    "content_type": "application/pdf",
                    "content": b64encode(b"%PDF").decode(),
                }
            ],
        )
        self.assertEqual(code, 202)
        message = self.message()
        self.assertEqual(message["From"].addresses[0].display_name, "Änn")
        self.assertEqual(message["To"].addresses[1].display_name, "Carl, Jr.")
        self.assertEqual((message["Subject"], message["X-Campaign"]), ("Grüße", "7"))
        self.assertIsNone(message["Bcc"])
        body: Any = message.get_body(("plain",))
        self.assertEqual(body.get_content().strip(), "hällo")
        (attached,) = message.iter_attachments()
        self.assertEqual((attached.get_filename(), attached.get_content()), ("ü.pdf", b"%PDF"))
        self.assertEqual(self.taken[0][1]["sender"], "ann@x.example")
        self.assertEqual(
            self.taken[0][1]["recipients"],
            ["bob@x.example", "carl@x.example", "dora@x.example", "eve@x.example"],
        )

    def test_no_field_brings_in_another_one(self) -> None:
        evil = "x\r\nBcc: victim@x.example"
        for fields in (
            {"subject": evil},
            {"subject": "x\nBcc: y"},
            {"subject": "x\x85Bcc: v@x.example"},
            {"subject": "x\u2028Bcc: v@x.example"},
            {"subject": "x\u2029"},
            {"headers": {"X-A": "x\u2028Bcc: v@x.example"}},
            {"from": {"address": "ann@x.example", "name": "x\u2028Bcc: v@x.example"}},
            {"from": f'"{evil}" <ann@x.example>'},
            {"from": {"address": "ann@x.example", "name": evil}},
            {"from": "ann@x.example\r\nBcc: v@x.example"},
            {"to": [f"bob@x.example>{evil}"]},
            {"sender": "a@x.example>\r\nRCPT TO:<v@x.example"},
            {"headers": {"X-A": evil}},
            {"headers": {"X-A\r\nBcc": "v"}},
            {"headers": {"Bcc": "v@x.example"}},
            {"headers": {"Content-Type": "text/html"}},
            {"headers": {"Received": "x"}},
            {"headers": {"DKIM-Signature": "x"}},
            {"headers": {"X-A": "1", "x-a": "2"}},
            {"attachments": [{"filename": evil, "content": ""}]},
            {"attachments": [{"content_type": "text/plain\r\nX: y", "content": ""}]},
            {"attachments": [{"content_type": "message/rfc822", "content": ""}]},
        ):
            code, answer = self.json(**fields)
            self.assertEqual(code, 400, fields)
            self.assertNotIn("\n", answer["error"])
        self.assertEqual(self.taken, [])

    def test_what_is_no_message_is_refused_with_the_field(self) -> None:
        for fields, text in (
            ({"from": []}, "from:"),
            ({"from": None}, "from:"),
            ({"to": []}, "to:"),
            ({"to": ["bob"]}, "to:"),
            ({"to": [{"address": "b@x", "evil": 1}]}, "to:"),
            ({"to": ["b@x.example"] * 1_001}, "to:"),
            ({"subject": 1}, "subject:"),
            ({"subject": "x" * 2_001}, "subject:"),
            ({"subject": "\ud800"}, "subject:"),
            ({"text": ["a"]}, "text:"),
            ({"text": "\ud800"}, "text:"),
            ({"html": "a\0"}, "html:"),
            ({"headers": []}, "headers:"),
            ({"headers": {"X-A": None}}, "headers: X-A:"),
            ({"attachments": {}}, "attachments:"),
            ({"attachments": [{"content": "no base64!"}]}, "attachments[0]: content:"),
            ({"attachments": [{}]}, "attachments[0]: content:"),
            ({"attachments": [{"content": ""}] * 101}, "attachments:"),
            ({"unknown": 1}, "found unknown"),
        ):
            code, answer = self.json(**fields)
            self.assertEqual((code, answer["error"][: len(text)]), (400, text), fields)
        for octets in (b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":'):
            self.assertEqual(self.post(octets)[0], 400, octets[:20])
        self.assertEqual(self.post(b"", file=BytesIO(b" " * (LONGEST_JSON + 1)))[0], 400)
        self.assertEqual(self.taken, [])


class Keys(MessagesTestCase):
    """Requests that are repeated."""

    BODY = json.dumps(GOOD).encode()

    def test_a_repeated_request_has_the_answer_of_the_first_and_makes_no_message(self) -> None:
        first = self.post(self.BODY, key="k")
        self.assertNotIn("Idempotency-Replayed", self.headers)
        self.restart()
        self.assertEqual(self.post(self.BODY, key="k"), first)
        self.assertEqual(self.headers["Idempotency-Replayed"], "true")
        self.assertEqual(len(self.taken), 1)

    def test_another_message_with_the_same_key_is_refused(self) -> None:
        self.post(b"x", ENVELOPE, "message/rfc822", key="k")
        for body, query in ((b"y", ENVELOPE), (b"x", f"{ENVELOPE}&recipient=e@x.example")):
            self.assertEqual(self.post(body, query, "message/rfc822", key="k")[0], 422)
        self.assertEqual(len(self.taken), 1)

    def test_a_key_is_that_of_one_client_and_of_one_day(self) -> None:
        self.post(self.BODY, key="k")
        self.post(self.BODY, key="k", grant=evolve(GRANT, name="other"))
        self.assertEqual(len(self.taken), 2)
        self.now += LIFETIME
        self.post(self.BODY, key="k")
        self.assertEqual(len(self.taken), 3)

    def test_a_request_that_was_refused_may_be_tried_again(self) -> None:
        self.outcome = lambda: fail(SubmissionRefused(Reply.of(451, "3.2", "Later")))
        self.assertEqual(self.post(self.BODY, key="k")[0], 503)
        self.outcome = lambda: succeed(Receipt("ID"))
        self.assertEqual(self.post(self.BODY, key="k")[0], 202)

    def test_a_second_request_waits_for_the_end_of_the_first(self) -> None:
        commit: Deferred[Receipt] = Deferred()
        self.outcome = lambda: commit
        first: Any = self.pending(self.BODY, key="k")
        self.assertEqual(self.post(self.BODY, key="k")[0], 409)
        commit.callback(Receipt("ID"))
        self.assertEqual(self.successResultOf(first).code, 202)
        self.assertEqual(self.post(self.BODY, key="k")[0], 202)
        self.assertEqual(len(self.taken), 1)

    def test_a_key_that_is_too_long_or_not_visible_is_refused(self) -> None:
        for key in ("x" * 256, "a b", "\u00e9", "\t"):
            self.assertEqual(self.post(self.BODY, key=key)[0], 400, key)
        fields = {"idempotency-key": ("a", "b"), "content-type": ("application/json",)}
        self.assertEqual(self.post(self.BODY, fields=fields)[0], 400)
        self.assertEqual(self.taken, [])

    def test_a_disk_that_refuses_the_key_does_not_undo_the_message(self) -> None:
        def broken(*arguments: Any) -> None:
            raise OSError("no space")

        self.patch(IdempotencyKeys, "keep", broken)
        self.assertEqual(self.post(self.BODY, key="k")[0], 202)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
