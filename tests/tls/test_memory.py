"""What is remembered of hosts that TLS was had with, and how it outlives the process."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.tls.journal import TLSJournal
from twisted_mta.tls.memory import TLSHost, TLSMemory, entries_below, merged_entries

DAY = 86_400.0


class MemoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1_000_000_000.0

    def memory(self, **limits: Any) -> TLSMemory:
        return TLSMemory(wall_time=lambda: self.now, **limits)


class Memory(MemoryTestCase):
    def test_first_and_last_time(self) -> None:
        memory = self.memory()
        memory.remember("mx.example", 25)
        first = self.now
        self.now += 3 * DAY
        memory.remember("mx.example", 25)
        self.assertEqual(memory.known("mx.example", 25), TLSHost("mx.example", 25, first, self.now))
        self.assertIsNone(memory.known("mx.example", 26))

    def test_the_same_day_changes_nothing(self) -> None:
        """So a busy host is not written down again and again."""
        memory = self.memory()
        memory.remember("mx.example", 25)
        self.assertEqual(len(memory.take_changes()), 1)
        self.now += DAY - 1
        memory.remember("mx.example", 25)
        self.assertEqual(memory.take_changes(), [])
        self.now += 1
        memory.remember("mx.example", 25)
        self.assertEqual(len(memory.take_changes()), 1)

    def test_forgotten_after_90_days(self) -> None:
        memory = self.memory()
        memory.remember("mx.example", 25)
        self.now += 90 * DAY
        self.assertIsNotNone(memory.known("mx.example", 25))
        self.now += 1
        self.assertEqual(memory.entries(), [])
        self.assertIsNone(memory.known("mx.example", 25))
        self.assertEqual(len(memory), 0)

    def test_only_so_many(self) -> None:
        """The one that nothing was heard of for longest goes."""
        memory = self.memory(most=2)
        memory.remember("a.example", 25)
        memory.remember("b.example", 25)
        self.now += DAY
        memory.remember("a.example", 25)
        memory.remember("c.example", 25)
        self.assertEqual([entry["host"] for entry in memory.entries()], ["a.example", "c.example"])

    def test_merging(self) -> None:
        """The earliest and the latest of what two processes know."""
        memory = self.memory()
        memory.merge([TLSHost("a.example", 25, self.now - 9, self.now - 5)])
        memory.merge([TLSHost("a.example", 25, self.now - 7, self.now - 3, self.now - 1)])
        memory.merge([TLSHost("b.example", 25, 0.0, 1.0)])  # long ago
        self.assertEqual(
            memory.hosts(),
            [TLSHost("a.example", 25, self.now - 9, self.now - 3, self.now - 1)],
        )
        memory.merge([TLSHost("a.example", 25, self.now, self.now)])
        self.assertIsNone(memory.hosts()[0].missing)
        self.assertEqual(memory.take_changes(), [])  # others keep what they know

    def test_entries_of_a_domain(self) -> None:
        memory = self.memory()
        for host in ("mx.example.net", "example.net", "example.org", "notexample.net"):
            memory.remember(host, 25)
        self.assertEqual(
            [entry["host"] for entry in entries_below(memory.entries(), "Example.NET.")],
            ["example.net", "mx.example.net"],
        )

    def test_what_several_processes_know_together(self) -> None:
        one, other = self.memory(), self.memory()
        one.remember("b.example", 25)
        one.remember("a.example", 25)
        self.now += 2 * DAY
        other.remember("b.example", 25)
        self.now += 1
        other.alarm("b.example", 25)
        together = merged_entries((one.entries(), other.entries()))
        self.assertEqual([entry["host"] for entry in together], ["a.example", "b.example"])
        (first,) = entries_below(one.entries(), "b.example")
        (last,) = entries_below(other.entries(), "b.example")
        self.assertEqual(together[1], {**last, "first": first["first"]})
        self.assertEqual(together[1]["missing"], self.now)

    def test_lines(self) -> None:
        for fact in (
            TLSHost("mx.example", 25, 5.0, 6.0),
            TLSHost("2001:db8::1", 25, 5.0, 6.0, 7.0),
        ):
            self.assertEqual(TLSHost.parse(fact.line()), fact)
        for line in (b"", b"{}", b"[]", b'["a",25,1]', b'["a",true,1,2]', b'["",1,1,1]', b'["a",2'):
            self.assertIsNone(TLSHost.parse(line), line)


def at_once(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> "Deferred[Any]":
    """An executor: the caller's own turn."""
    return maybeDeferred(function, *arguments, **named)


class Journal(MemoryTestCase):
    DIRECTORY = "/state/tls"

    def setUp(self) -> None:
        super().setUp()
        self.files = UnsyncedFiles()
        self.clock = Clock()

    def journal(self, name: str = "0", **arguments: Any) -> tuple[TLSMemory, TLSJournal]:
        """Start a process that remembers."""
        memory = self.memory()
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
        return memory, journal

    def known(self, name: str = "0") -> list[str]:
        memory, journal = self.journal(name)
        self.successResultOf(journal.stop())
        return [entry["host"] for entry in memory.entries()]

    def test_it_outlives_the_process(self) -> None:
        memory, journal = self.journal()
        memory.remember("mx.example", 25)
        self.successResultOf(journal.stop())
        self.files.crash()
        self.assertEqual(self.known(), ["mx.example"])

    def test_and_a_crash_but_for_the_last_moment(self) -> None:
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

    def test_others_hear_of_it_while_they_run(self) -> None:
        memory, _ = self.journal("0")
        other, _ = self.journal("1")
        for host in ("a.example", "b.example"):
            memory.remember(host, 25)
            self.clock.pump([60, 60])
            self.assertIsNotNone(other.known(host, 25))

    def test_at_once_if_they_are_told_that_there_is_something_new(self) -> None:
        other, reading = self.journal("1")
        memory, _ = self.journal("0", written=reading.sync_soon)
        for host in ("a.example", "b.example"):
            memory.remember(host, 25)
            self.clock.pump([0.5, 0.5])
            self.assertIsNotNone(other.known(host, 25))

    def test_what_is_met_while_the_disk_works_is_not_left_for_long(self) -> None:
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

    def test_a_file_that_has_grown_is_begun_anew(self) -> None:
        """And what another has read of it already is still all there."""
        memory, _ = self.journal("0")
        other, _ = self.journal("1")
        for _ in range(1100):
            self.now += DAY
            memory.remember("mx.example", 25)
            self.clock.advance(60)
        names = self.files.names(self.DIRECTORY)
        self.assertEqual(names, ["tls-0.2.jsonl"])
        self.assertEqual(other.hosts(), memory.hosts())

    def test_a_new_process_of_the_same_name_begins_anew(self) -> None:
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
        self.assertEqual(self.known(), ["mx.example"])

    def test_a_disk_that_fails_and_comes_back(self) -> None:
        """It is said, nothing stops, and all is written once it can be."""
        memory, _ = self.journal()
        memory.remember("a.example", 25)
        self.clock.advance(60)
        self.files.fail_next("sync", OSError(5, "Input/output error"))
        memory.remember("b.example", 25)
        self.clock.advance(60)
        self.clock.advance(60)
        self.files.crash()
        self.assertEqual(self.known(), ["a.example", "b.example"])
