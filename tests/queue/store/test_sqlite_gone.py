"""A state directory that goes away while it is in use, in part or whole, and comes back."""

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
    """An open store with one message, and a directory that it can be moved to."""

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
        """The store takes no mail, cannot be opened again, and makes no file."""
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
        """The store can be opened again, and has all its mail."""
        self.store.open()
        self.store.apply([Forget((message(2).id,)), Accept(message(3), lease=False)])
        self.assertEqual(self.store.census().messages, messages + 1)


class Database(GoneTestCase):
    # The store keeps a descriptor of a database that has gone: no other file gets its inode.
    kept_open = ("queue.sqlite (deleted)",)

    def test_a_database_that_was_moved_away_is_waited_for(self) -> None:
        os.rename(self.path, f"{self.path}.away")
        self.assertClosedFor("queue.sqlite")
        os.rename(f"{self.path}.away", self.path)
        self.assertBack()

    def test_a_database_that_was_removed_is_not_made_again(self) -> None:
        os.unlink(self.path)
        self.assertClosedFor("queue.sqlite")

    def test_a_copy_of_the_database_is_accepted_without_the_old_log(self) -> None:
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

    def test_an_empty_file_in_the_place_of_the_database_is_not_touched(self) -> None:
        os.rename(self.path, f"{self.path}.away")
        with open(self.path, "wb"):
            pass
        self.assertClosedFor("another file")
        self.assertEqual(os.path.getsize(self.path), 0)
        os.rename(f"{self.path}.away", self.path)
        self.assertBack()

    def test_the_log_of_one_database_is_not_applied_to_another(self) -> None:
        self.store.close()
        shutil.copyfile(self.path, f"{self.path}.older")
        self.store.open()
        self.store.apply([Accept(message(4), lease=False)])
        os.rename(self.path, f"{self.path}.away")
        os.rename(f"{self.path}.older", self.path)
        self.assertClosedFor("another file")
        os.rename(f"{self.path}.away", self.path)
        self.assertBack(2)

    def test_another_queue_in_the_place_of_the_database_is_not_touched(self) -> None:
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

    def test_a_database_that_another_program_has_open_is_waited_for(self) -> None:
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

    def test_an_outcome_is_not_recorded_while_the_database_is_away(self) -> None:
        os.rename(self.path, f"{self.path}.away")
        with self.assertRaises(StoreError):
            self.store.apply([settled(message(1))])
        self.store.close()
        os.rename(f"{self.path}.away", self.path)
        self.store.open()
        self.store.apply([settled(message(1))])
        self.assertEqual(self.store.census().messages, 0)

    def test_a_missing_database_is_noticed_without_mail(self) -> None:
        os.unlink(self.path)
        with self.assertRaises(StoreError):
            self.store.apply([Forget(())])

    def test_the_path_of_the_database_may_have_any_characters(self) -> None:
        path = os.path.join(self.directory, "a b?c#d%41é\udcff.sqlite")
        store = SQLiteStore(path, spool=self.spool, files=self.files)
        store.open()
        store.apply([Accept(message(2), lease=False)])
        store.close()
        store.open()
        self.assertEqual(store.census().messages, 1)
        store.close()
        self.assertTrue(os.path.exists(path))

    def test_the_first_opening_makes_missing_files(self) -> None:
        self.store.close()
        os.unlink(self.path)
        store = self.new_store()
        self.addCleanup(store.close)
        self.assertEqual(store.open().census.messages, 0)

    def test_every_queue_has_an_id_of_its_own(self) -> None:
        self.store.close()
        first = self.query("SELECT id FROM identity")
        os.unlink(self.path)
        store = self.new_store()
        store.open()
        store.close()
        self.assertNotEqual(self.query("SELECT id FROM identity"), first)

    def test_an_open_store_is_closed_before_it_is_opened_again(self) -> None:
        self.store.open()
        self.assertBack()

    def test_a_store_that_could_not_be_opened_for_lack_of_memory_can_be_opened_later(self) -> None:
        self.store.close()
        before = self.store._read_free_pages

        def exhausted(database: object) -> object:
            raise MemoryError

        self.store._read_free_pages = exhausted  # type: ignore[method-assign,assignment]
        self.assertRaises(MemoryError, self.store.open)
        self.store._read_free_pages = before  # type: ignore[method-assign]
        self.assertBack()


class StateDirectory(GoneTestCase):
    """The whole directory is moved, so its files are real."""

    def new_disk(self, files: UnsyncedFiles) -> None:
        self.files = DiskFiles()  # type: ignore[assignment]
        body = os.path.join(self.directory, "body")
        self.spool = Spool(body, files=self.files, executor=inline_executor, small_body=100)

    def test_a_directory_that_was_moved_away_is_waited_for(self) -> None:
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

    def test_a_copy_of_the_directory_is_accepted(self) -> None:
        self.store.apply([Accept(self.large(5), lease=False)])
        self.store.close()
        shutil.copytree(self.directory, self.away)
        shutil.rmtree(self.directory)
        self.assertRaises(StoreError, self.store.open)
        os.rename(self.away, self.directory)
        self.assertBack(2)

    def test_a_missing_directory_of_bodies_is_waited_for(self) -> None:
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

    def test_copied_bodies_are_recognized_by_their_names(self) -> None:
        body = self.spool.directory
        self.store.apply([Accept(self.large(5), lease=False)])
        shutil.copytree(body, self.away)
        shutil.rmtree(body)
        self.assertClosedFor("body")
        os.rename(self.away, body)
        self.assertBack(2)

    def test_a_lock_whose_file_was_removed_is_taken_again(self) -> None:
        os.unlink(os.path.join(self.directory, "queue.lock"))
        with self.assertRaises(StoreError):
            self.store.apply([Forget(())])
        self.store.close()
        self.assertBack()
        self.assertTrue(self.lock.in_place)

    def test_a_lock_that_another_process_took_meanwhile_keeps_the_store_closed(self) -> None:
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
