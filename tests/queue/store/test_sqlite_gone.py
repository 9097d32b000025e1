"""A state directory that goes away while it is in use, in part or as a whole, and comes back."""

from __future__ import annotations

import os
import shutil
import sqlite3

from twisted_mta.queue.store.contract import Accept, Forget, StoreError
from twisted_mta.queue.store.lock import StateLock
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles
from twisted_mta.testing.files import UnsyncedFiles

from ..mail import message, settled
from .test_sqlite import StoreTestCase


class GoneTestCase(StoreTestCase):
    """A store that is open, with a message, and a directory that it can be moved to."""

    def setUp(self) -> None:
        super().setUp()
        self.away = f"{self.directory}-away"
        self.lock = StateLock(os.path.join(self.directory, "queue.lock"))
        self.lock.acquire()
        self.addCleanup(lambda: self.lock.release())
        self.store = self.new_store()
        self.store.open()
        self.store.apply([Accept(message(1), lease=False)])

    def new_store(self) -> SQLiteStore:
        lock = getattr(self, "lock", None)
        return SQLiteStore(self.path, spool=self.spool, files=self.files, lock=lock)

    def assertClosedFor(self, cause: str) -> None:
        """Nothing is taken, nor is it opened again; and nothing is made."""
        with self.assertRaises(StoreError) as told:
            self.store.apply([Forget((message(2).id,)), Accept(message(2), lease=False)])
        self.assertIn(cause, str(told.exception))
        self.store.close()
        names = os.listdir(self.directory) if os.path.isdir(self.directory) else None
        for _ in range(2):
            self.assertRaises(StoreError, self.store.open)
        self.assertEqual(
            os.listdir(self.directory) if os.path.isdir(self.directory) else None, names
        )

    def assertBack(self, messages: int = 1) -> None:
        """It is opened again, and has all that was in it."""
        self.store.open()
        self.store.apply([Forget((message(2).id,)), Accept(message(3), lease=False)])
        self.assertEqual(self.store.census().messages, messages + 1)


class Database(GoneTestCase):
    def test_one_that_was_moved_away_is_waited_for(self) -> None:
        os.rename(self.path, f"{self.path}.away")
        self.assertClosedFor("queue.sqlite")
        os.rename(f"{self.path}.away", self.path)
        self.assertBack()

    def test_one_that_was_removed_is_not_made_again(self) -> None:
        os.unlink(self.path)
        self.assertClosedFor("queue.sqlite")

    def test_a_copy_of_it_is_it(self) -> None:
        self.store.close()
        shutil.copyfile(self.path, f"{self.path}.copy")
        self.store.open()
        os.unlink(self.path)
        self.assertClosedFor("queue.sqlite")
        shutil.copyfile(f"{self.path}.copy", self.path)
        refusal = self.assertRaises(StoreError, self.store.open)
        self.assertIn("move the log away", str(refusal))
        os.unlink(f"{self.path}-wal")
        self.assertBack()

    def test_an_empty_file_in_its_place_is_left_alone(self) -> None:
        os.rename(self.path, f"{self.path}.away")
        with open(self.path, "wb"):
            pass
        self.assertClosedFor("another file")
        self.assertEqual(os.path.getsize(self.path), 0)
        os.rename(f"{self.path}.away", self.path)
        self.assertBack()

    def test_another_file_does_not_get_the_log_of_the_one_before(self) -> None:
        self.store.close()
        shutil.copyfile(self.path, f"{self.path}.older")
        self.store.open()
        self.store.apply([Accept(message(4), lease=False)])
        os.rename(self.path, f"{self.path}.away")
        os.rename(f"{self.path}.older", self.path)
        self.assertClosedFor("another file")
        os.rename(f"{self.path}.away", self.path)
        self.assertBack(2)

    def test_another_queue_in_its_place_is_left_alone(self) -> None:
        self.lock.release()
        os.rename(self.directory, self.away)
        os.mkdir(self.directory)
        other = SQLiteStore(self.path, spool=self.spool, files=self.files)
        other.open()
        other.apply([Accept(message(7), lease=False)])
        other.close()
        self.assertClosedFor("another file")
        self.assertEqual(self.query("SELECT count(*) FROM message"), [(1,)])
        shutil.rmtree(self.directory)
        os.rename(self.away, self.directory)
        self.assertBack()

    def test_one_that_another_program_has_open_is_waited_for(self) -> None:
        self.store.close()
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        self.assertRaises(StoreError, self.store.open)
        other.close()
        self.assertBack()

    def test_without_its_write_ahead_log_nothing_is_lost(self) -> None:
        os.unlink(f"{self.path}-wal")
        with self.assertRaises(StoreError):
            self.store.apply([Accept(message(2), lease=False)])
        self.store.close()
        self.assertBack()

    def test_an_outcome_is_not_taken_either(self) -> None:
        os.rename(self.path, f"{self.path}.away")
        with self.assertRaises(StoreError):
            self.store.apply([settled(message(1))])
        self.store.close()
        os.rename(f"{self.path}.away", self.path)
        self.store.open()
        self.store.apply([settled(message(1))])
        self.assertEqual(self.store.census().messages, 0)

    def test_it_is_found_out_without_any_mail(self) -> None:
        os.unlink(self.path)
        with self.assertRaises(StoreError):
            self.store.apply([Forget(())])

    def test_its_path_may_have_any_name(self) -> None:
        path = os.path.join(self.directory, "a b?c#d%41é\udcff.sqlite")
        store = SQLiteStore(path, spool=self.spool, files=self.files)
        store.open()
        store.apply([Accept(message(2), lease=False)])
        store.close()
        store.open()
        self.assertEqual(store.census().messages, 1)
        store.close()
        self.assertTrue(os.path.exists(path))

    def test_the_first_opening_makes_what_is_not_there(self) -> None:
        self.store.close()
        os.unlink(self.path)
        store = self.new_store()
        self.addCleanup(store.close)
        self.assertEqual(store.open().census.messages, 0)

    def test_queues_are_told_apart(self) -> None:
        self.store.close()
        first = self.query("SELECT id FROM identity")
        os.unlink(self.path)
        store = self.new_store()
        store.open()
        store.close()
        self.assertNotEqual(self.query("SELECT id FROM identity"), first)

    def test_one_that_could_not_be_closed_is_closed_before_it_is_opened(self) -> None:
        self.store.open()
        self.assertBack()

    def test_one_that_could_not_be_opened_for_want_of_memory_is_opened_later(self) -> None:
        self.store.close()
        before = self.store._read_free_pages

        def exhausted(database: object) -> object:
            raise MemoryError

        self.store._read_free_pages = exhausted  # type: ignore[method-assign,assignment]
        self.assertRaises(MemoryError, self.store.open)
        self.store._read_free_pages = before  # type: ignore[method-assign]
        self.assertBack()


class StateDirectory(GoneTestCase):
    """With real files, since a directory is moved as a whole."""

    def new_disk(self, files: UnsyncedFiles) -> None:
        self.files = DiskFiles()  # type: ignore[assignment]
        body = os.path.join(self.directory, "body")
        self.spool = Spool(body, files=self.files, executor=inline_executor, small_body=100)

    def test_one_that_was_moved_away_is_waited_for(self) -> None:
        self.store.apply([Accept(self.large(5), lease=False)])
        for bare in (False, True):
            os.rename(self.directory, self.away)
            if bare:
                os.mkdir(self.directory)
            self.assertClosedFor(self.directory)
            if bare:
                os.rmdir(self.directory)
            os.rename(self.away, self.directory)
            self.store.open()
        self.assertBack(2)

    def test_a_copy_of_it_is_it(self) -> None:
        self.store.apply([Accept(self.large(5), lease=False)])
        self.store.close()
        shutil.copytree(self.directory, self.away)
        shutil.rmtree(self.directory)
        self.assertRaises(StoreError, self.store.open)
        os.rename(self.away, self.directory)
        self.assertBack(2)

    def test_bodies_that_went_away_alone_are_waited_for(self) -> None:
        body = self.spool.directory
        self.store.apply([Accept(self.large(5), lease=False)])
        for bare in (False, True):
            os.rename(body, self.away)
            if bare:
                os.mkdir(body)
            self.assertClosedFor("body")
            if bare:
                self.assertEqual(os.listdir(body), [])
                os.rmdir(body)
            os.rename(self.away, body)
            self.store.open()
        self.assertBack(2)

    def test_bodies_that_were_copied_are_known_by_their_names(self) -> None:
        body = self.spool.directory
        self.store.apply([Accept(self.large(5), lease=False)])
        shutil.copytree(body, self.away)
        shutil.rmtree(body)
        self.assertClosedFor("body")
        os.rename(self.away, body)
        self.assertBack(2)

    def test_a_lock_whose_file_was_removed_is_taken_anew(self) -> None:
        os.unlink(os.path.join(self.directory, "queue.lock"))
        with self.assertRaises(StoreError):
            self.store.apply([Forget(())])
        self.store.close()
        self.assertBack()
        self.assertTrue(self.lock.in_place)

    def test_one_that_another_has_by_then_is_left_to_it(self) -> None:
        path = os.path.join(self.directory, "queue.lock")
        os.unlink(path)
        other = StateLock(path)
        other.acquire()
        self.addCleanup(other.release)
        with self.assertRaises(StoreError):
            self.store.apply([Forget(())])
        self.store.close()
        refusal = self.assertRaises(StoreError, self.store.open)
        self.assertIn("in use by another MTA", str(refusal))
        other.release()
        self.assertBack()
