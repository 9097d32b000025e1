"""Return-Path and Delivered-To fields."""

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.message.delivery_fields import (
    alias_fields,
    delivered_to,
    read_delivered_to,
    return_path,
)


class ReturnPath(TidyTestCase):
    def test_return_path_holds_the_reverse_path(self) -> None:
        self.assertEqual(return_path(None), b"Return-Path: <>\r\n")
        self.assertEqual(
            return_path(Mailbox("a b", "example.org")), b'Return-Path: <"a b"@example.org>\r\n'
        )
        self.assertEqual(
            return_path(Mailbox("dörte", "example.org")),
            "Return-Path: <dörte@example.org>\r\n".encode(),
        )

    def test_controls_in_a_reverse_path_cannot_end_the_field(self) -> None:
        field = return_path(Mailbox("a\r\nX-Evil: yes\x00", "example.org"))
        self.assertEqual(field.count(b"\n"), 1)
        self.assertNotIn(b"\x00", field)


class DeliveredTo(TidyTestCase):
    def test_a_copy_names_its_mailbox_and_the_address_that_the_sender_wrote(self) -> None:
        mailbox, original = Mailbox("ann", "us.example"), Mailbox("ann+x y", "us.example")
        self.assertEqual(delivered_to(mailbox, None), b"Delivered-To: ann@us.example\r\n")
        self.assertEqual(
            delivered_to(mailbox, original),
            b'X-Original-To: "ann+x y"@us.example\r\nDelivered-To: ann@us.example\r\n',
        )

    def test_the_last_alias_stands_on_top(self) -> None:
        aliases = (Mailbox("team", "us.example"), Mailbox("sub list", "us.example"))
        self.assertEqual(
            alias_fields(aliases),
            b'Delivered-To: "sub list"@us.example\r\nDelivered-To: team@us.example\r\n',
        )
        self.assertEqual(alias_fields(()), b"")

    def test_an_alias_is_written_in_ascii_and_read_back_unchanged(self) -> None:
        for local_part in ("team", "a+b", 'o"dd \\ one', "d\u00f6rte", "d\u00f6r+te=x y\\x{41}"):
            mailbox = Mailbox(local_part, "us.example")
            field = alias_fields([mailbox])
            self.assertTrue(field.isascii())
            value = field.removesuffix(b"\r\n").partition(b":")[2]
            self.assertEqual(read_delivered_to(value), mailbox)

    def test_delivered_to_fields_of_other_programs_are_read(self) -> None:
        for value, mailbox in (
            (b" <Team@US.example>", Mailbox("Team", "us.example")),
            (b"\r\n\tteam@us.example ", Mailbox("team", "us.example")),
            ("d\u00f6rte@us.example".encode(), Mailbox("d\u00f6rte", "us.example")),
            (b" nobody", None),
            (b"", None),
            (b" a@us.example, b@us.example", None),
            (b"\xff\x00", None),
            (rb"a\x{110000}@us.example", None),
        ):
            self.assertEqual(read_delivered_to(value), mailbox, value)

    def test_an_alias_too_long_for_a_line_is_left_out(self) -> None:
        self.assertEqual(alias_fields([Mailbox("x" * 950, "us.example")]), b"")
