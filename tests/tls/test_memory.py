"""The TLS memory: first and last times, alarms, forgetting, merging."""

from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.tls.memory import TLSHost, TLSMemory, entries_below, merged_entries

DAY = 86_400.0


class MemoryTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.now = 1_000_000_000.0

    def memory(self, **limits: Any) -> TLSMemory:
        return TLSMemory(wall_time=lambda: self.now, **limits)


class Memory(MemoryTestCase):
    def test_a_host_has_the_times_of_its_first_and_last_tls(self) -> None:
        memory = self.memory()
        memory.remember("mx.example", 25)
        first = self.now
        self.now += 3 * DAY
        memory.remember("mx.example", 25)
        self.assertEqual(memory.known("mx.example", 25), TLSHost("mx.example", 25, first, self.now))
        self.assertIsNone(memory.known("mx.example", 26))

    def test_the_same_day_changes_nothing(self) -> None:
        """A busy host is not written again and again."""
        memory = self.memory()
        memory.remember("mx.example", 25)
        self.assertEqual(len(memory.take_changes()), 1)
        self.now += DAY - 1
        memory.remember("mx.example", 25)
        self.assertEqual(memory.take_changes(), [])
        self.now += 1
        memory.remember("mx.example", 25)
        self.assertEqual(len(memory.take_changes()), 1)

    def test_a_host_is_forgotten_after_90_days(self) -> None:
        memory = self.memory()
        memory.remember("mx.example", 25)
        self.now += 90 * DAY
        self.assertIsNotNone(memory.known("mx.example", 25))
        self.now += 1
        self.assertEqual(memory.entries(), [])
        self.assertIsNone(memory.known("mx.example", 25))
        self.assertEqual(len(memory), 0)

    def test_a_forgotten_host_is_no_change_to_take(self) -> None:
        memory = self.memory()
        memory.remember("mx.example", 25)
        self.now += 91 * DAY
        self.assertIsNone(memory.known("mx.example", 25))
        self.assertFalse(memory.changed)
        self.assertEqual(memory.take_changes(), [])

    def test_connections_without_tls_are_counted(self) -> None:
        memory = self.memory()
        memory.remember("mx.example", 25)
        self.assertEqual(memory.alarms, 0)
        for count in (1, 2):
            memory.alarm("mx.example", 25)
            self.assertEqual(memory.alarms, count)

    def test_a_host_that_an_operator_has_forgotten_is_met_anew(self) -> None:
        memory = self.memory()
        for port in (25, 26):
            memory.remember("mx.example", port)
        memory.remember("other.example", 25)
        memory.take_changes()
        self.now += 10
        self.assertEqual(memory.forget("mx.example"), [25, 26])
        self.assertEqual(memory.forget("mx.example"), [])
        self.assertIsNone(memory.known("mx.example", 25))
        self.assertEqual([entry["host"] for entry in memory.entries()], ["other.example"])
        self.assertEqual(len(memory.take_changes()), 2)
        self.now += 10
        memory.remember("mx.example", 25)
        known = memory.known("mx.example", 25)
        assert known is not None
        self.assertEqual((known.first, known.last), (self.now, self.now))

    def test_what_other_processes_knew_before_is_forgotten_too(self) -> None:
        before = TLSHost("mx.example", 25, self.now, self.now)
        memory = self.memory()
        memory.merge([before])
        self.now += 10
        memory.forget("mx.example")
        [forgotten] = memory.take_changes()
        after = TLSHost("mx.example", 25, self.now + 5, self.now + 5)
        self.now += 10
        for hosts in ([before, forgotten], [forgotten, before], [forgotten]):
            other = self.memory()
            other.merge(hosts)
            self.assertIsNone(other.known("mx.example", 25), hosts)
        for hosts in ([before, forgotten, after], [after, forgotten, before], [forgotten, after]):
            other = self.memory()
            other.merge(hosts)
            known = other.known("mx.example", 25)
            assert known is not None
            self.assertEqual((known.first, known.last), (after.first, after.last), hosts)
        other = self.memory()
        other.merge([before, after, forgotten])
        known = other.known("mx.example", 25)
        assert known is not None and forgotten.forgotten is not None
        self.assertEqual((known.first, known.last), (forgotten.forgotten, after.last))
        self.assertEqual(TLSHost.parse(forgotten.line().rstrip()), forgotten)

    def test_the_number_of_hosts_is_bounded(self) -> None:
        """The host that changed longest ago is forgotten."""
        memory = self.memory(most=2)
        memory.remember("a.example", 25)
        memory.remember("b.example", 25)
        self.now += DAY
        memory.remember("a.example", 25)
        memory.remember("c.example", 25)
        self.assertEqual([entry["host"] for entry in memory.entries()], ["a.example", "c.example"])

    def test_entries_of_other_processes_are_merged(self) -> None:
        """Merging takes the earliest and the latest time of two processes."""
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
        self.assertEqual(memory.take_changes(), [])  # entries of other processes are no changes

    def test_entries_are_selected_by_domain(self) -> None:
        memory = self.memory()
        for host in ("mx.example.net", "example.net", "example.org", "notexample.net"):
            memory.remember(host, 25)
        self.assertEqual(
            [entry["host"] for entry in entries_below(memory.entries(), "Example.NET.")],
            ["example.net", "mx.example.net"],
        )
        self.assertEqual(entries_below(memory.entries(), None), memory.entries())

    def test_entries_of_several_processes_are_joined(self) -> None:
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

    def test_entries_have_a_line_in_the_journal(self) -> None:
        for fact in (
            TLSHost("mx.example", 25, 5.0, 6.0),
            TLSHost("2001:db8::1", 25, 5.0, 6.0, 7.0),
            TLSHost("a", 0, 0.0, 0.0, 0.0),
            TLSHost("a" * 255, 25, 5.0, float((1 << 40) - 1)),
        ):
            self.assertEqual(TLSHost.parse(fact.line()), fact)
        for line in (b'["a",25,1,%d]' % (1 << 40), b'["%s",25,1,2]' % (b"a" * 256)):
            self.assertIsNone(TLSHost.parse(line), line)
        for line in (b"", b"{}", b"[]", b'["a",25,1]', b'["a",true,1,2]', b'["",1,1,1]', b'["a",2'):
            self.assertIsNone(TLSHost.parse(line), line)
