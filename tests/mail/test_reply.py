"""Replies on the wire, and what peers said."""

from attrs import asdict
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.printable import printable
from twisted_mta.mail.reply import Reply


class OnTheWire(SynchronousTestCase):
    def test_a_reply_has_code_enhanced_code_and_text(self) -> None:
        self.assertEqual(Reply.of(550, "7.1", "No").wire, b"550 5.7.1 No\r\n")

    def test_each_line_of_a_reply_has_the_enhanced_code(self) -> None:
        reply = Reply.of(250, "1.5", "one", "two")
        self.assertEqual(reply.wire, b"250-2.1.5 one\r\n250 2.1.5 two\r\n")

    def test_a_reply_may_have_no_enhanced_code(self) -> None:
        self.assertEqual(Reply.of(354, None, "Go").wire, b"354 Go\r\n")

    def test_no_character_of_the_text_ends_the_line(self) -> None:
        reply = Reply.of(501, "5.4", "a\r\n250 OK\x00\x1b[2J\u2028ü")
        self.assertEqual(reply.wire.count(b"\r\n"), 1)
        self.assertNotIn(b"\x1b", reply.wire)

    @given(st.text(max_size=300))
    @example("x" * 600)
    @example("\U0001f600" * 60)
    def test_no_line_is_longer_than_512_octets(self, text: str) -> None:
        # RFC 5321 §4.5.3.1.5
        wire = Reply.of(501, "5.4", text, text * 3).wire
        lines = wire.split(b"\r\n")
        self.assertEqual((len(lines), lines[-1]), (3, b""))
        self.assertLessEqual(max(map(len, lines)), 510)


class AsAValue(SynchronousTestCase):
    def test_octets_that_are_kept_are_no_part_of_the_value(self) -> None:
        """An event of mail has a reply, and applications make JSON of events."""
        reply, other = Reply.of(250, "0.0", "Ok"), Reply.of(250, "0.0", "Ok")
        self.assertIs(reply.wire, reply.wire)
        self.assertEqual((reply, hash(reply), repr(reply)), (other, hash(other), repr(other)))
        expected = {"code": 250, "status": "0.0", "lines": ("Ok",), "utf8": False}
        self.assertEqual(asdict(reply), expected)
        self.assertEqual(Reply.from_json(reply.to_json()), reply)


class OfPeers(SynchronousTestCase):
    def test_the_enhanced_code_of_a_peer_is_split_off_the_text(self) -> None:
        reply = Reply.from_lines(450, ("4.2.1 Busy", "4.2.1 Try later"))
        self.assertEqual(reply, Reply(450, "4.2.1", "Busy", "Try later"))

    def test_an_enhanced_code_that_contradicts_the_reply_code_is_dropped(self) -> None:
        self.assertEqual(Reply.from_lines(550, ("2.1.5 OK",)), Reply(550, None, "OK"))

    def test_a_reply_is_shown_as_it_was_said_whatever_its_enhanced_codes_are(self) -> None:
        for code, lines, status in (
            (450, ("4.2.1 Busy",), "4.2.1"),
            (450, ("4.2.1 Busy", "4.2.1 Later"), "4.2.1"),
            (450, ("4.2.1 Busy", "later"), "4.2.1"),
            (450, ("Busy", "4.2.1 Later"), None),
            (450, ("4.2.1 Busy", "4.3.1 Full"), None),
            (550, ("4.2.1 Busy",), None),
            (550, ("No",), None),
        ):
            reply = Reply.received(code, lines)
            self.assertEqual(reply.enhanced, status, lines)
            said = str(reply).replace(f"{status} ", "")
            self.assertEqual(
                said.split(), [str(code), *" ".join(lines).replace(f"{status} ", "").split()]
            )

    def test_the_detail_of_a_reply_may_stand_anywhere_in_its_text(self) -> None:
        for code, lines, detail in (
            (552, ("5.2.2 Full",), "2.2"),
            (552, ("Full: 5.2.2",), "2.2"),
            (552, ("5.1.1 one", "5.2.2 two"), "2.2"),
            (552, ("5.2.2 one", "4.3.1 two"), "2.2"),
            (552, ("4.1.1 one", "4.3.1 two"), "3.1"),
            (552, ("version 15.2.2 and 5.2.2x",), None),
            (552, ("Full",), None),
        ):
            self.assertEqual(Reply.received(code, lines).detail, detail, lines)

    def test_a_reply_as_a_string_is_one_printable_line(self) -> None:
        self.assertEqual(str(Reply(550, "5.1.1", "a\r\n", "\x1b")), r"550 5.1.1 a\r\n \x1b")
        self.assertEqual(printable("ü\U0001f600"), r"\xfc\U0001f600")


class InUTF8(SynchronousTestCase):
    def test_text_beyond_ascii_is_escaped_unless_the_client_asked_for_it(self) -> None:
        self.assertEqual(Reply(550, "7.1", "schön").wire, b"550 5.7.1 sch\\xf6n\r\n")
        in_utf8 = Reply(550, "7.1", "schön", utf8=True)
        self.assertEqual(in_utf8.wire, "550 5.7.1 schön\r\n".encode())

    def test_a_long_utf_8_line_is_cut_between_two_characters(self) -> None:
        for more in range(4):
            wire = Reply(250, None, "a" * more + "ü" * 600, utf8=True).wire
            self.assertIn(len(wire), (511, 512))
            self.assertTrue(wire[:-2].decode().endswith("ü"))
