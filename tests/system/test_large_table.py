"""`LargeTable`: a mapping in many dictionaries."""

from hypothesis import given
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.system.large_table import LargeTable
from twisted_mta.system.work import finished


class Tables(TidyTestCase):
    @given(st.lists(st.tuples(st.text(max_size=3), st.integers(), st.booleans())))
    def test_it_does_what_a_dictionary_does(self, steps: list[tuple[str, int, bool]]) -> None:
        table: LargeTable[int] = LargeTable()
        expected: dict[str, int] = {}
        for key, value, removes in steps:
            if removes:
                self.assertEqual(table.pop(key, None), expected.pop(key, None))
            else:
                table[key] = expected[key] = value
            self.assertEqual((table.find(key), key in table), (expected.get(key), key in expected))
        self.assertEqual((dict(table), len(table)), (expected, len(expected)))
        self.assertEqual(bool(table), bool(expected))

    def test_a_missing_key_is_an_error(self) -> None:
        table: LargeTable[int] = LargeTable()
        self.assertRaises(KeyError, table.__getitem__, "a")
        self.assertRaises(KeyError, table.__delitem__, "a")
        self.assertNotIn("a", table)

    def test_entries_are_spread_over_all_parts(self) -> None:
        # So that none of them moves more than a few thousand entries when it grows.
        table: LargeTable[None] = LargeTable()
        for number in range(64_000):
            table[f"user{number}@example.net"] = None
        self.assertLess(max(map(len, table._parts)), 2_000)

    def test_it_is_emptied_in_slices(self) -> None:
        table: LargeTable[None] = LargeTable()
        for number in range(64_000):
            table[f"user{number}@example.net"] = None
        slices = sum(1 for _ in table.emptying())
        self.assertGreater(slices, 100)
        self.assertEqual(len(table), 0)
        finished(table.emptying())
