"""The codec of milters: packets as octets, the terms of a filter, and the order of commands."""

from __future__ import annotations

from struct import pack

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.milter.dialogue import Dialogue
from twisted_mta.policy.milter.negotiation import OFFER, Action, Step, read_terms
from twisted_mta.policy.milter.packets import (
    LONGEST,
    AddField,
    ChangeSender,
    Command,
    InsertField,
    MilterError,
    PacketReader,
    Refusal,
    Verdict,
    answer,
    connect,
    macros,
    packet,
    strings,
)


class Packets(SynchronousTestCase):
    def test_a_packet_is_its_length_its_code_and_its_data(self) -> None:
        self.assertEqual(packet(Command.MAIL, strings(b"<a@b>")), b"\0\0\0\7M<a@b>\0")
        self.assertEqual(packet(Command.QUIT), b"\0\0\0\1Q")
        self.assertEqual(
            macros(Command.HELO, [("j", b"mx"), ("{x}", b"1")]),
            b"\0\0\0\x0dDHj\0mx\0{x}\x001\0",
        )

    def test_a_client_has_a_family_a_port_and_an_address(self) -> None:
        self.assertEqual(connect(b"n", "192.0.2.1", 258)[4:], b"Cn\x004\1\x02192.0.2.1\0")
        self.assertEqual(connect(b"n", "2001:db8::1", 25)[4:], b"Cn\x006\0\x192001:db8::1\0")
        self.assertEqual(connect(b"n", None, 0)[4:], b"Cn\0U")

    def test_packets_are_read_wherever_they_are_cut(self) -> None:
        reader, octets = PacketReader(), b"\0\0\0\1c\0\0\0\4hX\0\0"
        found = [each for octet in octets for each in reader.feed(bytes([octet]))]
        self.assertEqual(found, [(ord("c"), b""), (ord("h"), b"X\0\0")])

    def test_a_length_out_of_bounds_is_refused_before_its_data(self) -> None:
        for length in (0, LONGEST + 1, 2**32 - 1):
            with self.assertRaisesRegex(MilterError, "expected 1 to"):
                list(PacketReader().feed(pack(">I", length)))

    def test_answers_are_verdicts_refusals_and_changes(self) -> None:
        self.assertIs(answer(ord("c"), b""), Verdict.CONTINUE)
        self.assertEqual(answer(ord("h"), b"X\0y\0"), AddField(b"X", b"y"))
        self.assertEqual(answer(ord("i"), b"\0\0\0\2X\0y\0"), InsertField(2, b"X", b"y"))
        self.assertEqual(answer(ord("e"), b"<a@b>\0"), ChangeSender(b"<a@b>"))
        refusal = answer(ord("y"), b"550-5.7.1 no\r\n550 5.7.1 never\0")
        assert isinstance(refusal, Refusal)
        self.assertEqual(refusal.reply.wire, b"550-5.7.1 no\r\n550 5.7.1 never\r\n")

    def test_other_answers_are_refused(self) -> None:
        for code, data in (
            (b"Z", b""),
            (b"h", b"X\0"),
            (b"h", b"X\0y\0z\0"),
            (b"h", b"X\0y"),
            (b"i", b"\0\0"),
            (b"y", b"250 fine\0"),
            (b"y", b"550-a\r\n451 b\0"),
            (b"y", b"no\0"),
        ):
            with self.assertRaises(MilterError):
                answer(ord(code), data)


class Terms(SynchronousTestCase):
    def test_all_actions_and_steps_are_offered(self) -> None:
        self.assertEqual(OFFER, b"\0\0\0\x0dO\0\0\0\6\0\0\1\xff\0\x1f\xf7\xff")

    def test_a_filter_chooses(self) -> None:
        terms = read_terms(pack(">III", 6, 0x1, 0x2 | 0x80) + pack(">I", 2) + b"{mail_addr} i\0")
        self.assertEqual((terms.version, terms.actions), (6, Action.ADD_FIELDS))
        self.assertEqual(terms.steps, Step.NO_HELO | Step.UNANSWERED_HEADER)
        self.assertEqual(terms.macros, {Command.MAIL: ("{mail_addr}", "i")})
        self.assertFalse(terms.sees(Command.HELO))
        self.assertFalse(terms.answers(Command.HEADER))
        self.assertTrue(terms.answers(Command.BODY))
        terms.check(AddField(b"X", b""))
        with self.assertRaisesRegex(MilterError, "ChangeSender"):
            terms.check(ChangeSender(b""))

    def test_other_terms_are_refused(self) -> None:
        for data in (
            b"",
            pack(">III", 7, 0, 0),
            pack(">III", 1, 0, 0),
            pack(">III", 6, 0x200, 0),
            pack(">III", 6, 0, 0) + b"\0",
            pack(">III", 6, 0, 0) + pack(">I", 9) + b"i\0",
            pack(">III", 6, 0, 0) + pack(">I", 0) + b"i",
            pack(">III", 6, 0, 0) + pack(">I", 0) + b"i " * 300 + b"\0",
        ):
            with self.assertRaises(MilterError):
                read_terms(data)


class Order(SynchronousTestCase):
    def test_a_command_has_its_place(self) -> None:
        dialogue = Dialogue()
        dialogue.step(Command.NEGOTIATE)
        with self.assertRaisesRegex(MilterError, "MAIL has no place"):
            dialogue.step(Command.MAIL)

    def test_a_change_answers_the_end_of_the_body_alone(self) -> None:
        dialogue = Dialogue()
        self.assertEqual(
            dialogue.read(Command.END_OF_BODY, ord("h"), b"X\0y\0"), AddField(b"X", b"y")
        )
        with self.assertRaisesRegex(MilterError, "AddField in answer to MAIL"):
            dialogue.read(Command.MAIL, ord("h"), b"X\0y\0")
