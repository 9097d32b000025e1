"""The promise holds in random worlds, and the simulation finds each bug that is planted.

More seeds: ``python -m tests.simulation --count 100000 --jobs 2``.
"""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.tidy import TidyTestCase

from .bugs import BUGS
from .plan import FAULTS, OPERATED, Plan, Step, plan_of
from .run import Run, run
from .shrink import shrunk

SEEDS = 300

CAUGHT: dict[str, tuple[int, int]] = {
    "acknowledged-early": (0, 1),
    "settled-early": (0, 3),
    "rename-swallowed": (6, 3),
    "directory-not-synced": (0, 2),
    "body-not-synced": (0, 5),
    "lease-lost": (6, 4),
    "notice-later": (0, 2),
    "refusal-retried": (18, 3),
    "outcome-dropped": (0, 2),
    "refused-kept": (5, 3),
    "dots-not-doubled": (0, 1),
}
"""For each planted bug a seed to begin with, and the number of seeds in which it is found."""


FOUND = (
    # A message whose commit had failed in doubt was refused, and not forgotten before the stop.
    Plan(
        seed=1545,
        agents=1,
        speed=(0.0, 0.0, 0.0),
        lifetime=1800.0,
        steps=(
            Step(2.074, "fail_commit", ("a.test", 0, True)),
            Step(2.075, "send", ("a.test", 1, "s1@a.test", ("team@a.test",), 354, "")),
            Step(2.196, "restart", ("a.test",)),
        ),
    ),
)
"""The smallest plans of faults that were found and mended."""


class Seeds(TidyTestCase):
    def tearDown(self) -> None:
        self.flushLoggedErrors()  # of the faults; the runs look for others

    def test_the_promise_is_kept(self) -> None:
        for seed in range(SEEDS):
            result = run(plan_of(seed))
            said = "\n".join(map(str, result.violations))
            self.assertEqual(
                said, "", f"seed {seed}; python -m tests.simulation shrink {seed}:\n{said}"
            )

    def test_the_promise_is_kept_where_it_was_broken_once(self) -> None:
        for plan in FOUND:
            self.assertEqual(run(plan).violations, [], str(plan))

    def test_the_runs_have_mail_and_faults(self) -> None:
        results = [run(plan_of(seed)) for seed in range(8)]
        for name in ("acknowledged", "attempts", "crashes"):
            self.assertGreater(sum(result.counts[name] for result in results), 8, name)

    def test_every_kind_of_fault_is_drawn_and_can_be_run(self) -> None:
        drawn = {step.what for seed in range(100) for step in plan_of(seed).steps}
        self.assertEqual(drawn, {*FAULTS, *OPERATED})
        for what in drawn:
            self.assertTrue(callable(getattr(Run, f"do_{what}")))


class PlantedBugs(SynchronousTestCase):
    def tearDown(self) -> None:
        self.flushLoggedErrors()

    def test_each_of_them_is_found(self) -> None:
        self.assertEqual(set(CAUGHT), set(BUGS))
        for name, (first, count) in CAUGHT.items():
            with self.subTest(name), BUGS[name]():
                found = any(run(plan_of(seed)).violations for seed in range(first, first + count))
                self.assertTrue(found, f"{name} was not found in {count} seeds from {first}")


class Replay(SynchronousTestCase):
    def tearDown(self) -> None:
        self.flushLoggedErrors()

    def test_a_seed_is_the_same_twice_in_one_process(self) -> None:
        for seed in (8, 13):
            first, second = run(plan_of(seed)), run(plan_of(seed))
            self.assertEqual(first.transcript, second.transcript)
            self.assertEqual(first.digest, second.digest)

    def test_a_seed_is_the_same_in_another_process(self) -> None:
        programs = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.simulation", "replay", "13"],
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                stdout=subprocess.PIPE,
                text=True,
            )
            for hash_seed in ("1", "2")
        ]
        outputs = [program.communicate(timeout=120)[0] for program in programs]
        self.assertEqual(outputs[0], outputs[1])
        self.assertIn(run(plan_of(13)).digest, outputs[0])


class Shrinking(SynchronousTestCase):
    def tearDown(self) -> None:
        self.flushLoggedErrors()

    def test_a_failing_plan_becomes_small(self) -> None:
        plan = plan_of(19)
        with BUGS["refusal-retried"]():
            kind = "tried again after a final answer"
            small = shrunk(plan, lambda candidate: kind in run(candidate).kinds, runs=80)
            self.assertIn(kind, run(small).kinds)
        self.assertLessEqual(len(small.steps), 3, str(small))
        self.assertLess(len(small.steps), len(plan.steps))


class Command(SynchronousTestCase):
    def test_several_processes_share_the_seeds(self) -> None:
        command = [sys.executable, "-m", "tests.simulation", "--count", "4", "--jobs", "2"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assertTrue(ended.stdout.startswith("4 seeds in "), ended.stdout)
