"""An application hands messages to an agent (`MailTransferAgent.submit`)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.mime.text import MIMEText
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.policy.dkim.key_files import write_key
from tests.tidy import TidyTestCase
from twisted_mta import (
    Accepted,
    Delivered,
    Receipt,
    SubmissionRefused,
)
from twisted_mta import Deferred as DeferredEvent
from twisted_mta.config import DKIMKey, Listener
from twisted_mta.mail.address import Mailbox
from twisted_mta.server.application_submission import SubmissionReader
from twisted_mta.testing.memory_mta import EPOCH, MemoryMTA

PLAIN = b"From: app@localhost\r\nSubject: Hi\r\n\r\nHello.\r\n"
DAY = 86_400.0


def slow_reader(mta: MemoryMTA, read: Deferred[Any]) -> SubmissionReader:
    """Return a reader of submissions whose files wait for ``read``."""

    def executor(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        return read

    return evolve(mta.mta.agent.submissions, executor=executor)


class Submitting(TidyTestCase):
    def mta(self, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(**settings))

    def submit(
        self,
        mta: MemoryMTA,
        message: Any = PLAIN,
        recipients: Sequence[Any] = ("bob@localhost",),
        *,
        sender: Any = "app@localhost",
        **arguments: Any,
    ) -> Receipt:
        results = self.submitting(mta, message, recipients, sender=sender, **arguments)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        assert isinstance(results[0], Receipt)
        return results[0]

    def submitting(
        self,
        mta: MemoryMTA,
        message: Any = PLAIN,
        recipients: Sequence[Any] = ("bob@localhost",),
        *,
        sender: Any = "app@localhost",
        **arguments: Any,
    ) -> list[Receipt | Failure]:
        results: list[Receipt | Failure] = []
        submitted = mta.mta.submit(message, sender=sender, recipients=recipients, **arguments)
        submitted.addBoth(results.append)
        mta.reactor.settle()
        return results

    def queued(self, mta: MemoryMTA) -> int:
        return mta.mta.activity.accepted


class Messages(Submitting):
    def test_octets_arrive_with_a_trace_field_that_names_no_client(self) -> None:
        mta = self.mta()
        receipt = self.submit(mta)
        (mail,) = mta.mail("bob")
        lines = mail.split(b"\n")
        at = next(number for number, each in enumerate(lines) if each.startswith(b"Received:"))
        self.assertEqual(lines[at], b"Received: by mta.example id " + receipt.id.encode())
        self.assertTrue(lines[at + 1].startswith(b"\tfor <bob@localhost>; "))
        self.assertNotIn(b"with", lines[at] + lines[at + 1])
        self.assertTrue(mail.endswith(PLAIN.replace(b"\r\n", b"\n")))
        self.assertIn(b"Return-Path: <app@localhost>\n", mail)

    def test_missing_fields_are_added_and_present_ones_kept(self) -> None:
        mta = self.mta()
        receipt = self.submit(mta)
        self.submit(mta, b"Date: x\r\nMessage-ID: <1@app>\r\n" + PLAIN, ["eve@localhost"])
        (mail,) = mta.mail("bob")
        self.assertIn(f"Message-ID: <{receipt.id}@mta.example>\n".encode(), mail)
        self.assertEqual(mail.count(b"\nDate: "), 1)
        (mail,) = mta.mail("eve")
        self.assertEqual([mail.count(each) for each in (b"\nDate: ", b"\nMessage-ID: ")], [1, 1])

    def test_lines_may_end_in_lf_and_files_are_read_from_where_they_stand(self) -> None:
        mta = self.mta()
        file = io.BytesIO(b"skipped" + PLAIN.replace(b"\r\n", b"\n"))
        file.seek(len(b"skipped"))
        self.submit(mta, file)
        self.submit(mta, PLAIN.replace(b"\r\n", b"\n"), ["eve@localhost"])
        for name in ("bob", "eve"):
            (mail,) = mta.mail(name)
            self.assertTrue(mail.endswith(PLAIN.replace(b"\r\n", b"\n")))
        self.assertFalse(file.closed)

    def test_a_large_message_is_whole_wherever_its_pieces_end(self) -> None:
        mta = self.mta()
        body = b"".join(b"%07d 0123456789\r\n" % number for number in range(30_000))
        self.submit(mta, PLAIN + body)
        self.submit(mta, io.BytesIO(PLAIN + body), ["eve@localhost"])
        for name in ("bob", "eve"):
            (mail,) = mta.mail(name)
            self.assertTrue(mail.endswith((PLAIN + body).replace(b"\r\n", b"\n")))

    def test_a_message_object_is_sent_without_bcc_and_stays_as_it_is(self) -> None:
        mta = self.mta()
        message = EmailMessage()
        message["From"] = "app@localhost"
        message["Bcc"] = "eve@localhost"
        message["Subject"] = "Grüße"
        message.set_content("Hällo.\n")
        self.submit(mta, message)
        (mail,) = mta.mail("bob")
        self.assertNotIn(b"eve@", mail)
        self.assertIn(b"\nSubject: =?utf-8?", mail)
        self.assertEqual(message["Bcc"], "eve@localhost")

    def test_an_object_of_the_older_classes_is_taken_too(self) -> None:
        mta = self.mta()
        message = MIMEText("Hello.\n")
        message["Subject"] = "Old"
        self.submit(mta, message)
        (mail,) = mta.mail("bob")
        self.assertIn(b"\nSubject: Old\n", mail)

    def test_the_header_is_utf8_where_an_address_needs_it(self) -> None:
        mta = self.mta()
        message = EmailMessage()
        message["From"] = "jürgen@localhost"
        message["Subject"] = "Grüße"
        message.set_content("Hi.\n")
        self.submit(mta, message, sender="jürgen@localhost")
        (mail,) = mta.mail("bob")
        self.assertIn("\nFrom: jürgen@localhost\n".encode(), mail)
        self.assertIn("\nSubject: Grüße\n".encode(), mail)

    def test_another_type_is_a_type_error_and_nothing_is_stored(self) -> None:
        mta = self.mta()
        for wrong in ("From: a text", None, 7, io.StringIO("From: a text\n"), io.StringIO()):
            with self.assertRaises(TypeError) as caught:
                self.submit(mta, wrong)
            self.assertIn("message: found ", str(caught.exception))
        self.assertEqual(self.queued(mta), 0)

    def test_a_file_that_cannot_be_read_is_its_own_error(self) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell():
                    raise OSError("the disk is gone")
                return super().read(10)

        mta = self.mta()
        with self.assertRaisesRegex(OSError, "the disk is gone"):
            self.submit(mta, Broken(PLAIN))
        self.assertEqual(self.queued(mta), 0)
        self.assertEqual(mta.mail("bob"), [])

    def test_a_message_in_a_loop_is_refused(self) -> None:
        mta = self.mta()
        with self.assertRaises(SubmissionRefused) as caught:
            self.submit(mta, b"Received: from x by y\r\n" * 101 + PLAIN)
        self.assertEqual(caught.exception.reply.code, 554)
        self.assertEqual(caught.exception.recipients, {})
        self.assertEqual(self.queued(mta), 0)

    def test_a_message_over_the_limit_of_all_listeners_is_a_value_error(self) -> None:
        small = (Listener(endpoint="tcp:25:interface=127.0.0.1", max_message_size=1000),)
        mta = self.mta(listeners=small)
        limit = Listener(endpoint="tcp:0").max_message_size
        line = b"0123456789abcde\n"  # each of them grows by an octet
        self.submit(mta, PLAIN + line * 5000)
        for wrong in (b"x" * (limit + 1), PLAIN + line * (limit // 16 - 10)):
            for content in (wrong, io.BytesIO(wrong)):
                with self.assertRaisesRegex(ValueError, "message: found a content that is too la"):
                    self.submit(mta, content)
        self.assertEqual(self.queued(mta), 1)
        self.assertEqual([each for each in mta.files.tree() if "/body/" in each], [])

    def test_a_message_object_may_change_once_it_is_submitted(self) -> None:
        mta = self.mta()
        message = EmailMessage()
        message["Subject"] = "First"
        message.set_content("Hello.\n")
        held: Deferred[Any] = Deferred()
        executor = mta.mta.agent.submissions.executor

        def late(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
            return held.addCallback(lambda _: executor(function, *args, **kwargs))

        self.patch(mta.mta.agent, "submissions", evolve(mta.mta.agent.submissions, executor=late))
        recipients = ["bob@localhost"]
        submitted = mta.mta.submit(message, sender="", recipients=recipients)
        message.replace_header("Subject", "Second")
        message.set_content("Another.\n")
        recipients.append("eve@localhost")
        held.callback(None)
        mta.reactor.settle()
        self.successResultOf(submitted)
        (mail,) = mta.mail("bob")
        self.assertIn(b"\nSubject: First\n", mail)
        self.assertTrue(mail.endswith(b"\n\nHello.\n"))
        self.assertEqual(mta.mail("eve"), [])


class Envelopes(Submitting):
    def test_several_recipients_are_one_entry_of_the_queue(self) -> None:
        mta = self.mta()
        self.submit(mta, PLAIN, ["bob@localhost", Mailbox("eve", "localhost"), "bob@LOCALHOST"])
        self.assertEqual(self.queued(mta), 1)
        self.assertEqual([len(mta.mail("bob")), len(mta.mail("eve"))], [1, 1])
        self.assertNotIn(b"for <", mta.mail("bob")[0])

    def test_an_empty_sender_is_the_null_reverse_path(self) -> None:
        mta = self.mta()
        self.submit(mta, sender="")
        self.assertIn(b"Return-Path: <>\n", mta.mail("bob")[0])

    def test_what_is_no_envelope_is_an_error_that_names_it(self) -> None:
        mta = self.mta()
        wrong: list[tuple[type[Exception], str, dict[str, Any]]] = [
            (ValueError, "recipients: found none", {"recipients": []}),
            (ValueError, "recipients: found 'bob'", {"recipients": ["eve@localhost", "bob"]}),
            (ValueError, "recipients: found ''", {"recipients": [""]}),
            (TypeError, "recipients: found 'bob@localhost'", {"recipients": "bob@localhost"}),
            (TypeError, "recipients: found 7", {"recipients": [7]}),
            (TypeError, "recipients: found 7, expected a sequence", {"recipients": 7}),
            (TypeError, "recipients: found None", {"recipients": None}),
            (TypeError, "recipients: found b'bob@localhost'", {"recipients": b"bob@localhost"}),
            (TypeError, "recipients: found b'bob@localhost'", {"recipients": [b"bob@localhost"]}),
            (ValueError, "recipients: found", {"recipients": ["b\udce4b@localhost"]}),
            (ValueError, "recipients: found", {"recipients": ["bob@localhost\r\nDATA"]}),
            (ValueError, "recipients: found", {"recipients": ["<bob@localhost>"]}),
            (ValueError, "recipients: found", {"recipients": [Mailbox("b\r\nDATA", "localhost")]}),
            (ValueError, "recipients: found", {"recipients": [Mailbox("bob", "x> y")]}),
            (ValueError, "sender: found", {"sender": Mailbox("app", "")}),
            (TypeError, "sender: found b'a@b'", {"sender": b"a@b"}),
            (ValueError, "sender: found 'a b@c'", {"sender": "a b@c"}),
            (ValueError, "sender: found", {"sender": "a@b\r\nRCPT TO:<c@d>"}),
            (TypeError, "sender: found None", {"sender": None}),
            (ValueError, "notify: found 'SOON'", {"notify": "SOON"}),
            (ValueError, "notify: found", {"notify": ["NEVER", "DELAY"]}),
            (ValueError, "notify: found []", {"notify": []}),
            (TypeError, "notify: found [7]", {"notify": [7]}),
            (TypeError, "notify: found 7", {"notify": 7}),
            (ValueError, "hold_until: found", {"hold_until": EPOCH - 1}),
            (ValueError, "expected a time within 30 days", {"hold_until": EPOCH + 31 * DAY}),
            (ValueError, "hold_until: found nan", {"hold_until": float("nan")}),
            (ValueError, "hold_until: found inf", {"hold_until": float("inf")}),
            (ValueError, "expected a time within 30 days", {"hold_until": 10**400}),
            (TypeError, "hold_until: found True", {"hold_until": True}),
            (ValueError, "with a time zone", {"hold_until": datetime(2030, 1, 1)}),
            (TypeError, "hold_until: found 'soon'", {"hold_until": "soon"}),
        ]
        for kind, text, arguments in wrong:
            with self.assertRaises(kind) as caught:
                self.submit(mta, **arguments)
            self.assertIn(text, str(caught.exception))
        self.assertEqual(self.queued(mta), 0)

    def test_recipients_left_out_are_a_value_error(self) -> None:
        mta = self.mta()
        failure = self.failureResultOf(mta.mta.submit(PLAIN, sender=""), ValueError)
        self.assertIn("recipients: found none", failure.getErrorMessage())

    def test_unknown_mailboxes_of_ours_are_refused_by_name_and_nothing_is_stored(self) -> None:
        mta = self.mta(recipients="existing")
        with self.assertRaises(SubmissionRefused) as caught:
            self.submit(mta, PLAIN, ["postmaster@localhost", "no@localhost", "none@localhost"])
        refused = caught.exception.recipients
        self.assertEqual(list(refused), ["no@localhost", "none@localhost"])
        self.assertEqual({each.code for each in refused.values()}, {550})
        self.assertIn("<no@localhost>: 550 5.1.1 No such mailbox here", str(caught.exception))
        self.assertEqual(self.queued(mta), 0)
        self.assertEqual(mta.mail("postmaster"), [])

    def test_mail_goes_to_any_domain_whatever_relay_from_says(self) -> None:
        mta = self.mta(relay_from=(), routes=(("*", "error:5.7.9 tried"),))
        with self.assertRaises(SubmissionRefused):
            self.submit(mta, PLAIN, ["ann@else.example"])
        mta = self.mta(relay_from=(), routes=(("*", "smtp://192.0.2.1"),))
        self.submit(mta, PLAIN, ["ann@else.example"])
        self.assertEqual(self.queued(mta), 1)
        self.assertTrue(mta.connect().mail(PLAIN, "ann@else.example")[0].startswith("550 5.7.1"))

    def test_aliases_are_expanded(self) -> None:
        aliases = self.mktemp()
        with open(aliases, "w") as file:
            file.write("team: bob, eve\n")
        mta = self.mta(aliases=aliases)
        self.submit(mta, PLAIN, ["team@localhost"])
        self.assertEqual([len(mta.mail("bob")), len(mta.mail("eve"))], [1, 1])

    def test_a_held_message_is_delivered_when_its_time_has_come(self) -> None:
        mta = self.mta()
        self.submit(mta, hold_until=datetime.fromtimestamp(EPOCH + 60, UTC))
        self.submit(mta, PLAIN, ["eve@localhost"], hold_until=EPOCH + 120.5)
        mta.advance(59)
        self.assertEqual(mta.mail("bob"), [])
        mta.advance(2)
        self.assertEqual([len(mta.mail("bob")), len(mta.mail("eve"))], [1, 0])
        mta.advance(61)
        self.assertEqual(len(mta.mail("eve")), 1)

    def test_notices_are_those_that_the_sender_wants(self) -> None:
        mta = self.mta()
        self.submit(mta, notify=["success", "FAILURE"])
        self.assertEqual(len(mta.mail("app")), 1)
        self.submit(mta)
        self.submit(mta, notify="NEVER")
        self.assertEqual(len(mta.mail("app")), 1)


class InMemory(Submitting):
    """The same in an agent in memory (`MemoryMTA.submit`)."""

    def test_a_submission_is_run_to_its_end_and_its_steps_are_listed(self) -> None:
        mta = self.mta(routes=(("far.example", "smtp://192.0.2.1"),))
        receipt = mta.submit(PLAIN, sender="app@localhost", recipients=["bob@localhost"])
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual([type(each) for each in mta.events], [Accepted, Delivered])
        self.assertEqual({each.id for each in mta.events}, {receipt.id})
        mta.submit_by_smtp(PLAIN, "ann@far.example")
        self.assertEqual([type(each) for each in mta.events[2:]], [Accepted, DeferredEvent])

    def test_its_errors_are_raised(self) -> None:
        mta = self.mta()
        with self.assertRaises(ValueError):
            mta.submit(PLAIN, sender="app@localhost")
        self.assertEqual(mta.events, [])

    def test_a_content_that_never_ends_is_given_up(self) -> None:
        mta = self.mta()
        never: Deferred[Any] = Deferred()
        self.patch(mta.mta.agent, "submissions", slow_reader(mta, never))
        with self.assertRaises(TimeoutError):
            mta.submit(io.BytesIO(PLAIN), sender="", recipients=["bob@localhost"])
        never.callback(b"")


class Signing(Submitting):
    def test_mail_is_signed_where_there_is_a_key_for_its_domain(self) -> None:
        file = write_key(self.mktemp())
        mta = self.mta(dkim_keys=(DKIMKey(domain="localhost", selector="s", key=file),))
        self.submit(mta)
        self.assertIn(b"DKIM-Signature:", mta.mail("bob")[0])


class Life(Submitting):
    def test_an_agent_that_does_not_run_takes_nothing(self) -> None:
        mta = MemoryMTA(self.mktemp())
        results = self.submitting(mta)
        assert isinstance(results[0], Failure)
        results[0].trap(RuntimeError)
        self.assertIn("it was not started", results[0].getErrorMessage())
        mta.start()
        mta.stop()
        results = self.submitting(mta)
        assert isinstance(results[0], Failure)
        results[0].trap(RuntimeError)

    def test_a_cancelled_submission_stores_nothing(self) -> None:
        held: Deferred[bytes] = Deferred()

        mta = self.mta()
        self.patch(mta.mta.agent, "submissions", slow_reader(mta, held))
        submitted = mta.mta.submit(io.BytesIO(PLAIN), sender="", recipients=["bob@localhost"])
        self.assertNoResult(submitted)
        submitted.cancel()
        self.failureResultOf(submitted)
        mta.reactor.settle()
        self.assertEqual(self.queued(mta), 0)
        self.submit(mta)
