"""The benchmark counts what it says it counts."""

import os
import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from ..functional.programs import folder, need, need_proc
from .contest import OURS, THEIRS, Measurement, Work, alternate, contestants, summaries
from .processes import cpu_seconds, family


class Processes(SynchronousTestCase):
    def test_the_time_of_children_counts_while_they_live_and_when_they_have_ended(self) -> None:
        need_proc()
        busy = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
        before = cpu_seconds(os.getpid())
        child = subprocess.Popen(
            [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        child.stdout.readline()
        self.assertIn(child.pid, family(os.getpid()))
        self.assertGreater(cpu_seconds(os.getpid()) - before, 0.15)
        child.communicate(b"\n")
        self.assertNotIn(child.pid, family(os.getpid()))
        self.assertGreater(cpu_seconds(os.getpid()) - before, 0.15)


class Contest(SynchronousTestCase):
    def test_ratios_compare_rounds_not_medians(self) -> None:
        seconds = {(OURS, 1): 1.0, (OURS, 2): 4.0, (THEIRS, 1): 2.0, (THEIRS, 2): 2.0}
        measured = [
            Measurement(name, "kept", number, 100, taken, 2 * taken, taken)
            for (name, number), taken in seconds.items()
        ]
        accepted, arrived, cpu = summaries(measured)
        self.assertEqual(accepted.medians, {OURS: 62.5, THEIRS: 50.0})
        self.assertEqual(accepted.ratios, [2.0, 0.5])
        self.assertEqual(accepted.ratio, 1.25)
        self.assertEqual(arrived.medians, {OURS: 31.25, THEIRS: 25.0})
        self.assertEqual(cpu.medians, {OURS: 25.0, THEIRS: 20.0})

    def test_both_contestants_do_the_same_work(self) -> None:
        need(self, "postfix", "smtp-source", "smtp-sink")
        start = time.monotonic()
        with folder("benchmark") as home, contestants(home, (THEIRS, OURS), ()) as running:
            measured = alternate(running, Work(40, 4096, 4), ["kept", "single"], 1, lambda one: one)
        taken = time.monotonic() - start
        self.assertEqual([one.contestant for one in measured], [THEIRS, OURS] * 2)
        for one in measured:
            self.assertLess(one.accepted, taken)
            self.assertGreaterEqual(one.arrived, one.accepted)
