"""Policies are kept over restarts, shared by processes, and fetched again in time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.reports.execution import Executor
from tests.tidy import TidyTestCase
from twisted_mta.system.real_world import system_random
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.tls.mta_sts import store
from twisted_mta.tls.mta_sts.cache import Found, PolicyCache
from twisted_mta.tls.mta_sts.fetcher import FetchError
from twisted_mta.tls.mta_sts.kept import Kept
from twisted_mta.tls.mta_sts.policy import Policy
from twisted_mta.tls.mta_sts.store import PolicyFile

DAY = 86_400.0
ROOT = Path(__file__).resolve().parents[3]
ENFORCE = Policy("enforce", 604_800, ("*.a.example",))
OTHER = Policy("enforce", 604_800, ("mx.b.example",))
RECORD = "_mta-sts.a.example"


class CacheTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(os.path.abspath(self.mktemp()), "mta-sts", "policies.sqlite")
        os.makedirs(os.path.dirname(os.path.dirname(self.path)))
        self.clock = Clock()
        self.resolver = FakeResolver(texts={RECORD: ["v=STSv1; id=1;"]})
        self.fetched: list[str] = []
        self.answer: Callable[[], Policy | Deferred[Policy]] = lambda: ENFORCE
        self.cache = self.process()

    def process(self, executor: Any = None) -> PolicyCache:
        """Return the cache of another process, or of the same one after a restart."""
        random = system_random()
        random.seed(1)
        return PolicyCache(
            PolicyFile(self.path),
            fetch=self.fetch,
            resolver=self.resolver,
            executor=executor or Executor(),
            clock=self.clock,
            wall_time=lambda: 1e9 + self.clock.seconds(),
            random=random,
        )

    def fetch(self, domain: str) -> Deferred[Policy]:
        self.fetched.append(domain)
        answer = self.answer()
        if isinstance(answer, Deferred):
            return answer
        result: Deferred[Policy] = Deferred()
        result.callback(answer)
        return result

    def record(self, *texts: str) -> None:
        self.resolver.texts[RECORD] = texts

    def break_fetches(self, reason: str = "no answer") -> None:
        self.answer = lambda: fail(FetchError(reason))

    def find(self, cache: PolicyCache | None = None, domain: str = "a.example") -> Found:
        return self.successResultOf((cache or self.cache).find(domain))

    def start(self) -> None:
        self.cache.start()
        self.addCleanup(self.cache.stop)

    def advance(self, seconds: float, step: float = 900.0) -> None:
        self.clock.pump([step] * int(seconds / step))


class Finding(CacheTestCase):
    def test_the_first_mail_fetches_the_policy_and_others_use_it(self) -> None:
        lines = logged_lines(self, "MTA-STS")
        for _ in range(3):
            found = self.find()
            self.assertEqual((found.policy, found.id, found.problem), (ENFORCE, "1", ""))
            self.assertEqual(found.since, 1e9)
        self.assertEqual(self.fetched, ["a.example"])
        self.assertEqual(
            lines,
            ["a.example has an MTA-STS policy: enforce, id 1, for 604800 s: *.a.example"],
        )

    def test_a_domain_without_a_record_costs_one_lookup(self) -> None:
        found = self.find(domain="b.example")
        self.assertIsNone(found.policy)
        self.assertIn("_mta-sts.b.example", found.problem)
        self.assertEqual(found.trouble, "")
        self.assertEqual(self.resolver.lookups, [("TXT", "_mta-sts.b.example")])
        self.assertEqual(self.fetched, [])
        self.assertFalse(os.path.exists(self.path))

    def test_other_text_at_the_name_is_no_record(self) -> None:
        self.record("v=spf1 -all")
        self.assertIn("has no record", self.find().problem)

    def test_a_record_that_cannot_be_read(self) -> None:
        self.record("v=STSv1; id=1;", "v=STSv1; id=2;")
        found = self.find()
        self.assertIn("found 2 records", found.problem)
        self.assertEqual(found.trouble, "sts-policy-invalid")
        self.assertEqual(self.fetched, [])

    def test_another_id_fetches_the_policy_again(self) -> None:
        self.find()
        self.clock.advance(3_600)
        self.record("v=STSv1; id=2;")
        self.answer = lambda: OTHER
        found = self.find()
        self.assertEqual((found.policy, found.id, found.since), (OTHER, "2", 1e9 + 3_600))

    def test_an_id_that_always_changes_causes_a_fetch_a_minute(self) -> None:
        for number in range(130):
            self.record(f"v=STSv1; id={number};")
            self.find()
            self.clock.advance(1)
        self.assertEqual(len(self.fetched), 3)

    def test_without_an_answer_of_the_domain_its_policy_holds_until_it_expires(self) -> None:
        self.find()
        self.break_fetches()
        for hide in (
            lambda: self.record(),
            lambda: self.record("v=STSv1; id=2;"),
            lambda: self.resolver.fail(RECORD),
        ):
            hide()
            self.clock.advance(2 * DAY)
            found = self.find()
            self.assertEqual((found.policy, found.id), (ENFORCE, "1"))
            self.assertTrue(found.problem)
        self.clock.advance(DAY + 1)
        self.assertIsNone(self.find().policy)

    def test_the_shortest_age_is_five_minutes(self) -> None:
        self.answer = lambda: Policy("enforce", 0, ("mx.a.example",))
        for _ in range(299):
            self.assertIsNotNone(self.find().policy)
            self.clock.advance(1)
        self.assertEqual(len(self.fetched), 1)
        self.clock.advance(1)
        self.assertIsNotNone(self.find().policy)
        self.assertEqual(len(self.fetched), 2)

    def test_many_mails_wait_for_one_fetch(self) -> None:
        answer: Deferred[Policy] = Deferred()
        self.answer = lambda: answer
        finding = [self.cache.find("a.example") for _ in range(5)]
        self.assertNoResult(finding[0])
        finding[1].cancel()
        self.failureResultOf(finding.pop(1))
        answer.callback(ENFORCE)
        for each in finding:
            self.assertEqual(self.successResultOf(each).policy, ENFORCE)
        self.assertEqual(len(self.fetched), 1)

    def test_a_stop_ends_fetches(self) -> None:
        canceled: list[object] = []
        self.answer = lambda: Deferred(canceled.append)
        finding = self.cache.find("a.example")
        self.cache.stop()
        self.assertEqual(len(canceled), 1)
        self.assertIsNone(self.successResultOf(finding).policy)

    def test_an_internal_error_is_logged_and_is_no_policy(self) -> None:
        self.answer = lambda: fail(ZeroDivisionError("x"))
        self.assertIsNone(self.find().policy)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Failing(CacheTestCase):
    def test_a_fetch_that_failed_is_tried_again_after_five_minutes_and_more(self) -> None:
        self.break_fetches()
        times = []
        for _ in range(4 * 3_600 // 10):
            before = len(self.fetched)
            found = self.find()
            self.assertEqual(found.problem, "no answer")
            self.assertEqual(found.trouble, "sts-policy-fetch-error")
            if len(self.fetched) > before:
                times.append(self.clock.seconds())
            self.clock.advance(10)
        self.assertEqual(times, [0, 300, 900, 2_100, 4_500, 8_100, 11_700])

    def test_another_id_is_tried_after_a_minute(self) -> None:
        self.break_fetches()
        self.find()
        self.record("v=STSv1; id=2;")
        self.answer = lambda: OTHER
        self.clock.advance(59)
        self.assertIsNone(self.find().policy)
        self.clock.advance(1)
        self.assertEqual(self.find().policy, OTHER)

    def test_the_pause_survives_a_restart(self) -> None:
        self.break_fetches()
        self.find()
        self.assertEqual(self.find(self.process()).problem, "no answer")
        self.assertEqual(len(self.fetched), 1)

    def test_a_disk_that_fails_is_logged_and_mail_goes_on(self) -> None:
        lines = logged_lines(self, "the policies of MTA-STS cannot be written")
        os.mkdir(os.path.dirname(self.path))
        os.mkdir(self.path)
        self.assertEqual(self.find().policy, ENFORCE)
        self.assertEqual(len(lines), 1)
        self.assertEqual(self.find().policy, ENFORCE)
        self.assertEqual(len(self.fetched), 1)


class Keeping(CacheTestCase):
    def test_a_restart_keeps_the_policy_though_its_domain_is_hidden(self) -> None:
        self.find()
        self.record()
        self.break_fetches()
        found = self.find(self.process())
        self.assertEqual((found.policy, found.id, found.since), (ENFORCE, "1", 1e9))
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_a_file_that_is_lost_is_no_end_of_a_policy(self) -> None:
        self.find()
        os.unlink(self.path)
        self.record()
        self.clock.advance(120)
        self.assertEqual(self.find().policy, ENFORCE)

    def test_two_processes_share_what_they_find(self) -> None:
        other = self.process()
        self.assertEqual(self.find().policy, ENFORCE)
        self.assertEqual(self.find(other).policy, ENFORCE)
        self.assertEqual(len(self.fetched), 1)
        self.clock.advance(60)
        self.record("v=STSv1; id=2;")
        self.answer = lambda: OTHER
        self.assertEqual(self.find(other).policy, OTHER)
        self.clock.advance(60)
        self.assertEqual(self.find().policy, OTHER)
        self.assertEqual(len(self.fetched), 2)

    def test_real_processes_write_beside_each_other(self) -> None:
        program = (
            "import sys\n"
            "from twisted_mta.tls.mta_sts.kept import Kept\n"
            "from twisted_mta.tls.mta_sts.policy import Policy\n"
            "from twisted_mta.tls.mta_sts.store import PolicyFile\n"
            "file = PolicyFile(sys.argv[1])\n"
            "policy = Policy('enforce', 604800, ('mx.a.example',))\n"
            "for number in range(50):\n"
            "    kept = Kept(domain=f'{number}.example', used=float(number))\n"
            "    file.write(kept.renewed(policy, sys.argv[2], float(sys.argv[3]), 0.0))\n"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, self.path, f"id{n}", str(n)],
                cwd=ROOT,
            )
            for n in (1, 2, 3)
        ]
        self.assertEqual([process.wait(60) for process in processes], [0, 0, 0])
        kept = PolicyFile(self.path).all()
        self.assertEqual(len(kept), 50)
        self.assertEqual({each.id for each in kept}, {"id3"})  # the one that was fetched last

    def test_the_earlier_of_two_results_does_not_replace_the_later(self) -> None:
        file = PolicyFile(self.path)
        earlier = Kept(domain="a.example", used=5.0).renewed(ENFORCE, "1", 10.0, 0.0)
        later = Kept(domain="a.example", used=1.0).renewed(OTHER, "2", 20.0, 0.0)
        file.write(later)
        merged = file.write(earlier)
        self.assertEqual((merged.policy, merged.id, merged.used), (OTHER, "2", 5.0))
        self.assertEqual(file.read("a.example"), merged)
        failed = file.write(earlier.failed("1", "no answer", "x", 30.0))
        self.assertEqual((failed.policy, failed.failures), (OTHER, 1))

    def test_there_is_room_for_so_many(self) -> None:
        file = PolicyFile(self.path, most=10, most_octets=1_000)
        for number in range(30):
            kept = Kept(domain=f"{number:02}.example", used=100.0 + number)
            file.write(kept.renewed(ENFORCE, "1", 1.0, 0.0))
        self.assertEqual(
            [each.domain for each in file.all()], [f"{number}.example" for number in range(20, 30)]
        )
        # Those without a policy go first.
        file.write(Kept(domain="x.example", used=1e9).failed("1", "no answer", "x", 2.0))
        self.assertEqual(len(file.all()), 10)
        self.assertIsNone(file.read("x.example"))
        large = Policy("enforce", 1, tuple(f"{number}.a.example" for number in range(43)))
        file.write(Kept(domain="large.example", used=1e9).renewed(large, "1", 3.0, 0.0))
        self.assertEqual(
            [each.domain for each in file.all()], ["28.example", "29.example", "large.example"]
        )

    def test_the_memory_has_a_limit(self) -> None:
        large = Policy("enforce", 604_800, tuple(f"{number}.a.example" for number in range(1_990)))
        self.answer = lambda: large
        for number in range(30):
            self.resolver.texts[f"_mta-sts.{number}.example"] = ["v=STSv1; id=1;"]
            self.assertEqual(self.find(domain=f"{number}.example").policy, large)
        self.assertLessEqual(len(self.cache._memory), 11)
        self.assertEqual(self.find(domain="0.example").policy, large)
        self.assertEqual(len(self.fetched), 30)


class Refreshing(CacheTestCase):
    def test_a_policy_is_fetched_again_every_day_without_mail(self) -> None:
        self.start()
        self.find()
        self.advance(10 * DAY, step=3_600)
        self.assertIn(len(self.fetched), range(10, 15))
        self.record()  # hidden from now on, and the policy holds a week more
        self.assertEqual(self.find().policy, ENFORCE)
        self.advance(5 * DAY)
        self.assertEqual(self.find().policy, ENFORCE)

    def test_a_policy_that_is_short_is_fetched_again_before_it_expires(self) -> None:
        self.answer = lambda: Policy("enforce", 3_600, ("mx.a.example",))
        self.start()
        self.find()
        self.advance(DAY / 4, step=300)
        self.break_fetches()
        self.assertIsNotNone(self.find().policy)

    def test_the_file_is_read_when_a_policy_is_due_and_once_an_hour(self) -> None:
        calls: list[object] = []

        def executor(function: Callable[..., Any], /, *arguments: Any) -> Deferred[Any]:
            calls.append(function.__name__)
            return Executor()(function, *arguments)

        self.cache = self.process(executor)
        self.start()
        self.advance(5 * DAY, step=60)
        self.assertLessEqual(calls.count("due"), 5 * 24)
        self.find()
        calls.clear()
        self.advance(5 * DAY, step=60)
        self.assertLessEqual(calls.count("due"), 5 * 25 + 5)
        self.assertIn(len(self.fetched), range(5, 9))

    def test_a_short_policy_that_is_found_after_a_quiet_time_is_fetched_again_in_time(self) -> None:
        self.answer = lambda: Policy("enforce", 300, ("mx.a.example",))
        self.start()
        self.advance(2_000, step=10)
        self.find()
        self.advance(240, step=10)
        self.assertEqual(len(self.fetched), 2)

    def test_so_is_one_that_is_found_while_the_next_round_is_planned(self) -> None:
        def executor(function: Callable[..., Any], /, *arguments: Any) -> Deferred[Any]:
            result = Executor()(function, *arguments)
            if function.__name__ == "next_refresh" and not self.fetched:
                self.find()
            return result

        self.answer = lambda: Policy("enforce", 300, ("mx.a.example",))
        self.cache = self.process(executor)
        self.start()
        self.advance(300, step=10)
        self.assertEqual(len(self.fetched), 2)

    def test_one_process_does_it_for_all(self) -> None:
        others = [self.process() for _ in range(3)]
        for each in (self.cache, *others):
            each.start()
            self.addCleanup(each.stop)
        self.find()
        self.advance(5 * DAY, step=3_600)
        self.assertIn(len(self.fetched), range(5, 9))

    def test_the_operator_is_told_that_a_policy_is_not_had(self) -> None:
        self.start()
        self.find()
        lines = logged_lines(self, "cannot be fetched again")
        self.break_fetches()
        self.advance(DAY)
        self.assertIn(
            "the MTA-STS policy of a.example cannot be fetched again, and the one of before is"
            " obeyed for ",
            lines[0],
        )
        self.assertTrue(lines[0].endswith(" s more: no answer"))
        self.assertLess(len(lines), 15)

    def test_nobody_needs_to_know_of_a_policy_of_mode_none(self) -> None:
        self.answer = lambda: Policy("none", 604_800)
        self.start()
        self.find()
        lines = logged_lines(self, "cannot be fetched again")
        self.break_fetches()
        self.advance(2 * DAY)
        self.assertEqual(lines, [])

    def test_a_domain_that_gets_mail_now_and_then_is_not_forgotten(self) -> None:
        self.patch(store, "_FORGOTTEN", 5 * DAY)
        self.start()
        for _ in range(5):
            self.assertEqual(self.find().policy, ENFORCE)
            self.advance(4 * DAY, step=7_200)
        self.assertGreaterEqual(len(self.fetched), 18)

    def test_a_domain_that_gets_no_mail_any_more_is_forgotten(self) -> None:
        self.patch(store, "_FORGOTTEN", 5 * DAY)
        self.start()
        self.find()
        self.advance(20 * DAY, step=7_200)
        self.assertEqual(PolicyFile(self.path).all(), [])
        count = len(self.fetched)
        self.assertLess(count, 10)
        self.advance(DAY)
        self.assertEqual(len(self.fetched), count)
