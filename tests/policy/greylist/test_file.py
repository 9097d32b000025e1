"""What greylisting remembers: bounded, shared by processes, and in spite of a clock that steps."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from tests.tidy import TidyTestCase
from twisted_mta.policy.greylist.file import WINDOW, Attempt, Decision, GreylistFile

HOUR, DAY = 3_600.0, 86_400.0


class Bounds(TidyTestCase):
    def setUp(self) -> None:
        state_dir = os.path.abspath(self.mktemp())
        os.makedirs(state_dir)
        self.path = os.path.join(state_dir, "greylist", "file.sqlite")
        self.file = GreylistFile(self.path, most_pairs=1_000, most_waiting=100)

    def attempt(self, name: str, *, network: str = "192.0.2.0/24", at: float = 0.0) -> Attempt:
        return Attempt(network, f"{network} {name}".encode(), 300.0, at)

    def decide(self, *attempts: Attempt) -> list[str]:
        return [each.why for each in self.file.decide(attempts)]

    def count(self) -> int:
        with closing(sqlite3.connect(self.path)) as database:
            number: int = database.execute("SELECT count(*) FROM pair").fetchone()[0]
            return number

    def test_a_flood_from_one_network_is_bounded_and_harms_no_other(self) -> None:
        self.decide(self.attempt("ann", network="198.51.100.0/24"))
        for number in range(20):
            self.decide(*(self.attempt(f"{number} {each}") for each in range(50)))
        self.assertEqual(self.count(), 101)
        again = self.attempt("ann", network="198.51.100.0/24", at=301.0)
        self.assertEqual(self.decide(again), ["again"])

    def test_a_flood_from_many_networks_leaves_what_has_passed(self) -> None:
        self.decide(self.attempt("ann"))
        self.assertEqual(self.decide(self.attempt("ann", at=400.0)), ["again"])
        for number in range(40):
            at = 401.0 + number
            self.decide(
                *(self.attempt("x", network=f"n{number}.{each}", at=at) for each in range(50))
            )
        self.assertLessEqual(self.count(), 1_060)
        self.assertEqual(self.decide(self.attempt("ann", at=500.0)), ["known"])

    def test_what_has_expired_is_removed(self) -> None:
        self.decide(*(self.attempt(f"{each}") for each in range(100)))
        self.assertEqual(self.count(), 100)
        self.decide(self.attempt("new", network="other", at=WINDOW + 1))
        self.assertEqual(self.count(), 1)

    def test_an_attempt_counts_for_two_days_and_a_pair_for_five_weeks(self) -> None:
        self.decide(self.attempt("ann"))
        at = 2 * DAY + 1
        self.assertEqual(self.decide(self.attempt("ann", at=at)), ["new"])
        self.assertEqual(self.decide(self.attempt("ann", at=at + 301)), ["again"])
        for _ in range(3):
            at += 35 * DAY
            self.assertEqual(self.decide(self.attempt("ann", at=at)), ["known"])
        self.assertEqual(self.decide(self.attempt("ann", at=at + 37 * DAY)), ["new"])

    def test_a_network_is_known_for_five_weeks_after_five_successes_an_hour_apart(self) -> None:
        at = 0.0
        for number in range(5):
            self.decide(self.attempt(f"{number}", at=at), self.attempt(f"x{number}", at=at))
            at += HOUR
            both = (self.attempt(f"{number}", at=at), self.attempt(f"x{number}", at=at))
            expected = ["again", "again"] if number < 4 else ["again", "network"]
            self.assertEqual(self.decide(*both), expected)
        for _ in range(3):
            at += 35 * DAY
            self.assertEqual(self.decide(self.attempt(f"new {at}", at=at)), ["network"])
        self.assertEqual(self.decide(self.attempt("new", at=at + 37 * DAY)), ["new"])

    def test_two_processes_share_what_they_know(self) -> None:
        other = GreylistFile(self.path)
        self.decide(self.attempt("ann"))
        (decision,) = other.decide([self.attempt("ann", at=300.0)])
        self.assertEqual(decision, Decision(0.0, "again"))
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_after_a_step_of_the_clock_a_pair_begins_anew_and_passes(self) -> None:
        self.decide(self.attempt("ann", at=1e9))
        self.assertEqual(self.decide(self.attempt("ann", at=5e8)), ["new"])
        self.assertEqual(self.decide(self.attempt("ann", at=5e8 + 300)), ["again"])
        self.assertEqual(self.decide(self.attempt("ann", at=1e8)), ["new"])
        self.assertEqual(self.decide(self.attempt("ann", at=1e8 + 301)), ["again"])
