"""Filters see mail as it comes in, and what they change arrives as they said."""

from __future__ import annotations

from struct import pack
from typing import Any

from tests.policy.milter.scripted import ACCEPT, UNANSWERED, ScriptedFilter, change
from tests.tidy import TidyTestCase
from twisted_mta.config import MilterSettings, PolicySettings
from twisted_mta.testing.memory_mta import MemoryMTA

from .strangers import OFF

HOST = "192.0.2.99"
MESSAGE = (
    b"From: Ann <ann@sender.example>\r\nSubject: Hi\r\n there\r\n"
    b"Date: Mon, 30 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\n"
    b"X-Old:one\r\nX-Old: two\r\n"
    b"\r\nHello.\r\n"
)


def at_end(*changes: bytes, verdict: bytes = b"c") -> dict[bytes, Any]:
    """Return the script of a filter that changes a message at its end."""
    return {b"E": [*changes, verdict]}


class MilterTestCase(TidyTestCase):
    def mta(self, *filters: ScriptedFilter, more: Any = None, **settings: Any) -> MemoryMTA:
        """Start an MTA with filters."""
        tables = [
            MilterSettings(endpoint=f"tcp:{HOST}:{8890 + number}", **(more or {}))
            for number in range(len(filters))
        ]
        mta = MemoryMTA(**{"policy": OFF, "milters": tables, **settings})
        for number, filter in enumerate(filters):
            mta.reactor.listenTCP(8890 + number, filter, interface=HOST)
        self.addCleanup(self.stop, mta)
        mta.start()
        return mta

    def stop(self, mta: MemoryMTA) -> None:
        mta.stop()
        for port in list(mta.reactor.ports.values()):
            port.stopListening()

    def arrived(self, *filters: ScriptedFilter, content: bytes = MESSAGE) -> bytes:
        """Return what bob's mailbox has of a message, from its first field that is not ours."""
        mta = self.mta(*filters)
        reply = mta.submit_by_smtp(content, "bob@localhost")
        self.assertEqual(reply[:4], "250 ", reply)
        (mail,) = mta.mail("bob")
        return mail


def below_trace(mail: bytes) -> bytes:
    """Return a message as it stands below our Received field."""
    lines = mail.split(b"\n")
    at = next(number for number, line in enumerate(lines) if line.startswith(b"Received:"))
    at += 1
    while lines[at][:1] in (b" ", b"\t"):
        at += 1
    return b"\n".join(lines[at:])


def unix(content: bytes) -> bytes:
    """Return content with the line ends of a mailbox."""
    return content.replace(b"\r\n", b"\n")


class Told(MilterTestCase):
    def test_a_filter_is_told_of_the_session_and_of_its_message(self) -> None:
        filter = ScriptedFilter()
        mta = self.mta(filter)
        client = mta.connect(source="192.0.2.7")
        self.assertEqual(client.mail(MESSAGE, "bob@localhost")[0][:9], "250 2.0.0")
        client.say("QUIT")
        self.assertEqual(filter.codes, b"OCHMRTLLLLLLNBEAK")
        (connected,) = filter.data(b"C")
        self.assertRegex(connected, rb"unknown\x004..192\.0\.2\.7\x00")
        self.assertEqual(filter.data(b"H"), [b"client.example\0"])
        self.assertEqual(filter.data(b"M"), [b"<ann@sender.example>\0"])
        self.assertEqual(filter.data(b"R"), [b"<bob@localhost>\0"])
        self.assertEqual(
            filter.data(b"L"),
            [
                b"From\0Ann <ann@sender.example>\0",
                b"Subject\0Hi\n there\0",
                b"Date\0Mon, 30 Nov 2026 10:00:00 +0000\0",
                b"Message-ID\0<1@sender.example>\0",
                b"X-Old\0one\0",
                b"X-Old\0two\0",
            ],
        )
        self.assertEqual(filter.data(b"B"), [b"Hello.\r\n"])

    def test_macros_are_those_of_postfix(self) -> None:
        filter = ScriptedFilter()
        mta = self.mta(filter)
        client = mta.connect(source="192.0.2.7")
        client.mail(MESSAGE, "bob@localhost")
        client.say("QUIT")
        of_client = filter.macros_of(b"C")
        self.assertEqual(of_client["j"], "mta.example")
        self.assertEqual(of_client["_"], "unknown [192.0.2.7]")
        self.assertTrue(of_client["v"].startswith("twisted-mta "))
        self.assertEqual(
            filter.macros_of(b"M"),
            {
                "{mail_addr}": "ann@sender.example",
                "{mail_host}": "sender.example",
                "{mail_mailer}": "smtp",
            },
        )
        self.assertEqual(filter.macros_of(b"R")["{rcpt_mailer}"], "local")
        (mail,) = mta.mail("bob")
        self.assertIn(filter.macros_of(b"E")["i"].encode(), mail)

    def test_a_client_over_ipv6_has_its_family(self) -> None:
        filter = ScriptedFilter()
        self.mta(filter).connect(source="2001:db8::7").say("QUIT")
        (told,) = filter.data(b"C")
        self.assertRegex(told, rb"(?s)unknown\x006..2001:db8::7\x00")
        self.assertEqual(filter.macros_of(b"C")["_"], "unknown [2001:db8::7]")

    def test_a_filter_chooses_its_macros(self) -> None:
        asked = pack(">I", 0) + b"{client_addr} {client_port} {nothing}\0"
        filter = ScriptedFilter(macros=asked)
        mta = self.mta(filter)
        mta.connect(source="192.0.2.7").say("QUIT")
        self.assertEqual(filter.macros_of(b"C")["{client_addr}"], "192.0.2.7")
        self.assertNotIn("j", filter.macros_of(b"C"))

    def test_steps_that_a_filter_declines_are_left_out(self) -> None:
        filter = ScriptedFilter(steps=0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x200)
        self.arrived(filter)
        self.assertEqual(filter.codes, b"OMEAQ")

    def test_a_filter_that_answers_only_at_the_end_delays_nothing(self) -> None:
        filter = ScriptedFilter(at_end(change(b"h", b"X-New", b"1")), steps=UNANSWERED)
        self.assertIn(b"\nX-New: 1\n", self.arrived(filter))
        self.assertEqual(filter.codes, b"OCHMRTLLLLLLNBEAQ")

    def test_a_large_body_comes_in_chunks_until_the_filter_skips_the_rest(self) -> None:
        body = b"".join(b"line %06d\r\n" % number for number in range(20_000))
        every, first = ScriptedFilter(), ScriptedFilter({b"B": [b"s"]}, steps=0x400)
        self.arrived(every, first, content=MESSAGE + body)
        self.assertEqual(b"".join(every.data(b"B")), b"Hello.\r\n" + body)
        self.assertEqual({len(each) for each in every.data(b"B")[:-1]}, {65_535})
        self.assertEqual([len(each) for each in first.data(b"B")], [65_535])

    def test_a_connection_serves_one_session_after_the_other(self) -> None:
        filter = ScriptedFilter()
        mta = self.mta(filter)
        for _ in range(3):
            mta.submit_by_smtp(MESSAGE, "bob@localhost")
        self.assertEqual((filter.connections, filter.open), (1, 1))
        mta.advance(61)
        self.assertEqual(filter.open, 0)

    def test_a_filter_that_takes_no_second_client_is_asked_on_a_new_connection(self) -> None:
        clients: list[bytes] = []

        def connected(data: bytes) -> list[bytes]:
            clients.append(data)
            return [] if len(clients) == 2 else [b"c"]

        filter = ScriptedFilter({b"C": connected})
        mta = self.mta(filter)
        mta.submit_by_smtp(MESSAGE, "bob@localhost")
        client = mta.connect(greet=False)
        self.assertEqual(client.heard(), [])
        mta.advance(1)
        self.assertEqual(client.heard()[0][:3], "220")
        client.say("QUIT")
        mta.submit_by_smtp(MESSAGE, "bob@localhost")
        self.assertEqual((filter.connections, filter.open, len(mta.mail("bob"))), (3, 0, 2))

    def test_a_connection_of_an_old_filter_serves_one_session(self) -> None:
        filter = ScriptedFilter(version=2, actions=0xF)
        mta = self.mta(filter)
        for _ in range(2):
            mta.submit_by_smtp(MESSAGE, "bob@localhost")
        self.assertEqual((filter.connections, filter.open), (2, 0))
        self.assertEqual(filter.codes, b"OCHMRLLLLLLNBEAQ" * 2)

    def test_it_sees_our_results_of_authenticating_the_mail(self) -> None:
        filter = ScriptedFilter()
        mta = self.mta(filter, policy=PolicySettings(dkim="off", dmarc="off", arc="off"))
        client = mta.connect(source="192.0.2.7")
        client.mail(MESSAGE, "bob@localhost")
        self.assertTrue(
            filter.data(b"L")[0].startswith(b"Authentication-Results\0mta.example;"),
            filter.data(b"L"),
        )

    def test_a_second_transaction_aborts_the_one_that_the_client_gave_up(self) -> None:
        filter = ScriptedFilter()
        mta = self.mta(filter)
        client = mta.connect()
        client.say("MAIL FROM:<a@sender.example>", "RSET", "MAIL FROM:<b@sender.example>")
        self.assertEqual(filter.codes, b"OCHMAM")


class Changes(MilterTestCase):
    def check(self, changes: dict[bytes, Any], expected: bytes) -> None:
        """Assert how the message arrives, below our Received field."""
        mail = self.arrived(ScriptedFilter(changes))
        self.assertEqual(below_trace(mail), unix(expected))

    def test_a_field_is_added_at_the_end(self) -> None:
        self.check(
            at_end(change(b"h", b"X-New", b"one\n\ttwo")),
            MESSAGE.replace(b"\r\n\r\n", b"\r\nX-New: one\r\n\ttwo\r\n\r\n"),
        )

    def test_a_field_is_inserted_at_its_place(self) -> None:
        self.check(
            at_end(
                change(b"i", b"X-Top", b"t", index=1),
                change(b"i", b"X-Third", b"3", index=3),
            ),
            b"X-Top: t\r\n" + MESSAGE.replace(b"Subject", b"X-Third: 3\r\nSubject", 1),
        )

    def test_a_field_is_inserted_at_the_top_and_behind_the_last(self) -> None:
        self.check(
            at_end(
                change(b"i", b"X-Top", b"t", index=0),
                change(b"i", b"X-Last", b"l", index=1_000_000),
            ),
            b"X-Top: t\r\n" + MESSAGE.replace(b"\r\n\r\n", b"\r\nX-Last: l\r\n\r\n"),
        )

    def test_a_field_is_changed_by_its_number(self) -> None:
        self.check(
            at_end(change(b"m", b"x-old", b"second", index=2)),
            MESSAGE.replace(b"X-Old: two", b"x-old: second"),
        )

    def test_a_field_is_deleted_by_its_number(self) -> None:
        self.check(
            at_end(change(b"m", b"X-Old", b"", index=1)), MESSAGE.replace(b"X-Old:one\r\n", b"")
        )

    def test_a_field_that_does_not_exist_is_added(self) -> None:
        self.check(
            at_end(change(b"m", b"X-None", b"1", index=1)),
            MESSAGE.replace(b"\r\n\r\n", b"\r\nX-None: 1\r\n\r\n"),
        )

    def test_white_space_is_the_filters_own_where_it_asks_for_that(self) -> None:
        filter = ScriptedFilter(at_end(change(b"h", b"X-New", b"  1")), steps=0x100000)
        self.assertIn(b"\nX-New:  1\n", self.arrived(filter))
        self.assertIn(b"X-Old\0one\0", filter.data(b"L"))
        self.assertIn(b"X-Old\0 two\0", filter.data(b"L"))

    def test_a_body_comes_in_pieces_of_any_size(self) -> None:
        pieces = [b"bAll\r", b"b\nnew\n", b"b" + b"x" * 300_000, b"b end"]
        self.check(
            at_end(*pieces),
            MESSAGE.replace(b"Hello.\r\n", b"All\r\nnew\r\n" + b"x" * 300_000 + b" end\r\n"),
        )

    def test_an_empty_body_replaces_another(self) -> None:
        self.check(at_end(b"b"), MESSAGE.replace(b"Hello.\r\n", b""))

    def test_the_reverse_path_changes(self) -> None:
        mail = self.arrived(ScriptedFilter(at_end(change(b"e", b"<new@other.example>"))))
        self.assertIn(b"Return-Path: <new@other.example>\n", mail)

    def test_the_reverse_path_changes_with_its_parameters(self) -> None:
        changes = at_end(
            change(b"e", b"<new@other.example>", b"RET=HDRS ENVID=id+2B1 SIZE=1"),
            change(b"2", b"<carol@next.example>", b"NOTIFY=FAILURE ORCPT=rfc822;old@here.example"),
        )
        mta = self.mta(ScriptedFilter(changes))
        hop = mta.hop()
        hop.extensions = [*hop.extensions, "DSN"]
        client = mta.connect()
        client.say("MAIL FROM:<ann@sender.example> RET=FULL", "RCPT TO:<bob@next.example>", "DATA")
        client.send(MESSAGE + b".\r\n")
        mta.advance(5)
        mail, *rcpt = (each for each in hop.commands if each[:4] in ("MAIL", "RCPT"))
        self.assertRegex(mail, r"MAIL FROM:<new@other.example> .*RET=HDRS ENVID=id\+2B1")
        self.assertEqual(
            rcpt,
            [
                "RCPT TO:<bob@next.example>",
                "RCPT TO:<carol@next.example> NOTIFY=FAILURE ORCPT=rfc822;old@here.example",
            ],
        )

    def test_the_reverse_path_becomes_the_null_one(self) -> None:
        mail = self.arrived(ScriptedFilter(at_end(change(b"e", b"<>"))))
        self.assertIn(b"Return-Path: <>\n", mail)

    def test_recipients_are_added_and_removed(self) -> None:
        changes = at_end(
            change(b"+", b"<carol@localhost>"),
            change(b"2", b"dave@localhost", b"NOTIFY=NEVER"),
            change(b"-", b"<bob@localhost>"),
        )
        mta = self.mta(ScriptedFilter(changes))
        mta.submit_by_smtp(MESSAGE, "bob@localhost", "erin@localhost")
        found = {name: len(mta.mail(name)) for name in ("bob", "carol", "dave", "erin")}
        self.assertEqual(found, {"bob": 0, "carol": 1, "dave": 1, "erin": 1})

    def test_each_filter_sees_what_the_one_before_has_changed(self) -> None:
        first = ScriptedFilter(
            at_end(
                change(b"h", b"X-First", b"1"),
                change(b"m", b"X-Old", b"", index=1),
                b"bOther.\r\n",
            )
        )
        second = ScriptedFilter(at_end(change(b"h", b"X-Second", b"2")))
        mail = self.arrived(first, second)
        self.assertEqual(second.data(b"L")[-1], b"X-First\x001\0")
        self.assertNotIn(b"X-Old\0one\0", second.data(b"L"))
        self.assertEqual(second.data(b"B"), [b"Other.\r\n"])
        self.assertTrue(mail.endswith(b"X-Old: two\nX-First: 1\nX-Second: 2\n\nOther.\n"), mail)

    def test_a_recipient_that_stays_keeps_what_its_sender_asked_for(self) -> None:
        mta = self.mta(ScriptedFilter(at_end(change(b"+", b"<carol@localhost>"))))
        client = mta.connect()
        client.say(
            "MAIL FROM:<ann@localhost> RET=HDRS", "RCPT TO:<bob@localhost> NOTIFY=SUCCESS", "DATA"
        )
        client.send(MESSAGE + b".\r\n")
        mta.advance(60)
        (notice,) = mta.mail("ann")
        self.assertIn(b"Final-Recipient: rfc822; bob@localhost", notice)
        self.assertNotIn(b"carol", notice)
        self.assertEqual(len(mta.mail("carol")), 1)

    def test_quarantine_holds_the_message_until_it_is_released(self) -> None:
        mta = self.mta(ScriptedFilter(at_end(change(b"q", b"looks odd"))))
        self.assertEqual(mta.submit_by_smtp(MESSAGE, "bob@localhost")[:4], "250 ")
        mta.advance(3600)
        self.assertEqual(mta.mail("bob"), [])
        self.assertEqual(mta.status().queue["held"], 1)
        (entry,) = mta._result(mta.mta.queue.list())
        shown = mta._result(mta.mta.queue.show(entry["id"]))
        self.assertEqual(shown["assessment"]["hold"], "looks odd")
        mta._result(mta.mta.queue.release(entry["id"]))
        mta.advance(1)
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual(mta.status().queue["held"], 0)


class Verdicts(MilterTestCase):
    def reply(self, answers: dict[bytes, Any]) -> str:
        return self.mta(ScriptedFilter(answers)).submit_by_smtp(MESSAGE, "bob@localhost")

    def test_it_refuses_and_defers_at_each_stage(self) -> None:
        for code in b"MRTLNBE":
            stage = bytes([code])
            self.assertEqual(self.reply({stage: [b"r"]}), "550 5.7.1 Command rejected")
            self.assertEqual(self.reply({stage: [b"t"]})[:9], "451 4.7.1")

    def test_it_gives_a_reply_of_several_lines(self) -> None:
        text = b"y550-5.7.1 No EICAR\r\n550 5.7.1 in this house\0"
        mta = self.mta(ScriptedFilter({b"E": [text]}))
        client = mta.connect()
        self.assertEqual(
            client.mail(MESSAGE, "bob@localhost"),
            ["550-5.7.1 No EICAR", "550 5.7.1 in this house"],
        )
        self.assertEqual(client.say("NOOP")[0][:3], "250")

    def test_it_refuses_a_client(self) -> None:
        for answer, reply in (
            (b"r", "554 5.7.1 Command rejected"),
            (b"t", "421 4.7.1 Service unavailable, try again later"),
            (b"4", "421 4.3.2 Service closing, try again later"),
            (b"y550 5.7.0 Not you\0", "554 5.7.0 Not you"),
            (b"y450 4.7.0 Not now\0", "421 4.7.0 Not now"),
        ):
            # RFC 5321 §3.1: 554 instead of the greeting.
            client = self.mta(ScriptedFilter({b"C": [answer]})).connect(greet=False)
            self.assertEqual(client.heard(), [reply])
            self.assertTrue(client.lost)

    def test_a_greeting_that_it_refuses_in_a_transaction_lets_no_mail_past_it(self) -> None:
        def greeted(name: bytes) -> list[bytes]:
            return [b"y550 5.7.0 Not you\0"] if name.startswith(b"bad.") else [b"c"]

        for answers, refused in (
            ({b"R": [b"y550 5.7.0 No mail\0"]}, ["RCPT TO:<bob@localhost>"]),
            ({b"E": [b"y550 5.7.0 No mail\0"]}, ["RCPT TO:<bob@localhost>", "DATA", "Hi.\r\n."]),
        ):
            filter = ScriptedFilter({b"H": greeted, **answers})
            client = self.mta(filter, more={"default_action": "accept"}).connect()
            client.say("MAIL FROM:<ann@sender.example>")
            # RFC 5321 §4.1.4: the transaction goes on.
            self.assertEqual(client.say("EHLO bad.example"), ["550 5.7.0 Not you"])
            self.assertEqual(client.say(*refused), ["550 5.7.0 No mail"])

    def test_what_it_accepts_early_it_is_not_asked_about_again(self) -> None:
        for code, told in (
            (b"C", b"OCK"),
            (b"H", b"OCHAK"),
            (b"M", b"OCHMAK"),
            (b"N", b"OCHMRTLLLLLLNAK"),
        ):
            filter = ScriptedFilter({code: [ACCEPT]})
            self.arrived(filter)
            self.assertEqual(filter.codes, told)

    def test_what_it_discards_is_accepted_and_delivered_to_no_one(self) -> None:
        for code in b"MRTLNBE":
            mta = self.mta(ScriptedFilter({bytes([code]): [b"d"]}))
            self.assertEqual(mta.submit_by_smtp(MESSAGE, "bob@localhost")[:4], "250 ")
            self.assertEqual(mta.mail("bob"), [])

    def test_one_refused_recipient_leaves_the_others(self) -> None:
        def answer(data: bytes) -> list[bytes]:
            return [b"r" if b"bob" in data else b"c"]

        mta = self.mta(ScriptedFilter({b"R": answer}))
        client = mta.connect()
        replies = [
            client.say(line)[0][:3]
            for line in (
                "MAIL FROM:<ann@sender.example>",
                "RCPT TO:<bob@localhost>",
                "RCPT TO:<carol@localhost>",
            )
        ]
        self.assertEqual(replies, ["250", "550", "250"])
        client.say("DATA")
        self.assertEqual(client.send(MESSAGE + b".\r\n")[0][:3], "250")
        self.assertEqual(len(mta.mail("carol")), 1)


class Faults(MilterTestCase):
    def reply(self, filter: ScriptedFilter, action: str = "defer") -> tuple[str, bool]:
        """Return the reply to a message, and whether the session goes on."""
        mta = self.mta(filter, more={"default_action": action, "timeout": 10})
        client = mta.connect(greet=False)

        def answer(octets: bytes) -> str:
            lines = client.send(octets)
            for _ in range(3):  # each answer of the filter has ten seconds
                if lines:
                    break
                mta.advance(10)
                lines = client.heard()
            return lines[-1]

        answer(b"")
        answer(b"EHLO client.example\r\n")
        reply = ""
        for line in (
            b"MAIL FROM:<ann@sender.example>\r\n",
            b"RCPT TO:<bob@localhost>\r\n",
            b"DATA\r\n",
            MESSAGE + b".\r\n",
        ):
            reply = answer(line)
            if reply[0] not in "23":
                break
        return reply, answer(b"NOOP\r\n")[:3] == "250"

    def test_a_filter_that_does_not_answer(self) -> None:
        for code in b"CHMRTLNBE":
            silent = {bytes([code]): []}
            self.assertEqual(self.reply(ScriptedFilter(silent))[0][:9], "451 4.7.1")
            self.assertEqual(self.reply(ScriptedFilter(silent), "accept")[0][:4], "250 ")
            self.assertEqual(
                self.reply(ScriptedFilter(silent), "refuse"),
                ("550 5.7.1 Service unavailable", True),
            )

    def test_a_filter_that_lies(self) -> None:
        lies = (
            at_end(b"Zwhat"),
            at_end(change(b"h", b"X: y", b"1")),
            at_end(change(b"h", b"X", b"1\nEvil: 1")),
            at_end(b"hX\0"),
            at_end(b"y250 fine\0"),
            at_end(change(b"+", b"not an address")),
            at_end(change(b"+", b"<>")),
            at_end(change(b"-", b"<>")),
            at_end(change(b"e", b"not an address")),
            at_end(change(b"e", b"<a@b.example>", b"RET=ALL")),
            at_end(change(b"2", b"<a@b.example>", b"NOTIFY=SOMETIMES")),
            at_end(b"f"),
            {b"M": [b"hX\0001\0"]},
            {b"M": [b"s"]},
            {b"M": [b"c", b"c"]},
        )
        for lie in lies:
            self.assertEqual(self.reply(ScriptedFilter(lie))[0][:9], "451 4.7.1", lie)
            self.assertEqual(self.reply(ScriptedFilter(lie), "accept")[0][:4], "250 ", lie)

    def test_a_filter_that_changes_what_it_did_not_announce(self) -> None:
        filter = ScriptedFilter(at_end(change(b"h", b"X", b"1")), actions=0x2)
        self.assertEqual(self.reply(filter)[0][:9], "451 4.7.1")

    def test_a_filter_with_a_packet_out_of_bounds(self) -> None:
        filter = ScriptedFilter(at_end(b"b" + b"x" * 2_000_000))
        self.assertEqual(
            self.reply(filter), ("451 4.7.1 Service unavailable, try again later", True)
        )

    def test_a_filter_that_disconnects(self) -> None:
        for code in b"CHMRTLNBE":
            filter = ScriptedFilter()

            def gone(data: bytes, filter: ScriptedFilter = filter) -> list[bytes]:
                filter.protocols[-1].transport.abortConnection()
                return []

            filter.answers[bytes([code])] = gone
            self.assertEqual(self.reply(filter)[0][:9], "451 4.7.1")

    def test_a_filter_that_is_not_there(self) -> None:
        mta = self.mta(more={})
        del mta
        table = MilterSettings(endpoint=f"tcp:{HOST}:1", default_action="accept")
        mta = self.mta(milters=[table])
        self.assertEqual(mta.submit_by_smtp(MESSAGE, "bob@localhost")[:4], "250 ")
        table = MilterSettings(endpoint=f"tcp:{HOST}:1")
        mta = self.mta(milters=[table])
        self.assertEqual(mta.submit_by_smtp(MESSAGE, "bob@localhost")[:4], "451 ")

    def test_a_filter_that_says_that_it_is_at_work_has_more_time(self) -> None:
        filter = ScriptedFilter({b"E": []})
        mta = self.mta(filter, more={"timeout": 10})
        client = mta.connect()
        self.assertEqual(client.mail(MESSAGE, "bob@localhost"), [])
        for _ in range(5):
            mta.advance(9)
            filter.protocols[-1].say(b"p")
            mta.reactor.settle()
        filter.protocols[-1].say(b"c")
        mta.reactor.settle()
        self.assertEqual(client.heard()[0][:4], "250 ")

    def test_a_filter_that_comes_back_is_asked_again_in_the_same_session(self) -> None:
        filter = ScriptedFilter({b"M": [b"Z"]})
        mta = self.mta(filter)
        client = mta.connect()
        self.assertEqual(client.mail(MESSAGE, "bob@localhost")[0][:3], "451")
        del filter.answers[b"M"]
        self.assertEqual(client.mail(MESSAGE, "bob@localhost")[0][:3], "250")
        self.assertEqual(filter.connections, 2)
