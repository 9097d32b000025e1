"""A list of clients, senders and recipients: its entries, and how they are found."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.address import Mailbox
from twisted_mta.policy.lists.access_list import AccessList, parse_in_slices
from twisted_mta.system.line_file import LineFileError
from twisted_mta.system.work import finished


def read(text: str) -> AccessList:
    return finished(parse_in_slices(text.encode(), "list"))


class Entries(SynchronousTestCase):
    def test_the_entry_with_the_longest_network_or_name_is_found(self) -> None:
        entries = read(
            "0.0.0.0/0\n192.0.2.0/24\n192.0.2.128/25\n2001:db8::/32\n2001:db8::1\n"
            ".example\n.a.example\nb.a.example\n"
        )
        for address, text in (
            ("192.0.2.1", "192.0.2.0/24"),
            ("192.0.2.129", "192.0.2.128/25"),
            ("::ffff:192.0.2.129", "192.0.2.128/25"),
            ("198.51.100.1", "0.0.0.0/0"),
            ("2001:db8::1%eth0", "2001:db8::1"),
            ("2001:db8::2", "2001:db8::/32"),
        ):
            entry = entries.address(address)
            self.assertEqual(entry and entry.text, text)
        self.assertIsNone(entries.address("2001:db9::1"))
        self.assertIsNone(entries.address(None))
        for domain, line in (("b.a.example", 8), ("c.b.a.example", 7), ("a.example", 6)):
            sender = entries.sender(Mailbox("ann", domain))
            self.assertEqual(sender and sender.line, line)
        self.assertIsNone(entries.sender(Mailbox("ann", "example")))
        self.assertIsNone(entries.sender(Mailbox("ann", "[192.0.2.1]")))

    def test_no_spelling_of_a_name_is_missed(self) -> None:
        entries = read("bücher.example.\nJÜRGEN@Sender.Example\nto:Bob@us.example\n")
        self.assertIsNotNone(entries.sender(Mailbox.parse("x@XN--BCHER-KVA.example")))
        self.assertIsNotNone(entries.sender(Mailbox.parse("ju\u0308rgen@sender.example.")))
        self.assertIsNotNone(entries.recipient(Mailbox.parse('"BOB+tag"@us.example')))
        self.assertIsNone(entries.recipient(Mailbox.parse("bobby@us.example")))
        self.assertIsNone(entries.sender(Mailbox.parse("bob@us.example")))

    def test_comments_marks_and_line_ends_of_any_system_are_read(self) -> None:
        entries = read("\ufeff# list\r\n\r\n  a.example  # why\r\na#b@c.example\r\nhelo:[x]")
        self.assertEqual(len(entries), 3)
        self.assertIsNotNone(entries.sender(Mailbox.parse("a#b@c.example")))
        self.assertIsNotNone(entries.host("helo", "[X]"))

    def test_errors_name_the_line_and_what_was_expected(self) -> None:
        for text, mistake in (
            ("a.example\na\x1b.example", 'list:2: "a\\x1b.example": not a domain name; expected'),
            ("client:", "expected an address, a network, a domain"),
            ("helo:a b", "not a domain name"),
            ("x" * 10_000, "not a domain name"),
        ):
            with self.assertRaises(LineFileError) as raised:
                read(text)
            self.assertIn(mistake, str(raised.exception))
            self.assertLess(len(str(raised.exception)), 400)
        with self.assertRaises(LineFileError) as raised:
            finished(parse_in_slices(b"\nb\xff\n", "list"))
        self.assertEqual(str(raised.exception), "list:2: not UTF-8; expected names in UTF-8")


class Large(SynchronousTestCase):
    def test_a_hundred_thousand_entries_are_read_in_slices_and_found_by_a_few_lookups(self) -> None:
        text = "".join(f"10.{n >> 8}.{n & 255}.0/24\nd{n}.example\n" for n in range(50_000))
        work, slices = parse_in_slices(text.encode(), "list"), 0
        while True:
            try:
                next(work)
            except StopIteration as end:
                entries: AccessList = end.value
                break
            slices += 1
        self.assertGreaterEqual(slices, 3_000)
        self.assertEqual(len(entries), 100_000)
        found = entries.address("10.195.79.9")
        self.assertEqual(found and found.text, "10.195.79.0/24")
        self.assertIsNotNone(entries.sender(Mailbox("x", "d49999.example")))
        finished(entries.empty())
        self.assertEqual(len(entries), 0)
