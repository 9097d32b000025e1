"""One process to a state directory."""

import errno
import fcntl
import os
import stat
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.queue.store.contract import StateInUse
from twisted_mta.queue.store.lock import StateLock


class Lock(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "lock")
        self.lock = StateLock(self.path)
        self.addCleanup(self.lock.release)

    def test_it_names_who_holds_it_and_what_would_do(self) -> None:
        self.lock.acquire()
        refusal = self.assertRaises(StateInUse, StateLock(self.path).acquire)
        self.assertIn(self.directory, str(refusal))
        self.assertIn(f"process {os.getpid()}", str(refusal))
        self.assertIn("--state-dir", str(refusal))

    def test_it_can_be_had_again_once_it_is_released(self) -> None:
        self.lock.acquire()
        self.lock.release()
        self.lock.release()
        other = StateLock(self.path)
        other.acquire()
        other.release()
        self.lock.acquire()

    def test_who_was_refused_harms_nothing(self) -> None:
        self.lock.acquire()
        for _ in range(2):
            self.assertRaises(StateInUse, StateLock(self.path).acquire)

    def test_a_file_left_by_one_that_died_is_no_lock(self) -> None:
        with open(self.path, "wb") as file:
            file.write(b"123456789012345678\n")
        self.lock.acquire()
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"%d\n" % os.getpid())

    def test_its_file_is_for_its_owner_alone(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.lock.acquire()
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_a_full_disk_keeps_nobody_from_starting(self) -> None:
        with mock.patch.object(os, "pwrite", side_effect=OSError(errno.ENOSPC, "full")):
            self.lock.acquire()
        self.assertRaises(StateInUse, StateLock(self.path).acquire)

    def test_a_lock_that_cannot_be_had_at_all_is_not_blamed_on_another(self) -> None:
        with (
            mock.patch.object(fcntl, "flock", side_effect=OSError(errno.ENOLCK, "no locks")),
            self.assertRaises(OSError) as told,
        ):
            self.lock.acquire()
        self.assertEqual(told.exception.errno, errno.ENOLCK)
