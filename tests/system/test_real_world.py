"""The machine's clock and the operating system's randomness, as the rooms are handed them."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import SkipTest

from tests.tidy import TidyTestCase, descriptors
from twisted_mta.system.real_world import (
    BlockedTime,
    monotonic_microseconds,
    system_random,
    wall_time,
)


class RealWorld(TidyTestCase):
    def test_two_sources_of_randomness_have_different_seeds(self) -> None:
        self.assertNotEqual(system_random().getrandbits(64), system_random().getrandbits(64))

    def test_wall_time_counts_seconds_since_the_epoch(self) -> None:
        self.assertGreater(wall_time(), 1_700_000_000.0)
        self.assertLess(wall_time(), 100_000_000_000.0)


class Blocked(TidyTestCase):
    def setUp(self) -> None:
        self.blocked_time = BlockedTime()
        self.addCleanup(self.blocked_time.close)

    def test_a_wait_counts(self) -> None:
        before = self.blocked_time()
        threading.Event().wait(0.05)
        self.assertGreaterEqual(self.blocked_time() - before, 0.04)

    def test_the_open_file_is_about_the_calling_thread(self) -> None:
        """After a fork another thread calls."""
        if not Path("/proc/self/schedstat").exists():
            raise SkipTest("the kernel does not count it")
        found: list[tuple[int, list[str]]] = []

        def call() -> None:
            for _ in range(2):
                self.blocked_time()
            names = [each for each in descriptors().values() if each.endswith("/schedstat")]
            found.append((threading.get_native_id(), names))

        thread = threading.Thread(target=call)
        call()
        thread.start()
        thread.join()
        call()
        for number, names in found:
            self.assertEqual(names, [f"/proc/{os.getpid()}/task/{number}/schedstat"])
        self.assertEqual(len({number for number, _ in found}), 2)

    def test_a_kernel_that_does_not_count_is_no_error(self) -> None:
        """An exception here would look like one of the commit that is measured."""

        def closed(*arguments: object) -> bytes:
            raise OSError("no such process")

        for read in (lambda *arguments: b"", lambda *arguments: b"0 ? 0", closed):
            self.patch(os, "pread", read)
            self.test_a_wait_counts()

    def test_a_wait_for_a_processor_that_others_have_does_not_count(self) -> None:
        if not Path("/proc/self/schedstat").exists():
            raise SkipTest("the kernel does not count it")
        processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(processors)})  # the processes that are started as well
        self.addCleanup(os.sched_setaffinity, 0, processors)
        for _ in range(3):
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            self.addCleanup(busy.wait)
            self.addCleanup(busy.kill)
        before, worked = self.blocked_time(), time.thread_time()
        end = monotonic_microseconds() + 200_000
        while monotonic_microseconds() < end:
            pass
        waited = 0.2 - (time.thread_time() - worked)
        self.assertGreater(waited, 0.05)
        self.assertLess(self.blocked_time() - before, waited / 4)
