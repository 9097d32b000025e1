"""An application that never stops its agent ends all the same, and leaves no process behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.machine import eventually, need_proc


class Ending(SynchronousTestCase):
    def setUp(self) -> None:
        need_proc()

    def test_a_signal_ends_the_agent_with_the_reactor(self) -> None:
        self.ended(1, "signal", signal.SIGTERM)
        self.ended(2, "signal", signal.SIGINT)

    def test_so_do_stop_and_crash_of_the_reactor(self) -> None:
        self.ended(1, "stop")
        self.ended(1, "crash")
        self.ended(2, "crash")

    def test_so_does_the_end_of_the_program_before_the_reactor_runs(self) -> None:
        self.ended(2, "exit", status=3)

    def ended(
        self, workers: int, how: str, number: signal.Signals | None = None, *, status: int = 0
    ) -> None:
        """Run the application until it has ended."""
        state = Path(self.mktemp()).absolute()
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.applications.ending", str(state), str(workers), how],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(program.kill)
        assert program.stdout is not None
        with program.stdout as lines:
            if number is not None:
                self.assertEqual(lines.readline(), "submitted\n")
                program.send_signal(number)
            lines.read()
        self.assertEqual(program.wait(30), status)
        eventually(lambda: not _processes(state), "the end of all processes")


def _processes(state: Path) -> list[str]:
    """Return the processes that work in a state directory."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(each) for each in Path("/proc", process, "fd").iterdir()]
        except OSError:
            continue  # it has ended, or is another user's
        if any(each.startswith(f"{state}/") for each in links):
            found.append(process)
    return found
