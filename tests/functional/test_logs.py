"""The log of a real process: text and JSON, in foreground and background, and reopening."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .machine import LOOPBACK, PATIENCE, eventually, free_port, listens, runs
from .mail import ProgramTestCase, message, submit
from .mta import MTA

JSON = '[log]\nformat = "json"\n'


def objects(text: str) -> list[Any]:
    """Return the objects of a log in JSON."""
    return [json.loads(line) for line in text.splitlines()]


class Foreground(ProgramTestCase):
    def test_lines_about_a_message_have_its_id(self) -> None:
        with MTA(self.home) as mta:
            submit(mta.smtp, message(), "bob@localhost")
            lines = mta.wait_for(lambda: re.findall(r".* delivered: .*", mta.output()), "delivery")
            self.assertEqual(mta.terminate(), 0)
            said = mta.output()
        id = re.search(r"\] (\w+) delivered: .*<bob@localhost>", lines[0])
        assert id is not None, lines
        self.assertEqual(len(re.findall(rf"\] {id[1]} accepted: from=", said)), 1)
        for line in said.splitlines():
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} \[[^]]+\] .")
        self.assertIn("starting up.", said.splitlines()[0])
        self.assertTrue(said.endswith("Server Shut Down.\n"), said)

    def test_each_line_of_json_is_an_object(self) -> None:
        with MTA(self.home, toml=JSON) as mta:
            submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for(lambda: '"status":"delivered"' in mta.output(), "delivery")
            self.assertEqual(mta.terminate(), 0)
            events = objects(mta.output())
        (delivered,) = (one for one in events if one.get("status") == "delivered")
        self.assertEqual(delivered["recipient"], "bob@localhost")
        self.assertTrue(any(one.get("id") == delivered["id"] for one in events[:-1]))
        self.assertLess(delivered["delay"], PATIENCE)
        self.assertEqual(events[-1]["message"], "Server Shut Down.")

    def test_lines_of_workers_have_their_number(self) -> None:
        with MTA(self.home, "--workers", "2", toml=JSON) as mta:
            submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for(lambda: '"status":"delivered"' in mta.output(), "delivery")
            self.assertEqual(mta.terminate(), 0)
            events = objects(mta.output())
        (delivered,) = (one for one in events if one.get("status") == "delivered")
        self.assertIn(delivered["worker"], (0, 1))
        (accepted,) = (one for one in events if "helo" in one)
        self.assertEqual(accepted["worker"], delivered["worker"])
        self.assertNotIn("worker", events[-1])


class Background(ProgramTestCase):
    """``twistd`` without ``-n``: only the pid file names its process."""

    def start(self, *words: str, toml: str = "") -> int:
        """Start a daemon that logs to ``log``, a relative path; return its port."""
        (self.home / "mta.toml").write_text(toml, encoding="utf-8")
        (self.home / "elsewhere").mkdir()
        self.addCleanup(self.end, signal.SIGKILL)
        subprocess.run(
            [
                str(Path(sys.executable).with_name("twistd")),
                *("--pidfile", "pid", "--rundir", "elsewhere", *words, "mta"),
                *("--config", str(self.home / "mta.toml"), "--hostname", "mta.example"),
                *("--state-dir", str(self.home / "state"), "--web", "off"),
                *("--smtp", f"tcp:0:interface={LOOPBACK}"),
            ],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=PATIENCE,
        )
        ready = eventually(
            lambda: re.search(rf"ready: smtp tcp {LOOPBACK}:(\d+)", self.log()), "readiness"
        )
        return int(ready[1])

    def pid(self) -> int:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.home / "pid").read_text("ascii"))
        return 0

    def log(self, name: str = "log") -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.home / name).read_text("utf-8")
        return ""

    def end(self, number: signal.Signals) -> None:
        if pid := self.pid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            eventually(lambda: not runs(pid), "the end")

    def test_after_a_rename_and_sigusr1_the_log_continues_in_a_new_file(self) -> None:
        port = self.start("--logfile", "log")
        (self.home / "log").rename(self.home / "log.1")
        submit(port, message(), "bob@localhost")
        eventually(lambda: " delivered: " in self.log("log.1"), "delivery")
        os.kill(self.pid(), signal.SIGUSR1)
        eventually(lambda: "opened again" in self.log(), "the new file")
        self.end(signal.SIGTERM)
        self.assertIn("starting up.", self.log("log.1"))
        self.assertTrue(self.log().endswith("Server Shut Down.\n"), self.log())
        self.assertEqual(os.listdir(self.home / "elsewhere"), [])

    def test_the_first_line_is_json_already(self) -> None:
        self.start("--logfile", "log", toml=JSON)
        self.end(signal.SIGTERM)
        events = objects(self.log())
        self.assertIn("starting up.", events[0]["message"])
        self.assertEqual(events[-1]["message"], "Server Shut Down.")


class Elsewhere(ProgramTestCase):
    def run_to_its_end(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("twistd")), "--pidfile=", *words, "mta"],
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def test_an_observer_of_the_operator_is_not_replaced(self) -> None:
        mta = MTA(self.home, toml=JSON)
        self.addCleanup(mta.kill)
        mta.smtp = free_port()
        program, *words = mta.command()
        # A publisher without observers writes nothing.
        mta.spawn([program, "--logger", "twisted.logger.LogPublisher", *words])
        mta.wait_for(lambda: listens(mta.smtp), "it listens")
        submit(mta.smtp, message(), "bob@localhost")
        self.assertEqual(mta.terminate(), 0)
        self.assertEqual(mta.output(), "")

    def test_a_log_that_cannot_be_opened_is_an_error_before_the_start(self) -> None:
        for words in (["-n"], []):
            ended = self.run_to_its_end(*words, "--logfile", "none/log")
            self.assertEqual(ended.returncode, 1, ended)
            self.assertEqual(
                ended.stderr,
                f"twisted-mta: log to {self.home}/none/log: No such file or directory\n",
            )
        self.assertEqual(os.listdir(self.home), [])
