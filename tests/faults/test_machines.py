"""Second copies of a queue that several machines share, and their causes."""

import os
from collections.abc import Sequence

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ..functional.machine import folder, need
from .machines import Diary, Fault, MachinesCampaign, Second, explain, read_diary
from .oracle import Copy

ID = "1M8QDQR0X5801"
BASE = 1_796_082_491.0  # 2026-11-30T23:48:11Z
USER = "u@relay.example"


class Explanations(SynchronousTestCase):
    def explained(self, faults: Sequence[Fault], again: float, log: Sequence[str] = ()) -> Second:
        """Return what is said of a copy by b, so many seconds after one by a."""
        copies = {
            "a": [Copy("1", USER, "0", BASE)],
            "b": [Copy("1", USER, "0", BASE + again)],
        }
        (second,) = explain(copies, {"1": ID}, faults, {"a": read_diary(log), "b": Diary()})
        return second

    def kill(self, after: float, victim: str = "a") -> Fault:
        return Fault("kill", victim, BASE + after)

    def test_a_kill_right_after_the_final_dot_explains_it(self) -> None:
        self.assertIn("a was killed 0.300 s after", self.explained([self.kill(0.3)], 20).cause)

    def test_the_death_of_another_machine_or_much_later_does_not(self) -> None:
        for fault in (self.kill(0.3, "c"), self.kill(5.0), self.kill(-2.0), self.kill(21.0)):
            self.assertEqual(self.explained([fault], 20).cause, "", fault)

    def test_an_outcome_that_could_not_be_written_for_long_is_lost_with_its_machine(self) -> None:
        log = [
            "2026-11-30T23:48:16.000+0000 [twisted_mta.queue.commit.GroupCommit#warn] the queue is"
            " closed, to be opened in 8 s"
        ]
        second = self.explained([self.kill(12.0)], 20, log)
        self.assertIn("a was killed 12.000 s after the final dot, ", second.cause)
        self.assertIn("of which it had the database", second.cause)

    def test_a_machine_that_is_cut_off_writes_none_until_it_is_killed(self) -> None:
        cut = Fault("cut", "a", BASE + 0.2, BASE + 9)
        self.assertIn("a was killed 5.000 s", self.explained([self.kill(5.0), cut], 20).cause)
        other = Fault("cut", "b", BASE + 0.2, BASE + 9)
        self.assertEqual(self.explained([self.kill(5.0), other], 20).cause, "")

    def test_the_loss_of_the_leases_explains_it(self) -> None:
        log = [
            "2026-11-30T23:48:12.000+0000 [twisted_mta.queue.commit.GroupCommit#warn] the queue is"
            " closed, to be opened in 30 s"
        ]
        self.assertIn("without the database", self.explained([], 31, log).cause)
        self.assertEqual(self.explained([], 10, log).cause, "")

    def test_it_says_whether_the_machine_had_the_reply(self) -> None:
        log = [
            "2026-11-30T23:48:11.200+0000 [twisted_mta.queue.settlement.Settlement#info]"
            f" {ID} delivered: from=<x@y> to=<{USER}> relay=z"
        ]
        fault = self.kill(0.3)
        self.assertIn("it had the reply", self.explained([fault], 20, log).cause)
        self.assertIn("it had not logged the reply", self.explained([fault], 20).cause)


class Machines(SynchronousTestCase):
    def test_deaths_and_a_partition_lose_nothing_and_each_second_copy_is_explained(self) -> None:
        need("ip")
        if os.geteuid() != 0:
            raise SkipTest("only root makes network namespaces")
        with folder("machines") as home:
            campaign = MachinesCampaign(home, seed=3, rate=40.0)
            verdict = campaign.run(500, faults=("kill", "cut", "database", "kill"), limit=25.0)
        self.assertTrue(verdict.good, "\n".join(map(str, [verdict, *campaign.seconds])))
        self.assertGreater(verdict.acked, 100, str(verdict))
