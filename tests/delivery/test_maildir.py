"""Local delivery into Maildirs: files, failures of the disk, batches, crashes, unmounts."""

import errno
import os
import random  # noqa: TID251 - seeded, so every run draws the same
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred, execute, fail

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.delivery.mailbox_directory import NoMailbox, mailbox_directory
from twisted_mta.delivery.maildir import MaildirDelivery
from twisted_mta.interfaces import Files, Refused, Sign
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import Assessment
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import (
    NO_PARAMETERS,
    Envelope,
    Parameters,
    Recipient,
    RecipientNumber,
)
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.system.files import DiskFiles
from twisted_mta.testing.files import UnsyncedFiles

MAILDIR = NextHop("maildir")
TRACE = b"Received: from a\r\n\tby b; now\r\n"
CONTENT = b"Subject: Lunch\r\n\r\nAt noon?\r\n"
FIELDS = b"Return-Path: <alice@example.org>\nDelivered-To: %s@example.net\n"
REST = b"Received: from a\n\tby b; now\nSubject: Lunch\n\nAt noon?\n"
STORED = FIELDS % b"bob" + REST
"""The message in bob's Maildir."""


@frozen
class StreamedBody:
    """A body in given pieces that claims to be too large for memory."""

    pieces: Sequence[bytes] = field()
    size: int = 1 << 30

    def chunks(self) -> Iterator[bytes]:
        yield from self.pieces


def message(
    *local_parts: str,
    body: Body | None = None,
    domain: str = "example.net",
    parameters: Parameters = NO_PARAMETERS,
) -> Message:
    recipients = tuple(
        Recipient(RecipientNumber(number), Mailbox(local_part, domain))
        for number, local_part in enumerate(local_parts)
    )
    envelope = Envelope(Mailbox("alice", "example.org"), recipients, parameters)
    return Message(QueueId(5), envelope, TRACE, body or MemoryBody(CONTENT), 0.0, 9.0)


def signature(message: Message) -> Message:
    """Return a message with a field in front (`interfaces.Sign`)."""
    return evolve(message, trace=b"DKIM-Signature: x\r\n" + message.trace)


class MaildirTestCase(TidyTestCase):
    outcomes: list[Sequence[Outcome]]

    def setUp(self) -> None:
        self.files = UnsyncedFiles()
        self.now = 1795341600.25
        self.maildirs = self.delivery()

    def delivery(
        self,
        files: Files | None = None,
        executor: Any = execute,
        calls: int = 4,
        root: str = "/mail",
    ) -> MaildirDelivery:
        return MaildirDelivery(
            root,
            files=files or self.files,
            executor=executor,
            wall_time=lambda: self.now,
            hostname="mx.example",
            random=random.Random(1),
            calls=calls,
        )

    def deliver(self, message: Message) -> Sequence[Outcome]:
        return self.successResultOf(self.maildirs.deliver(MAILDIR, message))

    def replies(self, message: Message) -> list[str]:
        outcomes = self.deliver(message)
        numbers = [recipient.number for recipient in message.envelope.recipients]
        self.assertEqual([outcome.number for outcome in outcomes], numbers)
        return [str(outcome.reply) for outcome in outcomes]

    def remove(self, path: str) -> Any:
        """Remove a directory with all that is below it; return it for `put`."""
        above, _, name = path.rpartition("/")
        return self.files._directory(above).names.pop(name)

    def put(self, path: str, directory: Any) -> None:
        """Put a directory where it was."""
        above, _, name = path.rpartition("/")
        self.files._directory(above).names[name] = directory

    def mail(self, local_part: str = "bob") -> list[bytes]:
        """Return the messages that a reader of the Maildir sees."""
        directory = f"/mail/example.net/{local_part}/new"
        return [self.files.content(path) for path in self.files.tree(directory)]


class Delivery(MaildirTestCase):
    def test_a_message_is_stored_with_its_trace_and_lf_line_ends(self) -> None:
        self.assertEqual(self.replies(message("bob")), ["250 2.0.0 Delivered to the mailbox"])
        self.assertEqual(self.mail(), [STORED])
        self.assertTrue(self.files.is_directory("/mail/example.net/bob/cur"))
        self.assertEqual(self.files.tree("/mail/example.net/bob/tmp"), [])

    def test_each_recipient_has_a_file_of_its_own(self) -> None:
        self.assertEqual(len(self.replies(message("bob", "eve"))), 2)
        self.assertEqual(self.mail("bob"), [STORED])
        self.assertEqual(self.mail("eve"), [FIELDS % b"eve" + REST])

    def test_the_file_is_the_same_however_the_content_is_split(self) -> None:
        content = b"a\r\n\r\nb\rc\r\r\nd\ne\r"
        expected = b"a\n\nb\rc\r\nd\ne\r"
        for first in range(len(content)):
            for second in range(first + 1, len(content) + 1):
                cut = (content[:first], content[first:second], content[second:])
                self.files = UnsyncedFiles()
                self.maildirs = self.delivery()
                self.deliver(message("bob", body=StreamedBody([piece for piece in cut if piece])))
                self.assertEqual(self.mail()[0].partition(b"now\n")[2], expected, cut)

    def test_binary_content_is_stored_octet_by_octet(self) -> None:
        """RFC 3030 §3; the header fields before it end in CR LF too."""
        content = b"Subject: x\r\n\r\n" + bytes(range(256)) + b"\r\n.\r\n\n.\n\r\r\n\0\r"
        bob, eve = (
            (FIELDS % name).replace(b"\n", b"\r\n") + TRACE + content for name in (b"bob", b"eve")
        )
        bodies: list[Body] = [MemoryBody(content)]
        bodies += [
            StreamedBody([content[:cut], content[cut:]]) for cut in range(1, len(content), 7)
        ]
        for body in bodies:
            self.files = UnsyncedFiles()
            self.maildirs = self.delivery()
            self.deliver(message("bob", "eve", body=body, parameters={"BODY": "BINARYMIME"}))
            self.assertEqual((self.mail("bob"), self.mail("eve")), ([bob], [eve]))

    def test_8bit_content_is_stored_with_lf_line_ends(self) -> None:
        for body in ("8BITMIME", "7BIT"):
            self.files = UnsyncedFiles()
            self.maildirs = self.delivery()
            self.deliver(message("bob", parameters={"BODY": body}))
            self.assertEqual(self.mail(), [STORED])

    def test_a_large_body_is_never_in_memory_as_a_whole(self) -> None:
        self.deliver(message("bob", body=StreamedBody([b"x" * 1000] * 50)))
        writes = [path for operation, path in self.files.operations if operation == "write"]
        self.assertEqual(len(writes), 50)
        self.assertEqual(
            len(self.mail()[0]),
            50_000 + len(FIELDS % b"bob") + len(TRACE) - 2,
        )

    def test_a_message_with_an_empty_body_is_stored(self) -> None:
        self.deliver(message("bob", body=MemoryBody(b"")))
        self.assertEqual(self.mail(), [STORED.partition(b"Subject")[0]])

    def test_file_names_are_unique_and_have_the_maildir_form(self) -> None:
        for _ in range(3):
            self.deliver(message("bob"))
        names = self.files.names("/mail/example.net/bob/new")
        self.assertEqual(len(names), 3)
        for number, name in enumerate(names):
            self.assertRegex(name, rf"\A1795341600\.M250000R[0-9a-f]{{16}}Q{number}\.mx\.example\Z")

    def test_an_existing_file_name_is_not_used_again(self) -> None:
        # The same random bits and the same time again, as after a restart in a simulation.
        self.deliver(message("bob"))
        self.files.create(
            "/mail/example.net/bob/tmp/" + self.files.names("/mail/example.net/bob/new")[0]
        ).close()
        self.maildirs = self.delivery()
        self.replies(message("bob"))
        self.assertEqual(len(self.mail()), 2)

    def test_the_hostname_is_escaped_in_file_names(self) -> None:
        self.maildirs = MaildirDelivery(
            "/mail",
            files=self.files,
            executor=execute,
            wall_time=lambda: self.now,
            hostname="a/../b:2,S",
            random=random.Random(1),
        )
        self.deliver(message("bob"))
        (name,) = self.files.names("/mail/example.net/bob/new")
        self.assertTrue(name.endswith(r".a\057..\057b\0722,S"), name)

    def test_files_are_synced_in_an_order_that_survives_a_crash(self) -> None:
        self.deliver(message("bob"))
        self.files.operations.clear()
        self.deliver(message("bob"))
        steps = [
            (operation, path.split("/bob/")[1].partition("/")[0])
            for operation, path in self.files.operations
            if operation != "identity"  # no change on the disk
        ]
        self.assertEqual(
            steps,
            [
                ("create", "tmp"),
                ("write", "tmp"),
                ("sync", "tmp"),
                ("rename", "tmp"),
                ("sync_directory", "new"),
            ],
        )

    def crashed_at_every_step(self, *, syncs: bool) -> int:
        """Cut the power after each number of steps; return how often a message is lost."""
        lost = 0
        for steps in range(40):
            self.files = UnsyncedFiles(syncs=syncs)
            self.maildirs = self.delivery()
            self.files.cut_power_in(steps)
            (outcome,) = self.deliver(message("bob"))
            self.files.crash()
            try:
                found = self.mail()
            except OSError:
                found = []
            lost += outcome.delivered and found != [STORED]
            self.assertFalse(outcome.failed)
            for content in found:
                self.assertEqual(content, STORED)
        return lost

    def test_a_delivered_message_survives_a_crash_at_any_moment(self) -> None:
        self.assertEqual(self.crashed_at_every_step(syncs=True), 0)

    def test_without_syncs_a_crash_loses_messages(self) -> None:
        # A negative control: the test above can fail.
        with self.assertRaises(self.failureException):
            self.assertEqual(self.crashed_at_every_step(syncs=False), 0)

    def test_a_maildir_that_was_never_synced_is_made_durable(self) -> None:
        # Created by a process that was killed before it could sync: in the page cache only.
        self.files.syncs = False
        for name in ("tmp", "new", "cur"):
            self.files.make_directories(f"/mail/example.net/bob/{name}")
        self.files.syncs = True
        self.files.sync_directory("/")
        self.deliver(message("bob"))
        self.files.crash()
        self.assertEqual(self.mail(), [STORED])

    def test_a_full_disk_defers_and_leaves_nothing_behind(self) -> None:
        self.files.capacity = 10
        (reply,) = self.replies(message("bob"))
        self.assertEqual(reply, "452 4.3.1 The mailbox cannot be written now (ENOSPC)")
        self.assertEqual(self.files.tree(), [])
        self.files.capacity = None
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_each_failure_of_the_disk_defers(self) -> None:
        self.deliver(message("bob"))
        for operation in ("create", "write", "sync", "rename", "sync_directory"):
            before = self.files.tree()
            self.files.fail_next(operation, OSError(errno.EIO, "broken"))
            (outcome,) = self.deliver(message("bob"))
            self.assertEqual(str(outcome.reply)[:9], "451 4.3.0", operation)
            self.assertIn("(EIO)", str(outcome.reply))
            # A reader may have seen the file only where it was in new/ for a moment.
            self.assertEqual(outcome.uncertain, operation == "sync_directory")
            self.assertEqual(self.files.tree(), before, operation)

    def test_a_file_in_new_is_delivered_even_if_its_name_in_tmp_stays(self) -> None:
        logged = logged_lines(self)
        self.deliver(message("bob"))
        self.files.fail_next("rename's unlink", OSError(errno.EIO, "broken"))
        (outcome,) = self.deliver(message("bob"))
        self.assertEqual((outcome.reply.code, outcome.uncertain), (250, False))
        (left,) = self.files.tree("/mail/example.net/bob/tmp")
        text = f"0000000000005 {left} should not be there any more, and cannot be removed: broken"
        self.assertEqual(logged, [text])
        self.files.crash()
        self.assertEqual(self.mail(), [STORED, STORED])

    def test_a_synced_file_is_delivered_even_if_closing_fails(self) -> None:
        self.files.fail_next("close", OSError(errno.EIO, "broken"))
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")
        self.assertEqual(self.mail(), [STORED])

    def test_a_file_that_cannot_be_removed_from_new_is_not_copied_again(self) -> None:
        self.deliver(message("bob"))
        broken = OSError(errno.EIO, "broken")
        self.files.fail_next("sync_directory", broken)
        for _ in range(3):
            self.files.fail_next("unlink", broken)
        for _ in range(3):
            self.assertEqual(self.replies(message("bob"))[0][:9], "451 4.3.0")
            self.assertEqual(len(self.mail()), 2)
        # The disk works again: the stray copy is replaced by a durable one.
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")
        self.files.crash()
        self.assertEqual(self.mail(), [STORED, STORED])

    def test_the_log_has_the_path_that_cannot_be_written_and_the_reply_has_not(self) -> None:
        self.deliver(message("bob"))
        logged = logged_lines(self)
        denied = "/mail/example.net/bob/tmp/1"
        for operation in ("create", "write", "sync", "rename", "sync_directory"):
            for error, path in (
                (PermissionError(errno.EACCES, "Permission denied", denied), denied),
                (OSError(errno.EACCES, "Permission denied"), "/mail/example.net/bob"),
            ):
                self.files.fail_next(operation, error)
                (reply,) = self.replies(message("bob"))
                self.assertEqual(reply, "451 4.2.0 The mailbox cannot be written now (EACCES)")
                self.assertEqual(
                    logged, [f"0000000000005 is not delivered: {path}: Permission denied"]
                )
                logged.clear()

    def test_a_mailbox_that_another_user_could_redirect_is_deferred(self) -> None:
        faults = ["/mail/example.net/bob is a symbolic link", "", ""]
        self.patch(UnsyncedFiles, "mailbox_fault", lambda *arguments: faults.pop(0))
        logged = logged_lines(self)
        (reply,) = self.replies(message("bob"))
        self.assertEqual(reply, "451 4.2.0 The mailbox cannot be written now (EPERM)")
        self.assertEqual(
            (logged, self.files.tree()),
            (["0000000000005 is not delivered: /mail/example.net/bob is a symbolic link"], []),
        )
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_a_broken_mailbox_does_not_affect_other_recipients(self) -> None:
        self.files.make_directories("/mail/example.net")
        self.files.create("/mail/example.net/bob").close()
        replies = self.replies(message("bob", "eve"))
        self.assertEqual(replies[0][:9], "451 4.2.0")
        self.assertEqual(replies[1][:9], "250 2.0.0")

    def test_a_removed_maildir_is_created_again(self) -> None:
        self.deliver(message("bob"))
        for path in ("example.net/bob", "example.net"):
            self.remove(f"/mail/{path}")
            self.assertEqual(self.replies(message("bob"))[0][:3], "250")
            self.assertEqual(self.mail(), [STORED])

    def test_an_unreadable_body_defers(self) -> None:
        class Broken:
            size = 10

            def chunks(self) -> Iterator[bytes]:
                yield b"x"
                raise OSError(errno.EIO, "broken")

        for size in (10, 1 << 20):
            Broken.size = size
            self.assertEqual(self.replies(message("bob", "eve", body=Broken()))[1][:9], "451 4.3.0")
            self.assertEqual(self.files.tree(), [])

    def test_a_failing_executor_defers(self) -> None:
        def gone(*arguments: object) -> Deferred[Sequence[Outcome]]:
            return fail(RuntimeError("stopped\r\n"))

        self.maildirs = self.delivery(executor=gone)
        for reply in self.replies(message("bob", "eve")):
            self.assertEqual(reply[:9], "451 4.3.0")

    def test_a_message_is_one_call_of_the_executor(self) -> None:
        calls: list[object] = []

        def counting(function: object, *arguments: object) -> Deferred[object]:
            calls.append(function)
            return execute(function, *arguments)  # type: ignore[arg-type]

        self.maildirs = self.delivery(executor=counting)
        self.deliver(message("bob", "eve", "mallory"))
        self.assertEqual(len(calls), 1)

    def test_errors_that_an_operator_can_correct_defer(self) -> None:
        for number, reply in (
            (errno.ENOSPC, "452 4.3.1"),
            (errno.EDQUOT, "452 4.2.2"),
            (errno.EIO, "451 4.3.0"),
            (errno.EROFS, "451 4.3.0"),
            (errno.EACCES, "451 4.2.0"),
            (errno.ENOTDIR, "451 4.2.0"),
            (errno.EMFILE, "451 4.3.2"),
        ):
            for operation in ("make_directories", "create", "write", "sync_directory"):
                self.files = UnsyncedFiles()
                self.maildirs = self.delivery()
                self.files.fail_next(operation, OSError(number, "broken"))
                (found,) = self.replies(message("bob"))
                self.assertEqual(found[:9], reply, operation)
                self.assertIn(errno.errorcode[number], found)

    def test_the_original_recipient_of_an_alias_is_in_the_trace(self) -> None:
        aliased = Recipient(
            RecipientNumber(0),
            Mailbox("bob+x", "example.net"),
            original=Mailbox("the boss", "example.org"),
        )
        self.deliver(evolve(message(), envelope=Envelope(None, (aliased,))))
        fields = b'Return-Path: <>\nX-Original-To: "the boss"@example.org\n'
        self.assertEqual(self.mail(), [fields + b"Delivered-To: bob+x@example.net\n" + REST])

    def test_a_recipient_with_an_invalid_directory_fails_alone(self) -> None:
        replies = self.replies(message("../eve", "bob"))
        self.assertEqual(replies[0], "550 5.1.3 That can be no mailbox here")
        self.assertEqual(replies[1][:3], "250")
        self.assertEqual(len(self.files.tree()), 1)

    def test_a_mailbox_exists_once_it_has_a_maildir(self) -> None:
        self.assertFalse(self.maildirs.exists(Mailbox("bob", "example.net")))
        self.deliver(message("bob"))
        for same in ("bob", "Bob", "bob+lists"):
            self.assertTrue(self.maildirs.exists(Mailbox(same, "example.net")))
        for other in ("eve", "..", "bob/new"):
            self.assertFalse(self.maildirs.exists(Mailbox(other, "example.net")))

    def test_an_empty_directory_made_by_an_administrator_is_a_mailbox(self) -> None:
        self.files.make_directories("/mail/example.net/ann")
        self.assertTrue(self.maildirs.exists(Mailbox("Ann+lists", "example.net")))
        self.deliver(message("ann"))
        self.assertEqual(len(self.mail("ann")), 1)

    def test_a_file_in_place_of_the_directory_is_no_mailbox(self) -> None:
        self.files.make_directories("/mail/example.net")
        self.files.create("/mail/example.net/ann").close()
        self.assertFalse(self.maildirs.exists(Mailbox("ann", "example.net")))

    def test_a_message_is_delivered_on_a_real_disk(self) -> None:
        root = self.mktemp()
        maildirs = MaildirDelivery(
            root,
            files=DiskFiles(),
            executor=execute,
            wall_time=lambda: self.now,
            hostname="mx.example",
            random=random.Random(1),
        )
        self.successResultOf(maildirs.deliver(MAILDIR, message("bob")))
        (name,) = os.listdir(f"{root}/example.net/bob/new")
        with open(f"{root}/example.net/bob/new/{name}", "rb") as file:
            self.assertEqual(file.read(), STORED)
        self.assertEqual(os.listdir(f"{root}/example.net/bob/tmp"), [])


class Signing(MaildirTestCase):
    def delivery_signing_with(self, sign: Sign) -> None:
        self.maildirs = MaildirDelivery(
            "/mail",
            files=self.files,
            executor=execute,
            wall_time=lambda: self.now,
            hostname="mx.example",
            random=random.Random(1),
            sign=sign,
        )

    def test_a_message_is_stored_as_it_was_signed(self) -> None:
        self.delivery_signing_with(signature)
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")
        self.assertEqual(self.mail(), [FIELDS % b"bob" + b"DKIM-Signature: x\n" + REST])

    def test_other_messages_go_first_while_one_is_being_signed(self) -> None:
        waiting: Deferred[Message] = Deferred()
        self.delivery_signing_with(lambda message: waiting if message.id == 5 else message)
        delivering = self.maildirs.deliver(MAILDIR, message("bob"))
        self.deliver(evolve(message("eve"), id=QueueId(6)))
        self.assertNoResult(delivering)
        waiting.callback(signature(message("bob")))
        (outcome,) = self.successResultOf(delivering)
        self.assertTrue(outcome.delivered)
        self.assertEqual(len(self.mail()), 1)

    def test_a_message_that_cannot_be_signed_is_deferred(self) -> None:
        logged = logged_lines(self)

        def broken(message: Message) -> Message:
            raise ZeroDivisionError

        for sign in (broken, lambda _: fail(OSError(errno.EIO, "Input/output error", "/body/5"))):
            self.delivery_signing_with(sign)
            self.assertEqual(
                self.replies(message("bob", "eve")),
                ["451 4.3.0 The message cannot be signed now"] * 2,
            )
        self.assertEqual(self.files.tree(), [])
        self.assertIn("0000000000005 is not delivered: /body/5: Input/output error", logged)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Quarantine(MaildirTestCase):
    """Mail that belongs among junk."""

    def spoofed(self, *local_parts: str) -> Message:
        assessment = Assessment(quarantine="dmarc=fail")
        return evolve(message(*local_parts or ("bob",)), assessment=assessment)

    def junk(self) -> list[bytes]:
        directory = "/mail/example.net/bob/.Junk/new"
        return [self.files.content(path) for path in self.files.tree(directory)]

    def test_mail_in_quarantine_goes_into_the_folder_junk(self) -> None:
        self.assertEqual(
            self.replies(self.spoofed()),
            ["250 2.0.0 Delivered to the folder Junk of the mailbox"],
        )
        self.assertEqual((self.mail(), self.junk()), ([], [STORED]))
        self.deliver(message("bob"))
        self.assertEqual((self.mail(), self.junk()), ([STORED], [STORED]))

    def test_the_folder_is_made_as_one_of_maildir_plus_plus_on_a_real_disk(self) -> None:
        root = self.mktemp()
        self.maildirs = self.delivery(DiskFiles(), root=root)
        for _ in range(2):
            self.deliver(self.spoofed())
        folder = f"{root}/example.net/bob/.Junk"
        self.assertEqual(sorted(os.listdir(folder)), ["cur", "maildirfolder", "new", "tmp"])
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        self.assertEqual(os.path.getsize(f"{folder}/maildirfolder"), 0)
        self.assertEqual((len(os.listdir(f"{folder}/new")), os.listdir(f"{folder}/tmp")), (2, []))

    def test_mail_in_the_folder_survives_a_crash_at_any_moment(self) -> None:
        delivered = 0
        for steps in range(60):
            self.files = UnsyncedFiles()
            self.maildirs = self.delivery()
            self.files.cut_power_in(steps)
            (outcome,) = self.deliver(self.spoofed())
            self.files.crash()
            if outcome.delivered:
                delivered += 1
                self.assertEqual(self.junk(), [STORED])
                self.assertIn("maildirfolder", self.files.names("/mail/example.net/bob/.Junk"))
        self.assertGreater(delivered, 5)

    def test_a_folder_that_was_never_synced_is_made_durable(self) -> None:
        self.deliver(message("bob"))
        self.files.syncs = False
        for name in ("tmp", "new", "cur"):
            self.files.make_directories(f"/mail/example.net/bob/.Junk/{name}")
        self.files.syncs = True
        self.deliver(self.spoofed())
        self.files.crash()
        self.assertEqual(self.junk(), [STORED])

    def test_a_folder_that_its_user_removed_is_made_again(self) -> None:
        self.deliver(self.spoofed())
        self.remove("/mail/example.net/bob/.Junk")
        self.assertEqual(self.replies(self.spoofed())[0][:3], "250")
        self.assertEqual(self.junk(), [STORED])

    def test_a_folder_that_another_user_could_redirect_is_deferred(self) -> None:
        self.patch(
            UnsyncedFiles,
            "mailbox_fault",
            lambda files, root, path: f"{path} is a link" if ".Junk" in path else "",
        )
        self.assertEqual(
            self.replies(self.spoofed()),
            ["451 4.2.0 The mailbox cannot be written now (EPERM)"],
        )
        self.assertEqual(self.files.tree("/mail"), [])
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_an_unmounted_mailbox_gets_no_folder(self) -> None:
        self.deliver(message("bob"))
        mounted = self.remove("/mail/example.net/bob")
        self.files.make_directories("/mail/example.net/bob")
        self.assertEqual(
            self.replies(self.spoofed()), ["451 4.3.0 The mailboxes are not there now"]
        )
        self.assertEqual(self.files.names("/mail/example.net/bob"), [])
        self.remove("/mail/example.net/bob")
        self.put("/mail/example.net/bob", mounted)
        self.assertEqual(self.replies(self.spoofed())[0][:3], "250")

    def test_recipients_with_and_without_a_mailbox_are_told_apart_as_ever(self) -> None:
        replies = self.replies(self.spoofed("bob", "a/b"))
        self.assertEqual([reply[:9] for reply in replies], ["250 2.0.0", "550 5.1.3"])


class Batches(MaildirTestCase):
    """Messages that arrive while others are being written."""

    def setUp(self) -> None:
        super().setUp()
        self.holds = False
        self.batches: list[list[Message]] = []
        self.held: list[Callable[[], None]] = []
        self.maildirs = self.delivery(executor=self.execute, calls=1)

    def execute(self, function: Any, batch: Any) -> Deferred[Any]:
        if not self.holds:
            return execute(function, batch)
        self.batches.append(batch)
        done: Deferred[Any] = Deferred()
        self.held.append(lambda: done.callback(function(batch)))
        return done

    def waiting_deliveries(self, *messages: Message) -> list[list[Message]]:
        """Deliver messages at once; return the batches that the executor got."""
        self.holds = True
        results = [self.maildirs.deliver(MAILDIR, each) for each in messages]
        while self.held:
            self.held.pop(0)()
        self.outcomes = [self.successResultOf(each) for each in results]
        self.holds = False
        return self.batches

    def test_messages_that_arrive_during_a_batch_form_the_next_batch(self) -> None:
        messages = [message("bob") for _ in range(40)]
        batches = self.waiting_deliveries(*messages)
        self.assertEqual([len(batch) for batch in batches], [1, 16, 16, 7])
        self.assertEqual([each for batch in batches for each in batch], messages)
        self.assertTrue(all(outcome.delivered for (outcome,) in self.outcomes))
        self.assertEqual(self.mail(), [STORED] * 40)
        # 3 directories when the Maildir is created, and its new/ once for each batch.
        syncs = [path for name, path in self.files.operations if name == "sync_directory"]
        self.assertEqual(syncs.count("/mail/example.net/bob/new"), 4)

    def test_batches_are_written_by_as_many_calls_as_there_are_threads(self) -> None:
        self.maildirs = self.delivery(executor=self.execute, calls=4)
        batches = self.waiting_deliveries(*[message("bob") for _ in range(9)])
        self.assertEqual([len(batch) for batch in batches], [1, 1, 1, 1, 5])

    def test_many_recipients_and_large_messages_are_not_batched(self) -> None:
        many = message(*(f"u{number}" for number in range(20)))
        large = message("bob", body=StreamedBody([b"x"]))
        batches = self.waiting_deliveries(message("bob"), many, many, large, message("bob"))
        self.assertEqual([len(batch) for batch in batches], [1, 1, 1, 1, 1])

    def test_the_number_of_open_files_is_bounded_for_many_recipients(self) -> None:
        self.replies(message(*(f"u{number}" for number in range(100))))
        opened = most = 0
        for operation, _ in self.files.operations:
            opened += (operation == "create") - (operation == "rename")
            most = max(most, opened)
        self.assertEqual((most, opened), (16, 0))

    def test_a_failure_in_a_batch_affects_one_message(self) -> None:
        self.deliver(message("bob", "eve", "mallory"))
        for operation in ("create", "write", "sync", "rename"):
            before = len(self.mail("bob")), len(self.mail("eve"))
            self.files.fail_next(operation, OSError(errno.EIO, "broken"), after=1)
            self.waiting_deliveries(message("mallory"), message("bob"), message("eve"))
            self.assertEqual(
                [str(outcome.reply)[:3] for (outcome,) in self.outcomes], ["250", "451", "250"]
            )
            after = len(self.mail("bob")), len(self.mail("eve"))
            self.assertEqual(after, (before[0], before[1] + 1), operation)

    def test_a_failed_sync_of_new_defers_all_its_messages(self) -> None:
        self.deliver(message("bob", "eve", "mallory"))
        self.files.fail_next("sync_directory", OSError(errno.EIO, "broken"), after=1)
        self.waiting_deliveries(*map(message, ("mallory", "bob", "eve", "bob")))
        found = [(outcome.reply.code, outcome.uncertain) for (outcome,) in self.outcomes]
        self.assertEqual(found, [(250, False), (451, True), (250, False), (451, True)])
        self.assertEqual((len(self.mail("bob")), len(self.mail("eve"))), (1, 2))

    def test_a_delivered_batch_survives_a_crash_at_any_moment(self) -> None:
        for steps in range(60):
            self.files = UnsyncedFiles()
            self.maildirs = self.delivery(executor=self.execute, calls=1)
            self.files.cut_power_in(steps)
            self.waiting_deliveries(*[message("bob"), message("bob", "eve"), message("eve")])
            self.files.crash()
            for local_part, places in (("bob", [(0, 0), (1, 0)]), ("eve", [(1, 1), (2, 0)])):
                delivered = sum(self.outcomes[i][j].delivered for i, j in places)
                try:
                    self.assertGreaterEqual(len(self.mail(local_part)), delivered, steps)
                except OSError:
                    self.assertEqual(delivered, 0, steps)


class Directories(TidyTestCase):
    def test_case_and_tag_are_ignored(self) -> None:
        for local_part in ("bob", "BOB", "bob+", "Bob+a+b"):
            found = mailbox_directory(Mailbox(local_part, "example.net"))
            self.assertEqual(found, ("example.net", "bob"))
        self.assertEqual(mailbox_directory(Mailbox("a b", "[192.0.2.1]")), ("[192.0.2.1]", "a b"))

    def test_unicode_normalization_forms_are_one_mailbox(self) -> None:
        composed = mailbox_directory(Mailbox("d\u00f6rte", "example.net"))
        self.assertEqual(mailbox_directory(Mailbox("Do\u0308rte", "example.net")), composed)

    def test_the_case_of_other_scripts_is_folded(self) -> None:
        for one, other in (("ÄRA", "ära"), ("ΑΒΓ", "αβγ"), ("A\u030angström", "Ångström")):
            found = mailbox_directory(Mailbox(one, "example.net"))
            self.assertEqual(found, mailbox_directory(Mailbox(other, "example.net")))
        for local_part in ("İ", "ǰ\u0323", "\u1e9e"):  # the lower case is not in normal form
            once = mailbox_directory(Mailbox(local_part, "example.net"))[1]
            self.assertEqual(mailbox_directory(Mailbox(once, "example.net"))[1], once)

    def test_names_with_invisible_characters_are_refused(self) -> None:
        for local_part in (
            "bob\u202ecod.exe",
            "bob\u2066",
            "b\u200bob",
            "bob\ufeff",
            "bob\u00ad",
            "bob\u2028x",
            "bob\ue000",
            "bob\u0378",
            "bob\U000e0041",
        ):
            with self.assertRaises(NoMailbox) as raised:
                mailbox_directory(Mailbox(local_part, "example.net"))
            self.assertEqual(raised.exception.reply.enhanced, "5.1.3")
        name = "\u0646\u0627\u0645\u0647\u200c\u0627\u06cc"  # needs its joiner
        self.assertEqual(mailbox_directory(Mailbox(name, "example.net"))[1], name)

    def test_names_with_a_meaning_for_the_file_system_are_refused(self) -> None:
        for local_part in (
            "",
            "+tag",
            ".",
            "..",
            ".hidden",
            "../eve",
            "a/b",
            "/etc/passwd",
            "a\x00b",
            "a\nb",
            "\x9b",
            "\udc80",
            "x" * 256,
            "ä" * 128,
        ):
            with self.assertRaises(NoMailbox, msg=repr(local_part)) as raised:
                mailbox_directory(Mailbox(local_part, "example.net"))
            self.assertEqual(raised.exception.reply.code, 550)
        for domain in ("", ".", "..", "a/b", "a\x00"):
            self.assertRaises(NoMailbox, mailbox_directory, Mailbox("bob", domain))
        self.assertEqual(mailbox_directory(Mailbox("x" * 255, "a.example"))[1], "x" * 255)


class Unmounted(MaildirTestCase):
    """The file system of all Maildirs, or of a domain, was unmounted."""

    GONE = "451 4.3.0 The mailboxes are not there now"

    def unmount(self, path: str) -> Any:
        """Replace a directory by an empty one; return it."""
        mounted = self.remove(path)
        self.files.make_directories(path)
        return mounted

    def assertGone(self, *local_parts: str) -> None:
        for local_part in local_parts:
            self.assertEqual(self.replies(message(local_part)), [self.GONE])

    def test_nothing_is_created_on_an_empty_mount_point(self) -> None:
        self.deliver(message("bob"))
        mounted = self.unmount("/mail")
        self.assertGone("bob", "eve")
        self.assertEqual(self.files.names("/mail"), [])
        self.remove("/mail")
        self.put("/mail", mounted)
        self.assertEqual(self.replies(message("bob", "eve"))[1][:3], "250")
        self.assertEqual(self.mail(), [STORED, STORED])

    def test_a_missing_root_is_not_created_again(self) -> None:
        self.deliver(message("bob"))
        mounted = self.remove("/mail")
        self.assertGone("bob", "eve")
        self.assertFalse(self.files.is_directory("/mail"))
        self.put("/mail", mounted)
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_a_root_that_cannot_be_examined_does_not_prevent_a_start(self) -> None:
        self.files.fail_next("is_directory", OSError(errno.EACCES, "no"))
        self.maildirs.start()
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_a_root_that_existed_at_the_start_is_remembered(self) -> None:
        self.files.make_directories("/mail")
        self.maildirs.start()
        self.unmount("/mail")
        self.assertGone("bob")

    def test_the_directory_above_a_missing_root_is_remembered(self) -> None:
        self.files.make_directories("/state")
        self.maildirs = self.delivery(root="/state/mail")
        self.maildirs.start()
        mounted = self.unmount("/state")
        self.assertGone("bob")
        self.assertEqual(self.files.names("/state"), [])
        self.remove("/state")
        self.put("/state", mounted)
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_a_root_that_never_existed_is_created_by_the_first_delivery(self) -> None:
        self.maildirs.start()
        self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_an_unmounted_domain_or_mailbox_is_noticed(self) -> None:
        for path in ("/mail/example.net", "/mail/example.net/bob"):
            self.deliver(message("bob"))
            mounted = self.unmount(path)
            self.assertGone("bob")
            self.assertEqual(self.files.names(path), [])
            self.assertEqual(
                str(self.deliver(message("bob", domain="example.org"))[0].reply)[:3], "250"
            )
            self.remove(path)
            self.put(path, mounted)
            self.assertEqual(self.replies(message("bob"))[0][:3], "250")

    def test_a_file_system_with_another_device_number_is_recognized(self) -> None:
        # Network file systems, btrfs and ZFS may have another device number each time.
        self.deliver(message("bob"))
        mounted = self.unmount("/mail")
        self.files._directory("/mail").names.update(mounted.names)
        self.assertEqual(self.replies(message("bob", "eve"))[1][:3], "250")
        self.assertGreater(len(self.files.names("/mail/example.net")), 1)

    def unmount_at(self, operation: str) -> None:
        """Unmount the root after the next call of an operation."""
        working = getattr(self.files, operation)

        def unmounting(*args: Any) -> Any:
            setattr(self.files, operation, working)
            result = working(*args)
            self.mounted = self.unmount("/mail")
            return result

        setattr(self.files, operation, unmounting)

    def test_an_unmount_at_any_moment_leaves_the_mount_point_empty(self) -> None:
        for local_part, operations in (
            ("eve", ("identity", "make_directories", "create", "rename", "sync_directory")),
            ("bob", ("create", "rename", "sync_directory")),
        ):
            for operation in operations:
                self.files = UnsyncedFiles()
                self.maildirs = self.delivery()
                self.deliver(message("bob"))
                self.unmount_at(operation)
                (outcome,) = self.deliver(message(local_part))
                self.assertGone("bob", "eve")
                self.assertEqual(self.files.tree("/mail"), [])
                self.remove("/mail")
                self.put("/mail", self.mounted)
                new = [path for path in self.files.tree("/mail") if f"/{local_part}/new/" in path]
                delivered = len(new) - (local_part == "bob")
                self.assertEqual(delivered, outcome.delivered or outcome.uncertain, operation)
                self.assertEqual(self.replies(message("bob", "eve"))[0][:3], "250")

    def test_a_mailbox_on_an_unmounted_root_is_not_reported_as_missing(self) -> None:
        self.deliver(message("bob"))
        self.assertTrue(self.maildirs.exists(Mailbox("bob", "example.net")))
        self.assertFalse(self.maildirs.exists(Mailbox("eve", "example.net")))
        self.unmount("/mail/example.net")
        for local_part in ("bob", "eve"):
            refusal = self.assertRaises(
                Refused, self.maildirs.exists, Mailbox(local_part, "example.net")
            )
            self.assertEqual(str(refusal.reply), self.GONE)
        self.unmount("/mail")
        self.assertRaises(Refused, self.maildirs.exists, Mailbox("bob", "example.net"))

    def test_the_empty_mount_point_of_a_mailbox_exists_and_gets_nothing(self) -> None:
        self.deliver(message("bob"))
        self.unmount("/mail/example.net/bob")
        self.assertTrue(self.maildirs.exists(Mailbox("bob", "example.net")))
        self.assertEqual(self.replies(message("bob")), [self.GONE])

    def test_a_mailbox_that_cannot_be_examined_is_not_reported_as_missing(self) -> None:
        self.deliver(message("bob"))
        self.files.fail_next("is_directory", OSError(errno.EIO, "broken"))
        refusal = self.assertRaises(Refused, self.maildirs.exists, Mailbox("bob", "example.net"))
        self.assertEqual(str(refusal.reply)[:9], "451 4.3.0")
