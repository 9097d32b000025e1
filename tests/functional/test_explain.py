"""``twisted-mta explain`` and ``trace`` with a real MTA, of one process and with two workers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .machine import LOOPBACK, eventually, free_port, need, run
from .mail import ProgramTestCase, message, submit
from .mta import MTA, TOOL


def _interruptible() -> None:
    """Let Control-C end this process, even if the tests run in the background of a script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def accepted(mta: MTA) -> list[str]:
    """Return the ids of all accepted messages."""
    lines = mta.output().splitlines()
    return [line.split(" accepted: ")[0].split()[-1] for line in lines if " accepted: " in line]


class Explain(ProgramTestCase):
    def mta(self, workers: int) -> MTA:
        self.nobody = free_port()
        route = f"dead.example=smtp://{LOOPBACK}:{self.nobody}"
        return MTA(self.home, "--workers", str(workers), "--route", route)

    def test_a_queued_message_and_an_address_are_explained(self) -> None:
        for workers in (1, 2):
            with self.mta(workers) as mta:
                for _ in range(4):  # so that each of two workers may have one
                    submit(mta.smtp, message(), "bob@dead.example")
                mta.wait_for(lambda mta=mta: " deferred: " in mta.output(), "the first attempt")
                mta.wait_for(lambda mta=mta: len(accepted(mta)) == 4, "all of them")
                ids = accepted(mta)
                for id in ids:
                    done = mta.tool("explain", id)
                    self.assertEqual((done.returncode, done.stderr), (0, ""))
                    self.assertIn("To <bob@dead.example>: ", done.stdout)
                    self.assertIn("is suspended: no connection could be made", done.stdout)
                    self.assertIn(f"[{LOOPBACK}]:{self.nobody}: TLS may (default)", done.stdout)
                found = json.loads(mta.tool("explain", "x@dead.example", "--json").stdout)
                (recipient,) = found["recipients"]
                self.assertEqual(len(recipient["way"]["standings"]), workers)
                refused = mta.tool("explain", "x@y.example", "--from-client", "192.0.2.1")
                self.assertIn("Refused at RCPT: 550 5.7.1 ", refused.stdout)
                self.assertIn("\nPolicies, if 192.0.2.1 greets as ", refused.stdout)
                self.assertEqual(mta.tool("explain", "1M81ARNJN5BHJ").returncode, 1)
                self.assertEqual(mta.terminate(), 0, mta.output())
            shutil.rmtree(mta.state)

    def test_without_a_running_mta_the_exit_status_is_3(self) -> None:
        with tempfile.TemporaryDirectory() as nowhere:
            for command in (["explain", "a@b.example"], ["trace"]):
                done = run(TOOL, *command, "--state-dir", nowhere)
                self.assertEqual(done.returncode, 3)


class Traces(ProgramTestCase):
    def trace(self, mta: MTA, *words: str) -> tuple[subprocess.Popen[str], Path]:
        """Start a trace; return when it has begun."""
        path = self.home / "trace.out"
        with path.open("w") as out:
            process = subprocess.Popen(
                [str(TOOL), "trace", *words, "--state-dir", str(mta.state)],
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=_interruptible,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        eventually(lambda: bool(path.read_text()), "the trace has begun")
        return process, path

    def test_a_session_of_swaks_is_shown_live_until_control_c(self) -> None:
        need("swaks")
        for workers in (1, 2):
            with MTA(self.home, "--workers", str(workers)) as mta:
                process, path = self.trace(mta, "--recipient", "bob@localhost")
                for recipient in ("carol@localhost", "bob@localhost"):
                    subprocess.run(
                        [
                            *("swaks", "--server", f"{LOOPBACK}:{mta.smtp}", "--tls"),
                            *("--from", "ann@sender.example", "--to", recipient),
                            *("--body", "very private", "--hide-all"),
                        ],
                        check=True,
                        timeout=60,
                    )
                eventually(lambda path=path: "C: QUIT" in path.read_text(), "its last line")
                text = path.read_text()
                for line in (
                    "* TLS: TLSv1.3 ",
                    "C: MAIL FROM:<ann@sender.example>",
                    "C: RCPT TO:<bob@localhost>",
                    " octets)",
                    "S: 250 2.0.0 Queued as ",
                ):
                    self.assertIn(line, text)
                self.assertNotIn("private", text)
                self.assertNotIn("carol", text)
                process.send_signal(signal.SIGINT)
                self.assertEqual(process.wait(30), 0)
                self.assertEqual(mta.terminate(), 0, mta.output())
            shutil.rmtree(mta.state)

    def test_a_trace_in_json_has_one_object_per_line(self) -> None:
        with MTA(self.home) as mta:
            process, path = self.trace(mta, "--json", "--in")
            submit(mta.smtp, message(), "bob@localhost")
            eventually(lambda: "QUIT" in path.read_text(), "its last line")
            begun, *events = map(json.loads, path.read_text().splitlines())
            self.assertEqual(begun, {"version": 1, "direction": "in"})
            event: dict[str, Any] = events[0]
            self.assertEqual(sorted(event), ["at", "direction", "peer", "session", "text", "who"])
            # A reader that disappears does not affect the MTA.
            process.kill()
            submit(mta.smtp, message(), "bob@localhost")
            self.assertEqual(mta.terminate(), 0, mta.output())
