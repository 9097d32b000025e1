"""The shards of the queue, and the workers that they belong to."""

from __future__ import annotations

import os

from tests.tidy import TidyTestCase
from twisted_mta.agent.shard import shard_directory, shards_there, shares


class Shards(TidyTestCase):
    def setUp(self) -> None:
        self.state = self.mktemp()
        os.makedirs(self.state)

    def make(self, *names: str) -> None:
        for name in names:
            os.makedirs(os.path.join(self.state, name))

    def test_the_first_shard_is_the_state_directory_itself(self) -> None:
        self.assertEqual(shard_directory("/state", 0), "/state")
        self.assertEqual(shard_directory("/state", 12), "/state/shard-12")

    def test_only_folders_with_the_name_of_a_shard_are_shards(self) -> None:
        self.make("shard-10", "shard-2", "maildir", "body")
        self.make(
            "shard-0", "shard-02", "shard--1", "shard-1.old", "shard-", "shard-1\n", "Shard-3"
        )
        self.assertEqual(shards_there(self.state), [2, 10])

    def test_each_worker_has_its_own_shard_whether_or_not_it_exists(self) -> None:
        self.assertEqual(shares(self.state, 3), [(0,), (1,), (2,)])
        self.make("shard-1", "shard-2")
        self.assertEqual(shares(self.state, 3), [(0,), (1,), (2,)])

    def test_shards_of_former_workers_are_shared_among_the_present_ones(self) -> None:
        self.make(*(f"shard-{number}" for number in range(1, 8)))
        self.assertEqual(shares(self.state, 1), [(0, 1, 2, 3, 4, 5, 6, 7)])
        self.assertEqual(shares(self.state, 3), [(0, 3, 6), (1, 4, 7), (2, 5)])

    def test_each_shard_belongs_to_exactly_one_worker(self) -> None:
        self.make("shard-3", "shard-5", "shard-64", "shard-1000")
        for workers in range(1, 9):
            worked_on = [number for share in shares(self.state, workers) for number in share]
            self.assertEqual(sorted(worked_on), sorted({*range(workers), 3, 5, 64, 1000}))

    def test_a_state_directory_that_cannot_be_read_is_an_error(self) -> None:
        with self.assertRaises(OSError):
            shares(os.path.join(self.state, "nowhere"), 2)
