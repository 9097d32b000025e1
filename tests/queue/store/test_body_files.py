"""Body files that are used again: each recipient gets the content of its own message."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred

from twisted_mta.mail.body import Body
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import HoldFiles, Inspect, Inspected, Intervene
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.store import body_files
from twisted_mta.queue.store.contract import (
    Accept,
    Forget,
    Lease,
    LostBody,
    SetAside,
    StoreError,
    StoreFull,
    Want,
)
from twisted_mta.queue.store.schema import scripts, upgrade
from twisted_mta.queue.store.spool import DotlessFileBody, FileBody, Spool
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles

from ..mail import NOW, deferred, message, settled
from .harness import complete_old_queue
from .test_sqlite import StoreTestCase


def content(id: int, size: int = 600) -> bytes:
    """The content of a message, each of whose lines names it."""
    line = b"of message %06d\r\n" % id
    return line * (size // len(line))


class ReuseTestCase(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store.open()

    def body(self, id: int, size: int = 600) -> Body:
        writer = self.spool.new_body(QueueId(id))
        writer.write(content(id, size))
        sealed = writer.seal()
        return self.successResultOf(sealed) if isinstance(sealed, Deferred) else sealed

    def accepted(self, id: int, size: int = 600) -> Message:
        new = evolve(message(id), body=self.body(id, size))
        self.store.apply([Accept(new, lease=True)])
        return new

    def delivered(self, id: int, size: int = 600) -> FileBody:
        new = self.accepted(id, size)
        assert isinstance(new.body, FileBody)
        self.store.apply([settled(new)])
        return new.body

    def names(self) -> list[str]:
        return self.files.names(self.spool.directory)

    def named(self, *ids: int) -> list[str]:
        return [str(QueueId(id)) for id in ids]

    def found(self, id: int) -> Inspected:
        (found,) = self.store.apply([Inspect(QueueId(id))])
        assert isinstance(found, Inspected)
        return found

    def read(self, id: int) -> bytes:
        return b"".join(self.found(id).message.body.chunks())

    def start_again(self) -> None:
        """Start as after a crash of the process, which removes nothing."""
        database, body_files = self.store._database, self.spool.body_files
        assert body_files is not None
        if database is not None:
            database.close()
        self.store._queue_files.closed()
        body_files.close()
        self.new_spool()
        self.store = self.new_store()

    def new_spool(self) -> None:
        self.spool = Spool(
            self.spool.directory,
            files=self.files,
            executor=inline_executor,
            small_body=100,
            reuse=True,
        )


class Reuse(ReuseTestCase):
    def test_the_file_of_a_delivered_message_gets_the_next_body(self) -> None:
        self.delivered(1)
        self.assertEqual(self.names(), self.named(1))
        self.files.operations.clear()
        second = self.accepted(2)
        done = [name for name, _ in self.files.operations]
        self.assertNotIn("create", done)
        self.assertNotIn("sync_directory", done)
        self.assertIn("sync", done)
        self.assertEqual(self.names(), self.named(1))
        self.assertEqual(b"".join(second.body.chunks()), content(2))
        self.assertEqual(self.read(2), content(2))

    def test_it_is_read_after_a_restart(self) -> None:
        self.delivered(1)
        self.accepted(2)
        self.start_again()
        recovery = self.store.open()
        self.assertEqual((recovery.swept, recovery.quarantined), ((), ()))
        self.assertEqual(self.read(2), content(2))

    def test_a_file_is_used_again_only_after_the_commit(self) -> None:
        first = self.accepted(1)
        with patch.object(self.store._queue_files, "check", side_effect=OSError):
            self.assertRaises(StoreError, self.store.apply, [settled(first)])
        self.body(2)
        self.assertEqual(self.names(), self.named(1, 2))
        self.assertEqual(self.files.content(self.spool.path(QueueId(1)))[15:], content(1))

    def test_a_shorter_body_ends_where_its_row_says(self) -> None:
        self.delivered(1, 600)
        self.accepted(2, 400)
        self.assertEqual(self.read(2), content(2, 400))
        self.assertGreater(len(self.files.content(self.spool.path(QueueId(1)))), 500)

    def test_a_file_of_more_than_twice_the_size_is_shortened(self) -> None:
        self.delivered(1, 6000)
        self.accepted(2)
        self.assertEqual(
            self.files.content(self.spool.path(QueueId(1))),
            b"%s\r\n%s" % (str(QueueId(2)).encode(), content(2)),
        )

    def test_a_longer_body_makes_the_file_longer(self) -> None:
        self.delivered(1)
        self.accepted(2, 6000)
        self.assertEqual(self.read(2), content(2, 6000))

    def test_a_body_is_sent_by_reading_as_long_as_its_file_is_open(self) -> None:
        body = self.accepted(1).body
        assert isinstance(body, DotlessFileBody)
        self.assertFalse(body.is_sent_from_file)
        body.open().close()
        self.assertTrue(body.is_sent_from_file)

    def test_a_clean_stop_removes_spare_files(self) -> None:
        self.delivered(1)
        self.store.close()
        self.assertEqual(self.names(), [])
        self.assertEqual(self.files.open_files, [])

    def test_spare_files_that_a_crash_leaves_are_swept(self) -> None:
        self.delivered(1)
        self.start_again()
        self.assertEqual(self.store.open().swept, tuple(self.named(1)))

    def test_spare_files_are_removed_where_the_disk_is_full(self) -> None:
        self.delivered(1)
        self.files.capacity = self.files.used
        self.assertRaises(StoreFull, self.store.apply, [Accept(message(2))])
        self.assertEqual(self.names(), [])

    def test_a_spare_file_that_was_removed_is_not_used(self) -> None:
        self.delivered(1)
        self.files.unlink(self.spool.path(QueueId(1)))
        self.accepted(2)
        self.assertEqual(self.names(), self.named(2))
        self.assertEqual(self.read(2), content(2))

    def test_a_forgotten_message_takes_its_file_with_it_with_or_without_a_row(self) -> None:
        for accept in (self.accepted, self.body):
            self.delivered(1)
            accept(2)
            self.assertEqual(self.names(), self.named(1))
            self.store.apply([Forget((QueueId(2),))])
            self.assertEqual(self.names(), [])

    def test_a_body_that_was_not_accepted_takes_its_file_with_it(self) -> None:
        self.delivered(1)
        self.spool.forget(self.body(2))
        self.assertEqual(self.names(), [])

    def test_a_refused_message_takes_its_file_with_it_when_that_is_not_open(self) -> None:
        self.delivered(1)
        self.body(2)
        self.store.close()
        self.store.open()
        self.assertEqual(self.names(), self.named(1))
        self.store.apply([Forget((QueueId(2),))])
        self.assertEqual(self.names(), [])
        self.delivered(3)
        with patch.object(body_files, "LARGEST", 700):
            self.body(4, 800)
        self.assertEqual(self.names(), self.named(3))
        self.store.apply([Forget((QueueId(4),))])
        self.assertEqual(self.names(), [])

    def test_what_is_discarded_after_its_seal_leaves_the_next_message_its_file(self) -> None:
        writer = self.spool.new_body(QueueId(1))
        writer.write(content(1))
        first = evolve(message(1), body=self.successResultOf(writer.seal()))
        self.store.apply([Accept(first, lease=True)])
        self.store.apply([settled(first)])
        self.accepted(2)
        writer.discard()
        self.assertEqual(self.names(), self.named(1))
        self.assertEqual(self.read(2), content(2))

    def test_a_content_that_is_read_while_it_is_written_ends_where_it_does(self) -> None:
        self.delivered(1, 600)
        writer = self.spool.new_body(QueueId(2))
        writer.write(content(2, 400))
        with writer.open() as file:
            self.assertEqual(file.read(), content(2, 400))
        writer.discard()


class NotReused(ReuseTestCase):
    def assertNotUsedAgain(self) -> None:
        """The file of message 1 is gone, and message 2 gets its own."""
        self.assertEqual(self.names(), [])
        self.accepted(2)
        self.assertEqual(self.names(), self.named(2))
        self.assertEqual(self.read(2), content(2))

    def test_a_file_that_was_opened_by_its_name(self) -> None:
        first = self.accepted(1)
        assert isinstance(first.body, FileBody)
        with first.body.open() as file:  # as for sendfile(2)
            self.store.apply([settled(first)])
            self.assertNotUsedAgain()
            self.assertEqual(file.read(), content(1))

    def test_a_file_that_is_being_read(self) -> None:
        first = self.accepted(1)
        with patch("twisted_mta.queue.store.spool._OPEN_CHUNK", 100):
            chunks = first.body.chunks()
            begun = next(chunks)
            self.store.apply([settled(first)])
            self.assertNotUsedAgain()
            self.assertEqual(begun + b"".join(chunks), content(1))
        self.assertEqual(self.files.open_files, [self.spool.path(QueueId(2))])

    def test_a_file_that_was_open_while_it_was_written(self) -> None:
        writer = self.spool.new_body(QueueId(1))
        writer.write(content(1))
        with writer.open() as file:
            self.assertEqual(file.read(), content(1))
            first = evolve(message(1), body=self.successResultOf(writer.seal()))
            self.store.apply([Accept(first, lease=True)])
            self.store.apply([settled(first)])
            self.assertNotUsedAgain()

    def test_a_file_that_was_read_after_a_restart(self) -> None:
        self.accepted(1)
        self.start_again()
        self.store.open()
        (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 1),))])
        (first,) = leased.messages  # type: ignore[union-attr]
        self.store.apply([settled(first)])
        self.assertNotUsedAgain()

    def test_a_file_that_is_held_for_a_copy(self) -> None:
        first = self.accepted(1)
        self.store.apply([HoldFiles("begin", "copy")])
        self.store.apply([settled(first)])
        self.accepted(2)
        self.assertEqual(self.names(), self.named(1, 2))
        self.assertEqual(self.files.content(self.spool.path(QueueId(1)))[15:], content(1))
        self.store.apply([HoldFiles("end", "copy")])
        self.assertEqual(self.names(), self.named(2))

    def test_a_file_whose_sync_has_failed(self) -> None:
        self.delivered(1)
        self.files.fail_next("sync", OSError(errno.EIO, "broken"))
        writer = self.spool.new_body(QueueId(3))
        writer.write(content(3))
        self.failureResultOf(writer.seal(), OSError)
        self.assertNotUsedAgain()

    def test_a_file_whose_write_has_failed(self) -> None:
        self.delivered(1)
        writer = self.spool.new_body(QueueId(3))
        writer.write(content(3))
        writer.write(content(3))
        self.files.fail_next("write", OSError(errno.ENOSPC, "full"))
        self.failureResultOf(writer.seal(), OSError)
        self.assertNotUsedAgain()

    def test_a_file_whose_content_was_discarded(self) -> None:
        self.delivered(1)
        writer = self.spool.new_body(QueueId(3))
        writer.write(content(3))
        writer.discard()
        self.assertNotUsedAgain()

    def test_the_file_of_a_message_that_the_operator_removed(self) -> None:
        new = evolve(message(1), body=self.body(1))
        self.store.apply([Accept(new, lease=False)])
        self.store.apply([Intervene("remove", Selection(), NOW)])
        self.assertNotUsedAgain()

    def test_a_file_that_is_too_large(self) -> None:
        with patch.object(body_files, "LARGEST", 500):
            self.delivered(1)
        self.assertNotUsedAgain()

    def test_a_file_of_a_store_that_is_opened_again(self) -> None:
        first = self.accepted(1)
        self.store.close()
        self.store.open()
        self.store.apply([settled(first)])
        self.assertNotUsedAgain()


class Bounds(ReuseTestCase):
    def test_the_oldest_file_is_closed_and_goes_with_its_message(self) -> None:
        with patch.object(body_files, "_OPEN", 2):
            messages = [self.accepted(id) for id in (1, 2, 3)]
        self.assertEqual(len(self.files.open_files), 2)
        self.store.apply([settled(each) for each in messages])
        self.assertEqual(self.names(), self.named(2, 3))

    def test_spare_files_are_few(self) -> None:
        messages = [self.accepted(id) for id in (1, 2, 3)]
        with patch.object(body_files, "_SPARE", 2):
            self.store.apply([settled(each) for each in messages])
        self.assertEqual(self.names(), self.named(1, 2))
        self.assertEqual(len(self.files.open_files), 2)

    def test_spare_files_are_small_together(self) -> None:
        messages = [self.accepted(id) for id in (1, 2, 3)]
        with patch.object(body_files, "_SPARE_OCTETS", 1300):
            self.store.apply([settled(each) for each in messages])
        self.assertEqual(self.names(), self.named(1, 2))

    def test_names_of_files_that_are_not_open_are_few(self) -> None:
        with patch.object(body_files, "_NAMES", 1):
            for id in (1, 2):
                self.accepted(id)
            for id in (1, 2):
                self.store.apply([settled(self.found(id).message)])
            messages = [self.accepted(id) for id in (3, 4)]
            self.store.close()
            self.store.open()
        assert self.spool.body_files is not None
        self.assertEqual(len(self.spool.body_files._names), 1)
        self.store.apply([settled(each) for each in messages])
        self.assertEqual(len(self.spool.body_files._names), 0)
        self.assertEqual(self.names(), [])


class OtherContents(ReuseTestCase):
    """The directory of bodies and the database are not of one moment."""

    def test_a_row_whose_file_has_another_body_is_quarantined_at_the_start(self) -> None:
        self.accepted(1)
        self.accepted(2)
        self.replace(1, by=3)
        self.start_again()
        recovery = self.store.open()
        self.assertEqual(recovery.quarantined, (QueueId(1),))
        self.assertEqual(self.found(1).quarantine, "its body file is missing")
        self.assertRaises(OSError, self.read, 1)
        self.assertEqual(self.read(2), content(2))
        (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 9),))])
        self.assertEqual([int(each.id) for each in leased.messages], [2])  # type: ignore[union-attr]

    def test_its_body_cannot_be_read_at_a_delivery(self) -> None:
        self.accepted(1)
        self.start_again()
        self.store.open()
        self.replace(1, by=3)
        body = self.found(1).message.body
        assert isinstance(body, FileBody)
        for read in (lambda: list(body.chunks()), body.open):
            error = self.assertRaises(OSError, read)
            self.assertIn("does not have the body of", str(error))
        self.assertNotIn(self.spool.path(QueueId(1)), self.files.open_files)

    def test_a_message_whose_body_is_found_to_be_lost_is_quarantined(self) -> None:
        losses: tuple[tuple[Callable[[int], None], str], ...] = (
            (lambda id: self.replace(id, by=9), "its body file has the body of another message"),
            (self.remove, "its body file is missing"),
            (self.cut, "its body file is too short"),
        )
        for id, (lose, reason) in enumerate(losses, 1):
            new = self.accepted(id)
            self.start_again()
            self.store.open()
            self.assertEqual(self.store.apply([SetAside(QueueId(id))]), [None])
            lose(id)
            for _ in range(2):  # as two deliveries of the message do
                self.store.apply([deferred(new, NOW + 60)])
                self.assertEqual(self.store.apply([SetAside(QueueId(id))]), [LostBody(reason)])
                self.assertEqual(self.store.census().quarantined, id)
                self.assertEqual(self.found(id).quarantine, reason)
                (leased,) = self.store.apply([Lease(NOW + 99, (Want("next.example", 9),))])
                self.assertEqual(leased.messages, ())  # type: ignore[union-attr]
        self.assertEqual(self.store.apply([SetAside(QueueId(99))]), [None])

    def test_a_delivery_that_is_deferred_after_the_loss_is_not_tried_again(self) -> None:
        new = self.accepted(1)
        self.accepted(2)
        self.start_again()
        self.store.open()
        self.remove(1)
        self.store.apply([SetAside(QueueId(1))])
        self.store.apply([deferred(new, NOW + 60)])
        (leased,) = self.store.apply([Lease(NOW + 999, (Want("next.example", 9),))])
        self.assertEqual([each.id for each in leased.messages], [2])  # type: ignore[union-attr]
        self.assertEqual(self.store.census().quarantined, 1)

    def test_no_message_is_quarantined_where_its_file_cannot_be_read_or_all_are_gone(self) -> None:
        self.accepted(1)
        self.start_again()
        self.store.open()
        self.files.fail_next("open", OSError(errno.EIO, "broken"))
        self.assertEqual(self.store.apply([SetAside(QueueId(1))]), [None])
        self.files.mend()
        self.files.rename(self.spool.path(QueueId(1)), "/elsewhere")
        moved = self.files._directory(self.directory)
        moved.names["body"], body = type(moved)(), moved.names["body"]  # it is unmounted
        self.assertRaises(StoreError, self.store.apply, [SetAside(QueueId(1))])
        moved.names["body"] = body
        self.files.rename("/elsewhere", self.spool.path(QueueId(1)))
        self.store.open()
        self.assertEqual(self.store.census().quarantined, 0)
        self.assertEqual(self.read(1), content(1))

    def cut(self, id: int) -> None:
        self.remove(id)
        with contextlib.closing(self.files.create(self.spool.path(QueueId(id)))) as file:
            file.write(b"%s\r\n" % str(QueueId(id)).encode())

    def remove(self, id: int) -> None:
        self.files.unlink(self.spool.path(QueueId(id)))

    def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_their_delivery(self) -> None:
        self.accepted(1)
        self.accepted(2)
        for operation in ("open", "read"):
            self.start_again()
            self.files.fail_next(operation, OSError(errno.EIO, "broken"))
            recovery = self.store.open()
            self.files.mend()
            self.assertEqual((recovery.swept, recovery.quarantined), ((), ()))
            self.assertEqual(self.read(2), content(2))

    def test_files_of_the_newest_messages_are_looked_into_at_a_start(self) -> None:
        for id in (1, 2):
            self.accepted(id)
            self.replace(id, by=id + 2)
        self.start_again()
        with patch("twisted_mta.queue.store.sqlite._LOOKED_INTO", 1):
            self.assertEqual(self.store.open().quarantined, (QueueId(2),))
        self.assertRaises(OSError, self.read, 1)

    def replace(self, id: int, *, by: int) -> None:
        path = self.spool.path(QueueId(id))
        self.files.unlink(path)
        file = self.files.create(path)
        file.write(b"%s\r\n%s" % (str(QueueId(by)).encode(), content(by)))
        file.sync()
        file.close()
        self.files.sync_directory(self.spool.directory)

    def test_who_reads_a_message_that_was_delivered_meanwhile_finds_no_body(self) -> None:
        body = self.delivered(1)
        for each in (lambda: list(body.chunks()), body.open):
            self.assertRaises(OSError, each)  # spare
        writer = self.spool.new_body(QueueId(2))
        writer.write(content(2))
        for each in (lambda: list(body.chunks()), body.open):
            self.assertRaises(OSError, each)  # being written
        second = evolve(message(2), body=self.successResultOf(writer.seal()))
        for each in (lambda: list(body.chunks()), body.open):
            self.assertRaises(OSError, each)  # another message's
        self.store.apply([Accept(second, lease=True)])
        self.assertEqual(self.read(2), content(2))

    def test_a_directory_that_came_back_has_to_have_the_files_that_rows_name(self) -> None:
        self.delivered(1)
        self.accepted(2)
        self.store.close()
        self.files.rename(self.spool.path(QueueId(1)), "/elsewhere")
        moved = self.files._directory(self.directory)
        moved.names["body"] = type(moved)()  # another directory
        error = self.assertRaises(StoreError, self.store.open)
        self.assertIn("lacks 1 of 1 bodies", str(error))
        self.files.rename("/elsewhere", self.spool.path(QueueId(1)))
        self.store.open()
        self.assertEqual(self.read(2), content(2))

    def test_a_body_that_is_discarded_while_it_is_synced_is_not_kept(self) -> None:
        writer = self.spool.new_body(QueueId(1))
        writer.write(content(1))
        self.files.watch = lambda operation, _: operation == "sync" and writer.discard()
        writer.seal()
        self.files.watch = None
        assert self.spool.body_files is not None
        self.assertFalse(self.spool.body_files._used)
        self.assertEqual((self.names(), self.files.open_files), ([], []))

    def test_a_message_that_had_a_file_before_does_not_take_it_from_the_next_one(self) -> None:
        self.delivered(1)
        self.accepted(2)
        self.spool.release(QueueId(1), QueueId(1))
        self.spool.remove(QueueId(1), QueueId(1))
        self.accepted(3)
        self.assertEqual(self.names(), self.named(1, 3))
        self.assertEqual((self.read(2), self.read(3)), (content(2), content(3)))

    def test_two_rows_never_name_one_file(self) -> None:
        self.delivered(1)
        second = self.accepted(2)
        third = evolve(message(3), body=second.body)
        self.assertRaises(StoreError, self.store.apply, [Accept(third, lease=True)])


class Upgrade(ReuseTestCase):
    def test_a_body_of_the_version_before_is_read_and_removed(self) -> None:
        self.store.close()
        os.unlink(self.path)
        database = sqlite3.connect(self.path, isolation_level=None)
        upgrade(database, scripts()[:12])
        database.execute(
            "INSERT INTO message (id, parameters, trace, size, received_at, expires_at)"
            " VALUES (1, '{}', x'', ?, ?, ?)",
            (len(content(1)), NOW, NOW + 1000),
        )
        complete_old_queue(database)
        file = self.files.create(self.spool.path(QueueId(1)))
        file.write(content(1))
        file.sync()
        file.close()
        self.files.sync_directory(self.spool.directory)
        self.new_spool()
        self.store = self.new_store()
        self.assertEqual(self.store.open().quarantined, ())
        self.assertEqual(self.read(1), content(1))
        self.accepted(2)
        (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 9),))])
        (first,) = leased.messages  # type: ignore[union-attr]
        self.store.apply([settled(first)])
        self.assertEqual(self.names(), self.named(2))


class PowerCuts(ReuseTestCase):
    """The power fails at each operation on the disk, while files are used again."""

    SIZES = (600, 300, 2000, 600, 150, 900, 600, 600)

    def live(self) -> list[Callable[[], object]]:
        """Return steps of a life in which files are used again, with up to three in the queue."""
        waiting: list[Message] = []

        def accept(id: int, size: int) -> None:
            waiting.append(self.accepted(id, size))
            self.acknowledged[id] = content(id, size)

        def settle() -> None:
            first = waiting.pop(0)
            del self.acknowledged[int(first.id)]  # it may be gone, whatever is reported
            self.store.apply([settled(first)])

        steps: list[Callable[[], object]] = []
        for id, size in enumerate(self.SIZES, start=1):
            steps.append(lambda id=id, size=size: accept(id, size))  # type: ignore[misc]
            if id >= 3:
                steps.append(settle)
        return steps

    def cut(self, operations: int) -> tuple[bool, list[int]]:
        """Cut the power after so many operations.

        Returns:
            Whether all was done before, and which messages have lost their content.
        """
        self.store.close()
        self.acknowledged: dict[int, bytes] = {}
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "queue.sqlite")
        self.new_disk(UnsyncedFiles(syncs=self.syncs))
        self.files.make_directories(self.spool.directory)
        self.files.make_directories(self.directory)
        self.store = self.new_store()
        self.store.open()
        self.files.cut_power_in(operations)
        is_whole = True
        try:
            for step in self.live():
                step()
        except (OSError, StoreError, self.failureException):
            is_whole = False
        self.files.crash()
        self.start_again()
        if not self.files.has(self.spool.directory):
            return is_whole, list(self.acknowledged)
        self.store.open()
        lost = []
        for id, wanted in self.acknowledged.items():
            try:
                if self.read(id) != wanted:
                    lost.append(id)
            except OSError:
                lost.append(id)
        (leased,) = self.store.apply([Lease(NOW, (Want("next.example", 99),))])
        for each in leased.messages:  # type: ignore[union-attr]
            read = b"".join(each.body.chunks())
            self.assertEqual(read, content(int(each.id), self.SIZES[int(each.id) - 1]))
        self.store.close()
        return is_whole, lost

    syncs = True

    def test_no_message_is_lost_or_has_another_content(self) -> None:
        for operations in range(1000):
            is_whole, lost = self.cut(operations)
            self.assertEqual(lost, [], operations)
            if is_whole:
                break
        self.assertGreater(operations, 40)

    def test_a_disk_that_only_pretends_to_sync_is_found_out(self) -> None:
        with patch("twisted_mta.testing.files.UnsyncedFile.sync", lambda file: file._begin("sync")):
            found = [self.cut(operations)[1] for operations in range(30, 60)]
        self.assertTrue(any(found))
