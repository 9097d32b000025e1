"""The lock of a state directory."""

import errno
import fcntl
import os
import stat
from unittest import mock

from tests.tidy import TidyTestCase
from twisted_mta.queue.store.contract import StateInUse
from twisted_mta.queue.store.lock import StateLock


class Lock(TidyTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "lock")
        self.lock = StateLock(self.path)
        self.addCleanup(self.lock.release)

    def test_the_error_names_the_directory_the_process_and_a_remedy(self) -> None:
        self.lock.acquire()
        refusal = self.assertRaises(StateInUse, StateLock(self.path).acquire)
        self.assertIn(self.directory, str(refusal))
        self.assertIn(f"process {os.getpid()}", str(refusal))
        self.assertIn("--state-dir", str(refusal))

    def test_a_released_lock_can_be_acquired_again(self) -> None:
        self.lock.acquire()
        self.lock.release()
        self.lock.release()
        other = StateLock(self.path)
        other.acquire()
        other.release()
        self.lock.acquire()

    def test_a_refused_process_leaves_the_lock_as_it_is(self) -> None:
        self.lock.acquire()
        for _ in range(2):
            self.assertRaises(StateInUse, StateLock(self.path).acquire)

    def test_a_lock_file_left_by_a_dead_process_is_no_lock(self) -> None:
        with open(self.path, "wb") as file:
            file.write(b"123456789012345678\n")
        self.lock.acquire()
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"%d\n" % os.getpid())

    def test_the_lock_file_is_for_its_owner_alone(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.lock.acquire()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_the_lock_can_be_acquired_on_a_full_disk(self) -> None:
        with mock.patch.object(os, "pwrite", side_effect=OSError(errno.ENOSPC, "full")):
            self.lock.acquire()
        self.assertRaises(StateInUse, StateLock(self.path).acquire)

    def test_a_lock_file_that_cannot_be_opened_raises_os_error(self) -> None:
        with (
            mock.patch.object(fcntl, "flock", side_effect=OSError(errno.ENOLCK, "no locks")),
            self.assertRaises(OSError) as told,
        ):
            self.lock.acquire()
        self.assertEqual(told.exception.errno, errno.ENOLCK)
