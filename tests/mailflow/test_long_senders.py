"""Forwarded mail whose rewritten sender would exceed the 64 octets of a local part (RFC 5321)."""

from __future__ import annotations

import errno
import re

from twisted_mta.testing.files import UnsyncedFiles

from .routed_mtas import CONTENT, RoutedTestCase

# As long as the senders of large mailers, which have one for each message.
SENDER = "0102019a1b2c3d4e-5f60718a-9b0c-4d1e-8f20-31425364ab-000000@c.example"
DAY = 86_400.0
EXPIRED = "550 5.1.1 No such mailbox here: it led back"


class LongSenders(RoutedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.begin(
            "abc", {"a": "team: carol@b.example\n"}, srs_domain=None, a={"srs_domain": "a.example"}
        )
        self.forwarder = self.mtas["a"]
        self.directory = f"{self.forwarder.mta.config.state_dir}/srs"

    def forwarded(self, sender: str = SENDER) -> str:
        """Return the reverse-path with which mail is forwarded to the next host."""
        before = len(self.mail("b", "carol"))
        self.assertTrue(self.send("team@a.example", sender=sender).startswith("250 "))
        self.settle()
        copy = self.mail("b", "carol")[before:][0]
        match = re.search(rb"^Return-Path: <(.*?)>", copy)
        assert match is not None
        return match[1].decode()

    def bounce(self, recipient: str) -> str:
        return self.send(recipient, sender="")

    def test_the_reverse_path_is_short_and_a_bounce_to_it_comes_back_to_the_sender(self) -> None:
        reverse_path = self.forwarded()
        self.assertRegex(reverse_path, r"\ASRS0=[A-Z2-7]{6}=[A-Z2-7]{2}==[A-Z2-7]{16}@a\.example\Z")
        for spelling in (reverse_path, reverse_path.lower()):
            self.assertTrue(self.bounce(spelling).startswith("250 "))
        self.settle()
        self.assertEqual(len(self.mail("c", SENDER.partition("@")[0])), 2)

    def test_the_sender_is_durable_before_the_message_is_accepted(self) -> None:
        client = self.forwarder.connect(("127.0.0.1", 25))
        reply = client.mail(CONTENT, "team@a.example", sender=SENDER)
        self.assertTrue(reply[-1].startswith("250 "))
        self.forwarder.files.crash()
        (path,) = self.tags()
        self.assertEqual(self.forwarder.files.content(path), f"{SENDER}\n".encode())
        self.settle()

    def test_a_sender_that_cannot_be_kept_defers_the_message(self) -> None:
        for operation in ("create", "write", "sync", "rename", "sync_directory"):
            self.forwarder.files.fail_next(operation, OSError(errno.EIO, "I/O error"))
            self.assertTrue(self.send("team@a.example", sender=SENDER).startswith("451 4.3.0 "))
            self.assertEqual([path for path in self.tags() if path.endswith(".new")], [])
        self.settle()
        self.assertEqual(self.mail("b", "carol"), [])

    def test_each_day_keeps_a_sender_once_and_expired_ones_are_removed(self) -> None:
        reverse_path = self.forwarded()
        self.forwarded()
        self.assertEqual(len(self.tags()), 1)
        self.forwarder.reactor.jump(21 * DAY)
        self.assertTrue(self.bounce(reverse_path).startswith("250 "))
        self.forwarder.advance(DAY)
        self.assertTrue(self.bounce(reverse_path).startswith(EXPIRED))
        self.forwarded()
        self.assertEqual(len(self.tags()), 1)

    def test_an_unknown_tag_gets_the_reply_of_an_expired_one(self) -> None:
        reverse_path = self.forwarded()
        (path,) = self.tags()
        self.forwarder.files.unlink(path)
        self.assertTrue(self.bounce(reverse_path).startswith(EXPIRED))

    def test_a_tag_that_was_not_made_here_is_refused_without_a_look_at_the_disk(self) -> None:
        reverse_path = self.forwarded()
        self.forwarder.files.operations.clear()
        last = reverse_path.partition("@")[0][-1]
        forged = reverse_path.replace(f"{last}@", "C@" if last == "B" else "B@")
        self.assertTrue(self.bounce(forged).startswith("550 5.1.1 "))
        self.assertEqual(
            [each for each in self.forwarder.files.operations if self.directory in each[1]], []
        )

    def test_a_table_that_cannot_be_read_defers_the_bounce(self) -> None:
        reverse_path = self.forwarded()
        self.forwarder.files.fail_next("open", OSError(errno.EIO, "I/O error"))
        self.assertTrue(self.bounce(reverse_path).startswith("451 4.3.0 "))

    def test_a_damaged_file_leads_back_to_no_sender(self) -> None:
        reverse_path = self.forwarded()
        (path,) = self.tags()
        self.forwarder.files.unlink(path)
        self.forwarder.files.create(path).close()
        self.assertTrue(self.bounce(reverse_path).startswith("550 5.1.1 "))

    def test_short_senders_are_not_kept(self) -> None:
        self.assertIn("=c.example=ann@a.example", self.forwarded("ann@c.example"))
        self.assertEqual(self.tags(), [])

    def test_a_sender_that_others_forwarded_before_comes_back_too(self) -> None:
        long = "SRS0=HHHH=TT=" + "d" * 40 + ".example=bounce@c.example"
        self.assertIn("==", self.forwarded(long))
        self.assertTrue(self.bounce(self.forwarded(long)).startswith("250 "))
        self.settle()
        self.assertEqual(len(self.mail("c", long.partition("@")[0].lower())), 1)

    def tags(self) -> list[str]:
        files = self.forwarder.files
        assert isinstance(files, UnsyncedFiles)
        return files.tree(self.directory)
