"""An application's policy decides on clients and their mail, at each stage."""

from __future__ import annotations

from ipaddress import ip_network
from typing import IO, Any

from twisted.internet.defer import CancelledError, Deferred

from tests.tidy import TidyTestCase
from twisted_mta import Mark, Quarantine, Reply, Rewrite
from twisted_mta.config import Listener
from twisted_mta.testing.memory_mta import MemoryMTA

from .strangers import OFF

MESSAGE = b"From: ann@sender.example\r\nSubject: Hi\r\nX-Old: 1\r\n\r\nHello.\r\n"
NO = Reply(550, "5.7.1", "not from there")


class WithPolicy(TidyTestCase):
    def mta(self, policy: object, **settings: Any) -> MemoryMTA:
        return self.enterContext(
            MemoryMTA(application_policy=policy, **{"policy": OFF, **settings})
        )

    def delivered(self, policy: object, *, to: str = "bob@localhost") -> bytes:
        """Return the message as bob's mailbox has it."""
        mta = self.mta(policy)
        self.assertEqual(mta.submit_by_smtp(MESSAGE, to)[:9], "250 2.0.0")
        (mail,) = mta.mail("bob")
        return mail


class Stages(WithPolicy):
    def test_each_stage_knows_what_is_known_by_then(self) -> None:
        seen: list[object] = []

        class Watching:
            def client(self, session: Any) -> None:
                seen.append(("client", session.peer.address, session.helo))

            def helo(self, session: Any) -> None:
                seen.append(("helo", session.helo, session.tls))

            def mail(self, session: Any, sender: Any) -> None:
                seen.append(("mail", str(sender)))

            def rcpt(self, session: Any, recipient: Any) -> None:
                seen.append(("rcpt", str(recipient)))

            def header(self, session: Any, envelope: Any, header: Any) -> None:
                recipients = [str(each) for each in envelope.recipients]
                seen.append(("header", str(envelope.sender), recipients, header["subject"]))

            def message(self, session: Any, envelope: Any, content: IO[bytes]) -> None:
                first = content.read()
                content.seek(0)
                seen.append(("message", first == content.read(), first))

        mta = self.mta(Watching())
        client = mta.connect(source="192.0.2.7")
        self.assertEqual(client.mail(MESSAGE, "bob@localhost")[0][:9], "250 2.0.0")
        self.assertEqual(
            seen,
            [
                ("client", "192.0.2.7", ""),
                ("helo", "client.example", None),
                ("mail", "ann@sender.example"),
                ("rcpt", "bob@localhost"),
                ("header", "ann@sender.example", ["bob@localhost"], "Hi"),
                ("message", True, MESSAGE),
            ],
        )

    def test_a_method_that_is_missing_has_no_objection(self) -> None:
        self.assertIn(b"\nSubject: Hi\n", self.delivered(object()))

    def test_a_refused_client_hears_it_in_place_of_the_greeting(self) -> None:
        class Policy:
            def client(self, session: Any) -> Reply | None:
                return NO if session.peer.address == "192.0.2.7" else None

        mta = self.mta(Policy())
        refused = mta.connect(greet=False, source="192.0.2.7")
        # RFC 5321 §3.1: 554 instead of the greeting.
        self.assertEqual(refused.heard(), ["554 5.7.1 not from there"])
        self.assertTrue(refused.lost)
        self.assertEqual(mta.connect(greet=False).heard()[0][:4], "220 ")

    def test_of_a_client_that_a_proxy_speaks_for_they_hear_before_its_name(self) -> None:
        seen: list[object] = []

        class Policy:
            def client(self, session: Any) -> Reply | None:
                seen.append(session.peer.address)
                return NO if session.peer.address == "203.0.113.7" else None

            def helo(self, session: Any) -> None:
                seen.append(session.helo)

        proxied = Listener(
            endpoint="tcp:25:interface=127.0.0.1", xclient_from=[ip_network("192.0.2.7")]
        )
        mta = self.mta(Policy(), listeners=(proxied,))
        client = mta.connect(source="192.0.2.7")
        client.say("XCLIENT ADDR=203.0.113.9", "EHLO real.example")
        self.assertEqual(client.mail(MESSAGE, "bob@localhost")[0][:9], "250 2.0.0")
        self.assertEqual(seen, ["192.0.2.7", "client.example", "203.0.113.9", "real.example"])
        # One that is refused stays refused, however often it tries.
        client.say("XCLIENT ADDR=203.0.113.7")
        for command, code in (("EHLO a.example", "550"), ("MAIL FROM:<a@b.example>", "503")) * 2:
            self.assertEqual(client.say(command)[-1][:3], code)

    def test_a_client_is_greeted_once_the_policy_has_decided(self) -> None:
        decided: Deferred[None] = Deferred()

        class Policy:
            def client(self, session: Any) -> Deferred[None]:
                return decided

        mta = self.mta(Policy())
        client = mta.connect(greet=False)
        self.assertEqual(client.heard(), [])
        decided.callback(None)
        mta.reactor.settle()
        self.assertEqual(client.heard()[0][:4], "220 ")

    def test_a_refused_name_changes_nothing_and_another_may_follow(self) -> None:
        class Policy:
            def helo(self, session: Any) -> Reply | None:
                return Reply(550, "5.7.1", "not you") if session.helo == "bad.example" else None

        client = self.mta(Policy()).connect(greet=False)
        for verb in ("EHLO", "HELO"):
            self.assertEqual(client.say(f"{verb} bad.example")[-1], "550 5.7.1 not you")
        self.assertEqual(client.say("MAIL FROM:<a@b.example>")[0][:9], "503 5.5.1")
        client.say("EHLO good.example", "MAIL FROM:<a@b.example>")
        # RFC 5321 §4.1.4: the state stays, within a transaction too.
        self.assertEqual(client.say("EHLO bad.example"), ["550 5.7.1 not you"])
        self.assertEqual(client.say("RCPT TO:<bob@localhost>")[0][:9], "250 2.1.5")

    def test_a_refused_name_within_a_transaction_lets_no_mail_past_the_policy(self) -> None:
        class Policy:
            def helo(self, session: Any) -> Reply | None:
                return NO if session.helo == "bad.example" else None

            def rcpt(self, session: Any, recipient: Any) -> Reply | None:
                return NO if str(recipient) == "eve@localhost" else None

            def message(self, session: Any, envelope: Any, content: IO[bytes]) -> Reply:
                return NO

        client = self.mta(Policy()).connect()
        client.say("MAIL FROM:<a@b.example>", "EHLO bad.example")
        for command, code in (
            ("RCPT TO:<eve@localhost>", "550"),
            ("RCPT TO:<bob@localhost>", "250"),
            ("DATA", "354"),
            ("Hi.\r\n.", "550"),
        ):
            self.assertEqual(client.say(command)[-1][:3], code)

    def test_sender_and_recipients_are_refused_each_for_itself(self) -> None:
        class Policy:
            def mail(self, session: Any, sender: Any) -> Reply | None:
                return NO if sender is not None and sender.domain == "spam.example" else None

            async def rcpt(self, session: Any, recipient: Any) -> Reply | None:
                return Reply(450, "4.7.1", "later") if str(recipient)[:3] == "eve" else None

        client = self.mta(Policy()).connect()
        self.assertEqual(client.say("MAIL FROM:<x@spam.example>"), ["550 5.7.1 not from there"])
        self.assertEqual(client.say("MAIL FROM:<>")[0][:3], "250")
        self.assertEqual(client.say("RCPT TO:<eve@localhost>"), ["450 4.7.1 later"])
        self.assertEqual(client.say("RCPT TO:<bob@localhost>")[0][:3], "250")

    def test_a_header_that_is_refused_is_told_at_the_end_of_the_content(self) -> None:
        class Policy:
            def header(self, session: Any, envelope: Any, header: Any) -> Reply | None:
                return NO if header["Subject"] == "Hi" else None

            def message(self, *about: Any) -> None:
                raise AssertionError("it is refused already")

        mta = self.mta(Policy())
        self.assertEqual(mta.submit_by_smtp(MESSAGE, "bob@localhost"), "550 5.7.1 not from there")
        self.assertEqual(mta.mail("bob"), [])

    def test_a_body_is_shown_while_it_streams_without_the_header(self) -> None:
        pieces: list[bytes] = []

        class Policy:
            def body(self, session: Any, envelope: Any, header: Any) -> Any:
                return pieces.append

        mta = self.mta(Policy())
        client = mta.connect()
        client.say("MAIL FROM:<a@b.example>", "RCPT TO:<bob@localhost>", "DATA")
        for octet in (MESSAGE + b".\r\n")[:-3]:
            client.send(bytes([octet]))
        self.assertEqual(client.send(b".\r\n")[0][:3], "250")
        self.assertEqual(b"".join(pieces), b"Hello.\r\n")
        self.assertGreater(len(pieces), 1)


class Effects(WithPolicy):
    def test_marks_stand_above_our_trace(self) -> None:
        class Policy:
            def mail(self, session: Any, sender: Any) -> Mark:
                return Mark({"X-First": "1"})

            def message(self, *about: Any) -> Mark:
                return Mark(["X-Second: 2", ("X-Third", "3")])

        mail = self.delivered(Policy())
        places = [mail.index(each) for each in (b"X-First: 1\n", b"X-Second: 2\nX-Third: 3\nRec")]
        self.assertEqual(places, sorted(places))

    def test_mail_in_quarantine_goes_to_the_junk_folder(self) -> None:
        class Policy:
            def header(self, *about: Any) -> Quarantine:
                return Quarantine("it smells")

        mta = self.mta(Policy())
        self.assertEqual(mta.submit_by_smtp(MESSAGE, "bob@localhost")[:3], "250")
        self.assertEqual(mta.mail("bob"), [])
        junk = f"{mta.mta.config.maildir}/localhost/bob/.Junk/new"
        self.assertEqual(len(mta.files.names(junk)), 1)

    def test_an_answer_to_a_later_greeting_counts_for_the_mail_behind_it(self) -> None:
        class Policy:
            def helo(self, session: Any) -> list[object] | None:
                if session.helo != "bad.example":
                    return None
                return [Quarantine("a bad name"), Mark(["X-Bad: name"])]

        mta = self.mta(Policy())
        client = mta.connect(greet=False)
        for helo in ("good.example", "bad.example", "good.example"):
            client.say(f"EHLO {helo}")
            client.mail(MESSAGE, "bob@localhost")
        junk = f"{mta.mta.config.maildir}/localhost/bob/.Junk/new"
        self.assertEqual(len(mta.files.names(junk)), 1)
        self.assertEqual([b"X-Bad" in mail for mail in mta.mail("bob")], [False, False])

    def test_fields_are_removed_and_added(self) -> None:
        class Policy:
            def message(self, *about: Any) -> Rewrite:
                return Rewrite(add=["X-New: 2"], remove=["x-OLD"])

        mail = self.delivered(Policy())
        self.assertIn(b"X-New: 2\n", mail)
        self.assertNotIn(b"X-Old", mail)
        self.assertTrue(mail.endswith(b"\nSubject: Hi\n\nHello.\n"))

    def test_a_whole_message_is_replaced(self) -> None:
        class Policy:
            def message(self, *about: Any) -> Rewrite:
                return Rewrite(content=b"Subject: other\r\n\r\n" + b"x" * 70 + b"\r\n")

        self.assertTrue(
            self.delivered(Policy()).endswith(b"\nSubject: other\n\n" + b"x" * 70 + b"\n")
        )

    def test_a_large_message_is_replaced_by_a_larger_one(self) -> None:
        large = b"Subject: large\r\nX-Old: 1\r\n\r\n" + b"0123456789abcdef\r\n" * 100_000

        class Policy:
            def message(self, session: Any, envelope: Any, content: IO[bytes]) -> Rewrite:
                return Rewrite(remove=["X-Old"])

        mta = self.mta(Policy())
        self.assertEqual(mta.submit_by_smtp(large, "bob@localhost")[:3], "250")
        (mail,) = mta.mail("bob")
        expected = large.replace(b"X-Old: 1\r\n", b"").replace(b"\r\n", b"\n")
        self.assertEqual(mail[mail.index(b"Subject:") :], expected)

    def test_recipients_are_replaced(self) -> None:
        class AtRcpt:
            def rcpt(self, session: Any, recipient: Any) -> Rewrite:
                return Rewrite(recipients=["bob@localhost", "carl@localhost"])

        class AtTheEnd:
            def message(self, *about: Any) -> Rewrite:
                return Rewrite(recipients=["bob@localhost", "carl@localhost"])

        for policy in (AtRcpt(), AtTheEnd()):
            mta = self.mta(policy)
            self.assertEqual(
                mta.submit_by_smtp(MESSAGE, "ann@localhost", "dan@localhost")[:3], "250"
            )
            self.assertEqual(
                [len(mta.mail(each)) for each in ("ann", "bob", "carl", "dan")], [0, 1, 1, 0]
            )

    def test_a_message_without_recipients_is_taken_and_discarded(self) -> None:
        class AtRcpt:
            def rcpt(self, *about: Any) -> Rewrite:
                return Rewrite(recipients=[])

        class AtTheEnd:
            def message(self, *about: Any) -> Rewrite:
                return Rewrite(recipients=[])

        for policy in (AtRcpt(), AtTheEnd()):
            mta = self.mta(policy)
            self.assertEqual(mta.submit_by_smtp(MESSAGE, "bob@localhost")[:3], "250")
            mta.advance(1)
            self.assertEqual(mta.mail("bob"), [])
            self.assertEqual(mta.status().queue["messages"], 0)

    def test_the_reverse_path_is_replaced(self) -> None:
        class AtMail:
            def mail(self, *about: Any) -> Rewrite:
                return Rewrite(sender="")

        class AtTheEnd:
            def message(self, *about: Any) -> Rewrite:
                return Rewrite(sender="new@sender.example")

        self.assertIn(b"Return-Path: <>\n", self.delivered(AtMail()))
        self.assertIn(b"Return-Path: <new@sender.example>\n", self.delivered(AtTheEnd()))


class Failures(WithPolicy):
    def test_an_exception_or_a_wrong_answer_defers(self) -> None:
        class Broken:
            def mail(self, session: Any, sender: Any) -> object:
                if sender is None:
                    raise RuntimeError("no")
                return "yes"

        client = self.mta(Broken()).connect()
        for sender in ("", "a@b.example"):
            reply = client.say(f"MAIL FROM:<{sender}>")[0]
            self.assertEqual(reply, "451 4.7.1 No verdict on this mail for now, try again later")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_a_policy_that_ignores_its_cancellation_holds_no_session(self) -> None:
        class Stubborn:
            async def rcpt(self, session: Any, recipient: Any) -> None:
                while True:
                    try:
                        await Deferred[None]()
                    except CancelledError:
                        await Deferred[None]()

        mta = self.mta(Stubborn())
        client = mta.connect()
        client.say("MAIL FROM:<ann@sender.example>")
        self.assertEqual(client.say("RCPT TO:<bob@localhost>"), [])
        mta.advance(5.1)
        self.assertEqual(client.heard()[0][:9], "451 4.7.1")

    def test_no_answer_within_the_deadline_defers_and_delays_no_other_client(self) -> None:
        class Slow:
            def rcpt(self, session: Any, recipient: Any) -> Any:
                return Deferred() if str(recipient) == "slow@localhost" else None

        mta = self.mta(Slow())
        slow, other = mta.connect(), mta.connect()
        self.assertEqual(slow.say("MAIL FROM:<a@b.example>", "RCPT TO:<slow@localhost>"), [])
        self.assertEqual(other.mail(MESSAGE, "bob@localhost")[0][:3], "250")
        mta.advance(4.9)
        self.assertEqual(slow.heard(), [])
        mta.advance(0.2)
        self.assertEqual(slow.heard()[0][:9], "451 4.7.1")

    def test_a_client_that_leaves_meanwhile_harms_nothing(self) -> None:
        asked: list[Deferred[None]] = []

        class Slow:
            def message(self, *about: Any) -> Any:
                asked.append(Deferred())
                return asked[0]

        mta = self.mta(Slow())
        client = mta.connect()
        client.mail(MESSAGE, "bob@localhost")
        client.transport.abortConnection()
        mta.advance(1)
        asked[0].callback(None)
        mta.advance(1)
        self.assertEqual(mta.status().queue["messages"], 0)


class OverTime(WithPolicy):
    def test_a_policy_may_take_its_time(self) -> None:
        mta: MemoryMTA

        class Slow:
            async def message(self, session: Any, envelope: Any, content: IO[bytes]) -> Mark:
                later: Deferred[None] = Deferred()
                mta.reactor.callLater(3.0, later.callback, None)
                await later
                return Mark([f"X-Size: {len(content.read())}"])

        mta = self.mta(Slow())
        client = mta.connect()
        self.assertEqual(client.mail(MESSAGE, "bob@localhost"), [])
        mta.advance(3.1)
        self.assertEqual(client.heard()[0][:3], "250")
        self.assertIn(b"X-Size: %d\n" % len(MESSAGE), mta.mail("bob")[0])
