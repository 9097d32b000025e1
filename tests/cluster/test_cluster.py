"""Limits over several machines, with a real database: exact, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random  # noqa: TID251 - from a seed
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from tests.docs.statements import statement
from tests.tidy import TidyTestCase
from twisted_mta.auth.throttle import Throttle, ThrottleSettings
from twisted_mta.cluster.credits import Standing

from .members import Member, Members, connect

_T = TypeVar("_T")

HOP = ("destination", "mx.example")
RATE = ("rate", "mx.example", "60.0")
SUBMITTED = ("submitted", "messages", "0123")


def now(answer: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of a coroutine that does not wait."""
    results: list[_T] = []
    Deferred.fromCoroutine(answer).addCallback(results.append)
    [result] = results
    return result


class ClusterTestCase(TidyTestCase):
    kept_open = ("/data", "postgresql.log")

    def setUp(self) -> None:
        self.database = connect()
        self.addCleanup(self.database.close)
        tables = self.database.execute("SELECT to_regclass('twisted_mta.part')").fetchall()
        if tables != [(None,)]:
            self.database.execute("DELETE FROM part")
            self.database.execute("DELETE FROM failures")
            self.database.execute("DELETE FROM machine")
        self.all = Members()
        self.addCleanup(self.all.close)

    def let_lapse(self, name: str, seconds: float = 20) -> None:
        """Let a machine's last transaction be so long ago, by the database's clock."""
        self.database.execute(
            "UPDATE machine SET seen = seen - make_interval(secs => %s) WHERE id = %s",
            (seconds, name),
        )

    def taken(self, key: tuple[str, ...] = HOP) -> list[int]:
        return [each.taken.get(key, 0) for each in self.all.members]


class SharedCredits(ClusterTestCase):
    def test_one_machine_may_have_all(self) -> None:
        a, _ = self.all.join("a", "b")
        for _ in range(4):
            a.wait(HOP, 3)
        self.all.settle()
        self.assertEqual(self.taken(), [3, 0])

    def test_machines_that_wait_get_equal_parts(self) -> None:
        a, b, c = self.all.join("a", "b", "c")
        for _ in range(6):
            a.wait(HOP, 6)
        self.all.settle()
        self.assertEqual(self.taken(), [6, 0, 0])
        for _ in range(6):
            b.wait(HOP, 6)
            c.wait(HOP, 6)
        self.all.settle()
        for _ in range(6):
            a.wait(HOP, 6)
        for _ in range(6):
            a.give_back(HOP)
            self.all.settle()
        self.assertEqual(self.taken(), [2, 2, 2])

    def test_one_credit_goes_round(self) -> None:
        members = self.all.join("a", "b", "c")
        for each in members:
            for _ in range(5):
                each.wait(HOP, 1)
        had: list[str] = []
        for _ in range(15):
            self.all.pass_time(1)
            self.assertEqual(sum(self.taken()), 1)
            (holder,) = [each for each in members if each.taken.get(HOP)]
            had.append(holder.name)
            holder.give_back(HOP)
        self.assertEqual({name: had.count(name) for name in had}, {"a": 5, "b": 5, "c": 5})
        self.assertEqual(len(dict.fromkeys(had[:3])), 3)

    def test_spare_credits_are_kept_for_a_moment_and_no_longer(self) -> None:
        a, _ = self.all.join("a", "b")
        a.wait(HOP, 3)
        self.all.settle()
        a.give_back(HOP)
        before = self.database.execute("SELECT held FROM part").fetchall()
        self.assertEqual(before, [(1,)])
        self.all.pass_time(12)
        self.assertEqual(self.database.execute("SELECT held FROM part").fetchall(), [])
        self.assertEqual(a.cluster.credits.holdings(), {})

    def test_a_random_load_never_exceeds_the_limit(self) -> None:
        random = Random(5)
        members = self.all.join("a", "b", "c")
        for _ in range(300):
            each = random.choice(members)
            if each.taken.get(HOP) and random.random() < 0.6:
                each.give_back(HOP)
            else:
                each.wait(HOP, 4)
            if random.random() < 0.5:
                self.all.pass_time(0.25)
            self.assertLessEqual(sum(self.taken()), 4)
        for _ in range(600):
            self.all.settle()
            holder = next((each for each in members if each.taken.get(HOP)), None)
            if holder is None:
                break
            holder.give_back(HOP)
        self.all.pass_time(1)
        self.assertEqual(sum(self.taken()), 0)


class RequestsThatDoNotWait(ClusterTestCase):
    def test_the_limit_is_exact_over_machines(self) -> None:
        a, b = self.all.join("a", "b")
        answers = []
        for number in range(12):
            answers.append((a, b)[number % 2].take(SUBMITTED, 10))
            self.all.settle()
        self.all.pass_time(3)
        self.assertEqual([each for [each] in answers].count(True), 10)
        self.assertEqual(sum(self.taken(SUBMITTED)), 10)

    def test_credits_that_another_machine_does_not_use_are_fetched(self) -> None:
        a, b = self.all.join("a", "b")
        a.wait(SUBMITTED, 200)  # more than one come, for the next requests
        self.all.settle()
        for _ in range(199):
            [answer] = [b.take(SUBMITTED, 200)]
            self.all.settle()
        self.all.pass_time(2)
        self.assertEqual(answer, [True])
        late = b.take(SUBMITTED, 200)
        self.all.pass_time(2)
        self.assertEqual(late, [False])

    def test_a_refusal_comes_at_once_where_all_are_in_use(self) -> None:
        a, b = self.all.join("a", "b")
        for _ in range(2):
            a.take(SUBMITTED, 2)
        self.all.settle()
        refused = b.take(SUBMITTED, 2)
        self.all.settle()
        self.assertEqual(refused, [False])


class LifeAndDeath(ClusterTestCase):
    def test_the_credits_of_a_dead_machine_are_free_once_its_lease_has_ended(self) -> None:
        a, b = self.all.join("a", "b")
        for _ in range(3):
            a.wait(HOP, 3)
        self.all.settle()
        a.die()
        b.wait(HOP, 3)
        self.all.pass_time(4)
        self.assertEqual(b.taken, {})
        self.let_lapse("a")
        self.all.pass_time(4)
        self.assertEqual(b.taken, {HOP: 1})

    def test_what_a_dead_machine_has_sent_counts_until_the_period_is_over(self) -> None:
        a, b = self.all.join("a", "b")
        for _ in range(3):
            a.wait(RATE, 3)
        self.all.settle()
        a.die()
        b.wait(RATE, 3)
        self.let_lapse("a", 30)
        self.all.pass_time(4)
        self.assertEqual(b.taken, {})
        self.let_lapse("a", 40)
        self.all.pass_time(4)
        self.assertEqual(b.taken, {RATE: 1})

    def test_what_a_machine_has_sent_counts_after_its_restart(self) -> None:
        a, b = self.all.join("a", "b")
        for _ in range(3):
            a.wait(RATE, 3)
            a.wait(HOP, 3)
        self.all.settle()
        a.stop()
        self.all.members.remove(a)
        self.all.join("a")
        b.wait(RATE, 3)
        b.wait(HOP, 3)
        self.all.pass_time(4)
        self.assertEqual(b.taken, {HOP: 1})
        self.database.execute("UPDATE part SET until = until - interval '60 s'")
        self.all.pass_time(4)
        self.assertEqual(b.taken, {HOP: 1, RATE: 1})

    def test_without_the_database_each_machine_has_its_share(self) -> None:
        members = self.all.join("a", "b", "c")
        a = members[0]
        for _ in range(8):
            a.wait(HOP, 6)
        self.all.settle()
        self.assertEqual(self.taken(), [6, 0, 0])
        for each in members:
            each.database.away = True
        self.all.pass_time(13)
        self.assertIs(a.cluster.credits.standing, Standing.DOUBTFUL)
        for _ in range(6):
            a.give_back(HOP)
        self.all.pass_time(0.5)
        self.assertEqual(self.taken(), [2, 0, 0])
        for each in members[1:]:
            for _ in range(4):
                each.wait(HOP, 6)
        self.all.pass_time(4)
        self.assertIs(a.cluster.credits.standing, Standing.ALONE)
        self.assertEqual(self.taken(), [2, 2, 2])

    def test_a_share_is_one_at_least(self) -> None:
        members = self.all.join("a", "b", "c")
        for each in members:
            each.database.away = True
            each.wait(HOP, 2)
        self.all.pass_time(16)
        self.assertEqual(self.taken(), [1, 1, 1])

    def test_a_machine_that_was_cut_off_comes_back_with_what_it_uses(self) -> None:
        a, b = self.all.join("a", "b")
        for _ in range(3):
            a.wait(HOP, 3)
        self.all.settle()
        a.give_back(HOP)
        a.database.away = True
        b.wait(HOP, 3)
        b.wait(HOP, 3)
        self.let_lapse("a")
        self.all.pass_time(4)
        self.assertEqual(self.taken(), [2, 2])  # it may still have transactions under way
        self.let_lapse("a")
        a.database.away = False
        self.all.pass_time(4)
        self.assertEqual(
            self.database.execute("SELECT machine, held FROM part ORDER BY machine").fetchall(),
            [("a", 2), ("b", 2)],
        )
        a.wait(HOP, 3)
        self.all.pass_time(4)
        self.assertEqual(self.taken(), [2, 2])
        a.give_back(HOP)
        b.give_back(HOP)
        self.all.pass_time(4)
        self.assertEqual(sum(self.taken()), 3)
        self.flushLoggedErrors()

    def test_limits_without_settings_of_their_own_are_divided(self) -> None:
        a, b = self.all.join("a", "b")
        default = ("hop", "other.example")
        for each in (a, b):
            for _ in range(20):
                each.wait(default, 20)
        self.all.settle()
        self.assertEqual(self.taken(default), [10, 10])


class Guesses(ClusterTestCase):
    """Failed authentications over several machines."""

    def guesses(self, member: Member, account: str, count: int) -> list[bool]:
        """Try to log in with a wrong password; return whether each try was judged."""
        throttle = Throttle(ThrottleSettings(), limits=member.limits, clock=self.all.clock)
        tried = []
        for _ in range(count):
            allowed = now(throttle.allows(account, None))
            tried.append(allowed)
            if allowed:
                now(throttle.failed(account, None))
        return tried

    def test_those_at_other_machines_count(self) -> None:
        a, b, c = self.all.join("a", "b", "c")
        self.assertEqual(self.guesses(a, "ann", 12), [True] * 12)
        self.all.pass_time(4)
        self.assertEqual(self.guesses(b, "ann", 12), [True] * 8 + [False] * 4)
        self.all.pass_time(4)
        self.assertEqual(self.guesses(c, "ann", 1), [False])
        self.assertEqual(self.guesses(a, "ann", 1), [False])
        self.assertEqual(self.guesses(c, "bob", 1), [True])

    def test_the_account_is_free_again_once_the_period_is_over(self) -> None:
        a, b = self.all.join("a", "b")
        self.guesses(a, "ann", 20)
        self.all.pass_time(4)
        self.assertEqual(self.guesses(b, "ann", 1), [False])
        a.die()
        self.database.execute("UPDATE failures SET changed = changed - interval '60 s'")
        self.all.pass_time(62)
        self.assertEqual(self.guesses(b, "ann", 1), [True])

    def test_without_the_database_each_machine_counts_for_itself(self) -> None:
        a, b = self.all.join("a", "b")
        self.guesses(a, "ann", 5)
        self.all.pass_time(4)
        a.database.away = b.database.away = True
        self.guesses(a, "ann", 10)
        self.all.pass_time(10)
        self.assertEqual(self.guesses(b, "ann", 16), [True] * 15 + [False])
        a.database.away = b.database.away = False
        self.all.pass_time(6)
        self.assertEqual(self.guesses(b, "ann", 1), [False])
        self.assertEqual(self.guesses(a, "ann", 1), [False])


class Seen(ClusterTestCase):
    def test_each_machine_sees_all(self) -> None:
        a, b = self.all.join("a", "b")
        self.all.pass_time(8)
        for each in (a, b):
            seen = [(m.id, m.hostname, m.alive) for m in each.cluster.machines]
            self.assertEqual(seen, [("a", "a.example", True), ("b", "b.example", True)])
        b.die()
        self.let_lapse("b")
        self.all.pass_time(8)
        self.assertEqual([m.alive for m in a.cluster.machines], [True, False])
        self.assertEqual(a.cluster.credits.machines, 1)

    def test_one_that_does_not_come_back_is_forgotten_by_hand(self) -> None:
        a, b = self.all.join("a", "b")
        self.all.pass_time(8)
        b.die()
        self.let_lapse("b", 90)
        forget = statement("postgresql", "DELETE FROM twisted_mta.machine")
        for name in ("a", "b"):  # the first one is alive
            self.database.execute(forget.replace("2e7153cf", name).encode())
        self.all.pass_time(8)
        self.assertEqual([each.id for each in a.cluster.machines], ["a"])

    def test_a_machine_that_ends_in_order_is_gone(self) -> None:
        a, b = self.all.join("a", "b")
        b.stop()
        self.all.members.remove(b)
        self.all.pass_time(8)
        self.assertEqual([each.id for each in a.cluster.machines], ["a"])
