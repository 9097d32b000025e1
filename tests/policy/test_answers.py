"""Answers of policies: what they are made of, and what they refuse."""

from __future__ import annotations

from io import BytesIO

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import Mark, Quarantine, Reply, Rewrite
from twisted_mta.mail.address import AddressError, Mailbox


class Marks(SynchronousTestCase):
    def test_fields_are_given_in_any_of_the_usual_forms(self) -> None:
        expected = (b"X-One: 1\r\n", b"X-Two: a\r\n b\r\n")
        for fields in (
            ["X-One: 1", "X-Two: a\r\n b"],
            [b"X-One: 1\r\n", b"X-Two: a\r\n b\r\n"],
            [("X-One", "1"), ("X-Two", "a\r\n b")],
            {"X-One": "1", "X-Two": "a\r\n b"},
        ):
            self.assertEqual(Mark(fields).fields, expected)  # type: ignore[arg-type]
        self.assertEqual(Mark("X-One: 1").fields, expected[:1])
        self.assertEqual(Mark({"X-U": "ü"}).fields, ("X-U: ü\r\n".encode(),))

    def test_no_field_can_bring_another_one_or_end_the_header(self) -> None:
        for field in (
            "X-One: 1\r\nX-Two: 2",
            "X-One: 1\r\n\r\nbody",
            "X-One: 1\nX-Two: 2",
            "X-One: 1\rX-Two: 2",
            "X-One: \0",
            "X One: 1",
            ": 1",
            "no field",
            "",
            "X-Ü: 1",
            "X-Long: " + "x" * 998,
        ):
            error = self.assertRaises(ValueError, Mark, [field])
            self.assertIn("expected one header field", str(error))


class Rewrites(SynchronousTestCase):
    def test_addresses_are_parsed(self) -> None:
        rewrite = Rewrite(sender="ann@a.example", recipients=["bob@B.example", "bob@b.example"])
        self.assertEqual(rewrite.sender, "ann@a.example")
        self.assertEqual(rewrite.recipients, (Mailbox.parse("bob@b.example"),))
        self.assertEqual(Rewrite(sender="").sender, "")
        self.assertIsNone(Rewrite(add=["X: 1"]).sender)
        self.assertEqual(Rewrite(recipients=()).recipients, ())
        for wrong in ("ann", "ann@", "@b.example", "a b@c.example"):
            self.assertRaises(AddressError, Rewrite, sender=wrong)
            self.assertRaises(AddressError, Rewrite, recipients=[wrong])

    def test_names_of_fields_are_read_in_any_case(self) -> None:
        self.assertEqual(Rewrite(remove=["X-Old", "bcc"]).remove, ("x-old", "bcc"))
        self.assertEqual(Rewrite(remove="Bcc").remove, ("bcc",))
        for wrong in ("X Old", "X-Old:", "", "Ü"):
            self.assertRaises(ValueError, Rewrite, remove=[wrong])

    def test_a_content_is_octets_or_a_file(self) -> None:
        file = BytesIO(b"x")
        self.assertIs(Rewrite(content=file).content, file)
        self.assertEqual(Rewrite(content=b"x").content, b"x")


class Replies(SynchronousTestCase):
    def test_a_reply_has_a_code_an_enhanced_code_of_its_class_and_lines(self) -> None:
        reply = Reply(550, "5.7.1", "not from there", "see https://here.example/")
        self.assertEqual(
            reply.wire, b"550-5.7.1 not from there\r\n550 5.7.1 see https://here.example/\r\n"
        )
        self.assertEqual(Reply(451).wire, b"451 \r\n")

    def test_codes_that_contradict_each_other_are_refused(self) -> None:
        for code, status in ((550, "4.7.1"), (450, "5.7.1"), (550, "5"), (550, "x")):
            error = self.assertRaises(ValueError, Reply, code, status, "no")
            self.assertIn(f"such as {code // 100}.0.0", str(error))
        for code in (199, 600, "550", None):
            self.assertRaises(ValueError, Reply, code)
        self.assertRaises(ValueError, Reply, 550, "5.7.1", b"octets")

    def test_a_quarantine_always_has_a_reason(self) -> None:
        self.assertTrue(Quarantine().reason)
