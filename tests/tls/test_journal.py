"""The journal of the TLS memory: restarts, crashes, other processes, failing disks."""

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.tls.journal import TRANSITIONS, State, TLSJournal
from twisted_mta.tls.memory import TLSHost, TLSMemory

DAY = 86_400.0


def at_once(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Deferred[Any]":
    """Run a call at once: an executor."""
    return maybeDeferred(function, *arguments, **named)


class JournalTests(TidyTestCase):
    DIRECTORY = "/state/tls"

    def setUp(self) -> None:
        self.now = 1_000_000_000.0
        self.files = UnsyncedFiles()
        self.clock = Clock()

    def journal(self, name: str = "0", **arguments: Any) -> tuple[TLSMemory, TLSJournal]:
        """Return the memory and the journal of a new process."""
        memory = TLSMemory(wall_time=lambda: self.now)
        journal = TLSJournal(
            memory,
            directory=self.DIRECTORY,
            name=name,
            files=self.files,
            clock=self.clock,
            **{"executor": at_once, **arguments},
        )
        journal.load()
        journal.start()
        self.addCleanup(journal.stop)
        return memory, journal

    def known(self, name: str = "0") -> list[str]:
        memory, journal = self.journal(name)
        self.successResultOf(journal.stop())
        return [entry["host"] for entry in memory.entries()]

    def test_hosts_survive_a_restart(self) -> None:
        memory, journal = self.journal()
        memory.remember("mx.example", 25)
        self.successResultOf(journal.stop())
        self.files.crash()
        self.assertEqual(self.known(), ["mx.example"])

    def test_hosts_survive_a_crash_except_for_the_last_moment(self) -> None:
        memory, _ = self.journal()
        memory.remember("a.example", 25)
        self.clock.advance(1)
        memory.remember("b.example", 25)
        self.clock.advance(1)
        memory.remember("c.example", 25)
        self.files.crash()
        self.assertEqual(self.known(), ["a.example", "b.example"])

    def test_nothing_is_written_while_nothing_changes(self) -> None:
        memory, _ = self.journal()
        self.clock.pump([60] * 3)
        self.assertEqual(self.files.names(self.DIRECTORY), [])
        memory.remember("mx.example", 25)
        self.clock.pump([60] * 3)
        self.assertEqual(self.files.names(self.DIRECTORY), ["tls-0.1.jsonl"])

    def test_other_processes_read_changes_every_minute(self) -> None:
        memory, _ = self.journal("0")
        other, _ = self.journal("1")
        for host in ("a.example", "b.example"):
            memory.remember(host, 25)
            self.clock.pump([60, 60])
            self.assertIsNotNone(other.known(host, 25))

    def test_other_processes_read_changes_soon_when_notified(self) -> None:
        other, reading = self.journal("1")
        memory, _ = self.journal("0", written=reading.sync_soon)
        for host in ("a.example", "b.example"):
            memory.remember(host, 25)
            self.clock.pump([0.5, 0.5])
            self.assertIsNotNone(other.known(host, 25))

    def test_a_process_that_is_alone_has_a_timer_only_for_what_is_not_written(self) -> None:
        memory, _ = self.journal(alone=True)
        for host in ("a.example", "b.example"):
            self.assertEqual(self.clock.getDelayedCalls(), [])
            memory.remember(host, 25)
            self.clock.advance(0.5)
        self.files.crash()
        self.assertEqual(self.known(), ["a.example", "b.example"])

    def test_a_process_that_is_alone_tries_a_failed_write_again(self) -> None:
        memory, _ = self.journal(alone=True)
        self.files.fail_next("sync", OSError(errno.EIO, "Input/output error"))
        memory.remember("a.example", 25)
        self.clock.advance(0.2)
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.files.crash()
        self.assertEqual(self.known(), ["a.example"])

    def test_a_change_during_a_write_is_written_soon_after(self) -> None:
        working: list[Deferred[Any]] = []

        def slow(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Deferred[Any]:
            waiting: Deferred[Any] = Deferred()
            working.append(waiting)
            return waiting.addCallback(lambda _: function(*arguments, **named))

        memory, _ = self.journal(executor=slow)
        memory.remember("a.example", 25)
        self.clock.advance(1)
        memory.remember("b.example", 25)
        for _ in range(4):
            while working:
                working.pop().callback(None)
            self.clock.advance(1)
        self.files.crash()
        self.assertEqual(self.known(), ["a.example", "b.example"])

    def test_a_file_that_has_grown_is_rewritten(self) -> None:
        """The other process, which has read the old file, still knows all hosts."""
        memory, _ = self.journal("0")
        other, _ = self.journal("1")
        for _ in range(1100):
            self.now += DAY
            memory.remember("mx.example", 25)
            self.clock.advance(60)
        names = self.files.names(self.DIRECTORY)
        self.assertEqual(names, ["tls-0.2.jsonl"])
        self.assertEqual(other.hosts(), memory.hosts())

    def test_a_rewritten_file_leaves_those_of_other_processes_alone(self) -> None:
        """Nor is its own file closed late, or open twice."""
        other, stopping = self.journal("1")
        other.remember("other.example", 25)
        self.clock.advance(1)
        self.successResultOf(stopping.stop())
        memory, journal = self.journal("0")
        for _ in range(1100):
            self.now += DAY / 20
            memory.alarm("mx.example", 25)
            memory.remember("mx.example", 25)
            self.clock.advance(60)
        names = self.files.names(self.DIRECTORY)
        self.assertEqual(names, ["tls-0.2.jsonl", "tls-1.1.jsonl"])
        self.assertEqual(self.files.open_files, [f"{self.DIRECTORY}/tls-0.2.jsonl"])
        self.successResultOf(journal.stop())
        self.assertEqual(self.known("2"), ["mx.example", "other.example"])

    def test_nothing_is_open_after_a_stop(self) -> None:
        memory, journal = self.journal()
        memory.remember("mx.example", 25)
        self.clock.advance(1)
        self.assertEqual(self.files.open_files, [f"{self.DIRECTORY}/tls-0.1.jsonl"])
        self.successResultOf(journal.stop())
        self.assertEqual((self.files.open_files, self.clock.getDelayedCalls()), ([], []))

    def test_a_stop_during_a_write_waits_for_it_and_leaves_no_timer(self) -> None:
        working: list[Deferred[Any]] = []

        def slow(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Deferred[Any]:
            working.append(Deferred())
            return working[-1].addCallback(lambda _: function(*arguments, **named))

        memory, journal = self.journal(executor=slow)
        memory.remember("a.example", 25)
        self.clock.advance(1)
        memory.remember("b.example", 25)
        stopped = journal.stop()
        self.assertNoResult(stopped)
        while working:
            working.pop().callback(None)
        self.successResultOf(stopped)
        memory.remember("c.example", 25)
        self.assertEqual((self.files.open_files, self.clock.getDelayedCalls()), ([], []))
        self.assertEqual(self.known(), ["a.example", "b.example"])

    def test_a_file_that_cannot_be_written_is_closed(self) -> None:
        memory, journal = self.journal()
        for _ in range(3):
            self.now += DAY
            memory.remember("mx.example", 25)
            self.files.fail_next("sync", OSError(5, "Input/output error"))
            self.clock.advance(60)
        self.assertEqual(self.files.open_files, [])
        self.successResultOf(journal.stop())
        self.assertEqual(self.known(), ["mx.example"])
        self.assertEqual(self.files.open_files, [])

    def test_a_new_process_of_the_same_name_begins_a_new_file(self) -> None:
        memory, journal = self.journal()
        memory.remember("a.example", 25)
        self.successResultOf(journal.stop())
        memory, journal = self.journal()
        memory.remember("b.example", 25)
        self.successResultOf(journal.stop())
        self.assertEqual(self.files.names(self.DIRECTORY), ["tls-0.2.jsonl"])
        self.assertEqual(self.known(), ["a.example", "b.example"])

    def test_a_torn_line_is_skipped(self) -> None:
        self.files.make_directories(self.DIRECTORY)
        file = self.files.create(f"{self.DIRECTORY}/tls-3.7.jsonl")
        fact = TLSHost("mx.example", 25, self.now, self.now)
        file.write(b"garbage\n" + fact.line() + fact.line()[:-5])
        file.close()
        self.assertEqual(self.known(), ["mx.example"])

    def test_a_failing_disk_is_logged_and_written_to_later(self) -> None:
        """The failure is logged, and all hosts are written once the disk works."""
        memory, _ = self.journal()
        memory.remember("a.example", 25)
        self.clock.advance(60)
        self.files.fail_next("sync", OSError(5, "Input/output error"))
        memory.remember("b.example", 25)
        self.clock.advance(60)
        self.clock.advance(60)
        self.files.crash()
        self.assertEqual(self.known(), ["a.example", "b.example"])

    def test_a_directory_that_cannot_be_made_at_the_start_is_made_with_the_first_change(
        self,
    ) -> None:
        logged = logged_lines(self, "TLS memory")
        self.files.fail_next("make_directories", OSError(errno.ENOSPC, "No space left on device"))
        memory, _ = self.journal()
        self.assertEqual(len(logged), 1)
        memory.remember("a.example", 25)
        self.clock.advance(60)
        self.assertEqual(len(logged), 1)
        self.files.crash()
        self.assertEqual(self.known(), ["a.example"])


class States(TidyTestCase):
    def test_every_state_is_reached_and_left(self) -> None:
        reached = {State.NEW}
        for row in TRANSITIONS.values():
            reached |= set(row.values())
        self.assertEqual(reached, set(State))
        self.assertEqual([state for state in State if not TRANSITIONS[state]], [])

    def test_a_stopped_journal_stays_stopped(self) -> None:
        self.assertEqual(set(TRANSITIONS[State.STOPPED].values()), {State.STOPPED})
