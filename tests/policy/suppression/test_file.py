"""The suppression list on disk: its entries, its bounds, and several processes."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from tests.tidy import TidyTestCase
from twisted_mta.policy.suppression.file import DAY, Attempted, Entry, SuppressionFile, Terms

REPLY = "550 5.1.1 User unknown"
TERMS = Terms(bounces=3, within=30 * DAY, keep=90 * DAY)


class ListTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(os.path.abspath(self.mktemp()), "list", "list.sqlite")
        os.makedirs(os.path.dirname(os.path.dirname(self.path)))
        self.file = SuppressionFile(self.path)

    def bounce(self, address: str, *days: float, terms: Terms = TERMS) -> list[str]:
        attempts = [Attempted(address, day * DAY, REPLY) for day in days]
        return [each.change for each in self.file.note(attempts, terms)]

    def deliver(self, address: str, day: float) -> list[str]:
        changes = self.file.note([Attempted(address, day * DAY, None)], TERMS)
        return [each.change for each in changes]

    def entry(self, address: str, day: float) -> Entry | None:
        return self.file.find([address], day * DAY)[0]

    def count(self, table: str) -> int:
        with closing(sqlite3.connect(self.path)) as database:
            number: int = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608
            return number


class Entries(ListTestCase):
    def test_bounces_on_three_days_of_thirty_list_an_address_for_ninety(self) -> None:
        self.assertEqual(self.bounce("bob@a.test", 1, 1.1, 1.2, 1.9), [])
        self.assertEqual(self.bounce("bob@a.test", 20), [])
        self.assertIsNone(self.entry("bob@a.test", 21))
        self.assertEqual(self.bounce("bob@a.test", 30), ["added"])
        expected = Entry("bob@a.test", 30 * DAY, 120 * DAY, 3, REPLY)
        self.assertEqual(self.entry("bob@a.test", 119), expected)
        self.assertIsNone(self.entry("eve@a.test", 31))
        self.assertIsNone(self.entry("bob@a.test", 121))

    def test_bounces_that_are_long_ago_do_not_count(self) -> None:
        self.assertEqual(self.bounce("bob@a.test", 1, 2, 32), [])
        self.assertEqual(self.bounce("bob@a.test", 33, 34), ["added"])

    def test_a_bounce_of_mail_that_was_queued_prolongs_an_entry(self) -> None:
        self.bounce("bob@a.test", 1, 2, 3)
        self.assertEqual(self.bounce("bob@a.test", 7), [])
        self.assertEqual(
            self.entry("bob@a.test", 96), Entry("bob@a.test", 3 * DAY, 97 * DAY, 4, REPLY)
        )

    def test_a_delivery_takes_an_address_off_and_begins_anew(self) -> None:
        self.bounce("bob@a.test", 1, 2, 3)
        self.assertEqual(self.deliver("bob@a.test", 4), ["delivered"])
        self.assertIsNone(self.entry("bob@a.test", 4))
        self.assertEqual(self.bounce("bob@a.test", 5, 6), [])
        self.assertEqual(self.deliver("bob@a.test", 7), [])
        self.assertEqual(self.bounce("bob@a.test", 8, 9), [])
        self.assertEqual(self.bounce("bob@a.test", 10), ["added"])

    def test_an_entry_of_the_operator_stays_until_it_is_removed(self) -> None:
        self.file.add("bob@a.test", "he asked for it", 0.0)
        expected = Entry("bob@a.test", 0.0, None, 0, "he asked for it")
        self.assertEqual(self.deliver("bob@a.test", 1), [])
        self.assertEqual(self.bounce("bob@a.test", 2, 3, 4, 5), [])
        self.assertEqual(self.entry("bob@a.test", 5000), expected)
        self.assertTrue(self.file.remove("bob@a.test", 5000 * DAY))
        self.assertFalse(self.file.remove("bob@a.test", 5000 * DAY))
        self.assertIsNone(self.entry("bob@a.test", 5000))

    def test_pages_are_in_the_order_of_addresses(self) -> None:
        for name in "dbac":
            self.file.add(f"{name}@a.test", "", 0.0)
        self.bounce("aa@a.test", 1, 2, 3)
        pages = [self.file.page("", 3, 4 * DAY), self.file.page("b@a.test", 3, 4 * DAY)]
        names = [[each.address.partition("@")[0] for each in page] for page in pages]
        self.assertEqual(names, [["a", "aa", "b"], ["c", "d"]])
        self.assertEqual(len(self.file.page("", 9, 400 * DAY)), 4)

    def test_other_processes_see_it_and_it_survives_a_restart(self) -> None:
        other = SuppressionFile(self.path)
        self.bounce("bob@a.test", 1)
        other.note([Attempted("bob@a.test", 2 * DAY, REPLY)], TERMS)
        self.assertEqual(self.bounce("bob@a.test", 3), ["added"])
        self.assertIsNotNone(SuppressionFile(self.path).find(["bob@a.test"], 4 * DAY)[0])
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_deliveries_to_good_addresses_write_nothing(self) -> None:
        self.bounce("bob@a.test", 1)
        before = os.stat(self.path).st_mtime_ns
        self.deliver("ann@a.test", 1)
        self.assertEqual(os.stat(self.path).st_mtime_ns, before)


class Bounds(ListTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.file = SuppressionFile(self.path, most_addresses=50, most_bounces=60)

    def test_a_flood_of_bounces_is_bounded_and_the_oldest_go(self) -> None:
        once = Terms(bounces=1, within=30 * DAY, keep=90 * DAY)
        self.file.add("kept@a.test", "", 0.0)
        for number in range(150):
            self.bounce(f"{number}@a.test", 1 + number / 1000, terms=once)
        self.assertLessEqual(self.count("entry"), 51)
        self.assertLessEqual(self.count("bounce"), 62)
        self.assertIsNone(self.entry("0@a.test", 2))
        self.assertIsNotNone(self.entry("149@a.test", 2))
        self.assertIsNotNone(self.entry("kept@a.test", 2))

    def test_what_has_expired_is_removed(self) -> None:
        self.bounce("bob@a.test", 1, 2, 3)
        self.bounce("eve@a.test", 200)
        self.assertEqual((self.count("entry"), self.count("bounce")), (0, 1))

    def test_a_long_reply_is_cut(self) -> None:
        self.file.note([Attempted("b@a.test", day * DAY, "x" * 9999) for day in (1, 2, 3)], TERMS)
        entry = self.entry("b@a.test", 3)
        self.assertEqual(len(entry.reply if entry else ""), 300)
