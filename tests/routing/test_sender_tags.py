"""The files of senders that do not fit into a rewritten reverse-path."""

from __future__ import annotations

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.routing.sender_tags import SenderTags
from twisted_mta.routing.srs import SenderRewriting
from twisted_mta.testing.files import UnsyncedFiles

DAY = 86_400.0
KEY = b"0123456789abcdef"


def sender(number: int) -> Mailbox:
    return Mailbox(f"{number:050}", "sender.example")


class Table(TidyTestCase):
    def setUp(self) -> None:
        self.files = UnsyncedFiles()
        self.now = 20_000 * DAY
        self.secrets = 0
        self.tags = self.make()
        self.tags.make_directory()

    def make(self) -> SenderTags:
        """Return the table as one process sees it."""
        return SenderTags(
            "/srs", files=self.files, secret=self.secret, wall_time=lambda: self.now, most=3
        )

    def secret(self, octets: int) -> bytes:
        self.secrets += 1
        return self.secrets.to_bytes(octets, "big")

    def rewritten(self, reverse_path: Mailbox, tags: SenderTags | None = None) -> Mailbox:
        """Return the rewritten mailbox, with its sender kept."""
        srs = SenderRewriting("us.example", KEY, tags or self.tags)
        mailbox = srs.rewritten(reverse_path, self.now)
        tag = srs.tag_of(mailbox)
        if tag is not None:
            (tags or self.tags).keep(tag, reverse_path)
        return mailbox

    def restored(self, mailbox: Mailbox) -> Mailbox:
        return SenderRewriting("us.example", KEY, self.make()).restored(mailbox, self.now)

    def test_every_process_finds_the_senders_that_another_has_kept(self) -> None:
        for each in (
            sender(1),
            Mailbox("d\u00f6rte" * 10, "sender.example"),
            Mailbox('a "quoted" @ name' * 3, "sender.example"),
        ):
            mailbox = self.rewritten(each)
            self.assertLessEqual(len(mailbox.local_part), 64)
            self.assertEqual(self.restored(mailbox), each)

    def test_the_longest_local_part_that_needs_no_tag_has_64_octets(self) -> None:
        srs = SenderRewriting("us.example", KEY, self.tags)
        fits = Mailbox("x" * (64 - len("SRS0=HASH66=DD=sender.example=")), "sender.example")
        self.assertIsNone(srs.tag_of(srs.rewritten(fits, self.now)))
        longer = Mailbox(fits.local_part + "x", "sender.example")
        self.assertIsNotNone(srs.tag_of(srs.rewritten(longer, self.now)))
        # Quotes count, and octets instead of characters.
        quoted = Mailbox(fits.local_part[:-1] + " ", "sender.example")
        self.assertIsNotNone(srs.tag_of(srs.rewritten(quoted, self.now)))
        accented = Mailbox(fits.local_part[:-1] + "\u00e4", "sender.example")
        self.assertIsNotNone(srs.tag_of(srs.rewritten(accented, self.now)))

    def test_senders_that_differ_in_case_alone_are_two(self) -> None:
        for name in ("Bounce" * 9, "bounce" * 9):
            each = Mailbox(name, "sender.example")
            self.assertEqual(self.restored(self.rewritten(each)), each)

    def test_a_full_table_leaves_reverse_paths_alone_until_senders_expire(self) -> None:
        lines = logged_lines(self)
        for number in range(3):
            self.rewritten(sender(number))
            self.now += DAY
        self.assertEqual(self.rewritten(sender(4)), sender(4))
        other = self.make()
        self.assertIn("us.example", str(self.rewritten(sender(5), other)))  # it has not counted yet
        self.assertEqual(self.rewritten(sender(6), other), sender(6))
        self.assertTrue(any("has 3 senders, and takes no more" in line for line in lines), lines)

    def test_expired_files_are_removed_even_where_they_are_not_complete(self) -> None:
        self.rewritten(sender(1))
        (name,) = self.files.names("/srs")
        self.files.create(f"/srs/{name}.0a.new").close()
        self.files.create("/srs/notes").close()  # not ours
        self.now += 22 * DAY
        self.rewritten(sender(2))
        names = self.files.names("/srs")
        self.assertIn("notes", names)
        self.assertEqual(len(names), 2)
        self.assertNotIn(name, names)

    def test_a_sender_that_another_message_has_kept_meanwhile_is_no_error(self) -> None:
        mailbox = self.rewritten(sender(1))
        (name,) = self.files.names("/srs")
        self.files.fail_next("open", FileNotFoundError())
        self.tags.keep(name, sender(1))
        self.assertEqual(self.files.names("/srs"), [name])
        self.assertEqual(self.restored(mailbox), sender(1))

    def test_a_kept_sender_survives_a_crash(self) -> None:
        mailbox = self.rewritten(sender(1))
        self.files.crash()
        self.assertEqual(self.restored(mailbox), sender(1))
