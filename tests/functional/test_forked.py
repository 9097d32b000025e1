"""A fork behaves as a process that was executed: for the script in it, and for its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from .forked import Forked, is_script
from .mail import ProgramTestCase

_SHOW = """
import json, os, sys
shown = sys.argv, os.getcwd(), os.environ["GREETING"], sys.stdin.read(), sys.path[0], __name__
print(json.dumps(shown), len(os.listdir("/proc/self/fd")))
print("complaint", file=sys.stderr)
sys.exit(7)
"""


class Forks(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        if sys.platform != "linux":
            self.skipTest("processes are forked on Linux alone")

    def start(self, script: str, *words: str) -> Forked:
        """Start a script with the input ``hello``; its output goes to ``out`` and ``err``."""
        path = self.home / "script"
        path.write_text(script, encoding="ascii")
        (self.home / "in").write_text("hello", encoding="ascii")
        streams = [(self.home / "in").open("rb")]
        streams += [(self.home / name).open("wb") for name in ("out", "err")]
        standard, output, error = (each.fileno() for each in streams)
        environment = {**os.environ, "GREETING": "Good morning"}
        process = Forked([str(path), *words], self.home, environment, (standard, output, error))
        for each in streams:
            each.close()
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def output(self, name: str = "out") -> str:
        return (self.home / name).read_text("ascii")

    def test_a_script_has_the_arguments_and_surroundings_of_its_request(self) -> None:
        process = self.start(_SHOW, "--a", "b c")
        self.assertEqual(process.wait(60), 7)
        shown, count = self.output().rsplit(" ", 1)
        script = str(self.home / "script")
        expected = [
            [script, "--a", "b c"],
            str(self.home),
            "Good morning",
            "hello",
            str(self.home),
            "__main__",
        ]
        self.assertEqual(json.loads(shown), expected)
        self.assertEqual(int(count), 4)  # the standard streams, and the folder that is listed
        self.assertEqual(self.output("err"), "complaint\n")

    def test_its_parent_can_wait_for_it_and_end_it_with_a_signal(self) -> None:
        process = self.start("import time; time.sleep(600)")
        self.assertRaises(subprocess.TimeoutExpired, process.wait, 0.01)
        self.assertIsNone(process.poll())
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), -signal.SIGTERM)
        self.assertEqual(process.poll(), -signal.SIGTERM)
        process.kill()  # there is no such process any more

    def test_an_exception_ends_it_with_a_traceback_and_status_1(self) -> None:
        process = self.start("raise OSError('no luck')")
        self.assertEqual(process.wait(60), 1)
        self.assertIn("OSError: no luck", self.output("err"))

    def test_programs_of_others_are_executed(self) -> None:
        folder = Path(sys.executable).parent
        self.assertTrue(is_script(folder / "twistd"))
        self.assertFalse(is_script("/opt/other/bin/twistd"))
        self.assertFalse(is_script(sys.executable))
