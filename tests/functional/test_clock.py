"""Steps of the wall clock by an hour, back and ahead, while mail is handled."""

from __future__ import annotations

import itertools
import re
import socket
import sys
import threading
import time

from .clock import WallClock
from .machine import LOOPBACK, ROOT, eventually, free_port, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .program import Program
from .sinks import Sink

HOUR = 3600.0
QUICK = """
[queue]
retry_minimum = "1 s"
retry_maximum = "2 s"
"""
SOON = 10.0
"""Seconds: long enough on a loaded machine, and short compared with an hour."""


class ClockTestCase(ProgramTestCase):
    def setUp(self) -> None:
        need("cc")
        super().setUp()
        self.clock = WallClock(self.home)

    def send_while_it_is_set(self, port: int, *steps: float, count: int = 20) -> None:
        """Send messages one after the other, while the clock goes through the steps.

        After the last message the clock stays at the last step.
        """
        done = threading.Event()

        def set_clock() -> None:
            for step in itertools.cycle(steps):
                self.clock.set(step)
                if done.wait(0.03) and step == steps[-1]:
                    return

        setting = threading.Thread(target=set_clock)
        setting.start()
        try:
            for number in range(count):
                began = time.monotonic()
                submit(port, message(), "bob@localhost", starttls=bool(number % 2))
                self.assertLess(time.monotonic() - began, SOON)
        finally:
            done.set()
            setting.join()


class OnPoll(ClockTestCase):
    reactor = "poll"
    options: tuple[str, ...] = ()

    def mta(self, *options: str) -> MTA:
        mta = MTA(self.home, *self.options, *options, toml=QUICK, reactor=self.reactor)
        mta.environment = self.clock.environment
        return mta

    def test_mail_is_accepted_and_delivered_despite_steps_of_the_clock(self) -> None:
        with self.mta() as mta:
            self.send_while_it_is_set(mta.smtp, HOUR, 0.0, -HOUR)
            mta.wait_for_mail("localhost", "bob", 20)
            status = mta.tool("status", timeout=SOON)
            self.assertIn("ready", status.stdout)


class OnSelect(OnPoll):
    reactor = "select"


class OnAsyncio(OnPoll):
    reactor = "asyncio"


class OwnProcess(OnPoll):
    reactor = ""

    def test_deferred_mail_is_retried_on_time_after_a_step_back(self) -> None:
        port = free_port()
        with self.mta("--route", f"*=smtp://{LOOPBACK}:{port}") as mta:
            submit(mta.smtp, message(), "bob@next.example")
            mta.wait_for(lambda: " deferred: " in mta.output(), "a deferral")
            self.clock.set(-HOUR)
            with Sink(self.home, port=port) as sink:
                eventually(lambda: len(sink.received()) == 1, "the message at its next hop", 60.0)

    def test_a_slow_next_hop_does_not_time_out_after_a_step_ahead(self) -> None:
        with (
            Sink(self.home) as sink,
            self.mta("--route", f"*=smtp://{LOOPBACK}:{sink.port}") as mta,
        ):
            sink.kill()
            sink.start("--delay", "3")
            submit(mta.smtp, message(), "bob@next.example")
            eventually(lambda: sink.received(), "the content at the next hop")
            self.clock.set(HOUR)
            mta.wait_for(lambda: " delivered: " in mta.output(), "the delivery")
            self.assertNotIn(" deferred: ", mta.output())
            self.assertEqual(len(sink.received()), 1)

    def test_an_idle_client_does_not_time_out_after_a_step_ahead(self) -> None:
        with (
            self.mta() as mta,
            socket.create_connection((LOOPBACK, mta.smtp), timeout=SOON) as client,
        ):
            self.assertTrue(client.recv(512).startswith(b"220 "))
            self.clock.set(HOUR)
            submit(mta.smtp, message(), "bob@localhost")
            client.sendall(b"NOOP\r\n")
            self.assertTrue(client.recv(512).startswith(b"250 "))


class WithWorkers(OwnProcess):
    options = ("--workers", "2")


class InAnApplication(ClockTestCase):
    """Timers of the application stop for an hour; timers of the agent in it do not."""

    def test_timers_of_the_agent_are_independent_of_the_applications(self) -> None:
        with Sink(self.home) as sink, Program(self.home, "application.log") as application:
            application.environment = {**self.clock.environment, "PYTHONPATH": str(ROOT)}
            module = ("-m", "tests.applications.embedding")
            application.spawn((sys.executable, *module, self.home / "mta-state", str(sink.port)))
            ready = application.wait_for(
                lambda: re.search(r"^ready (\d+)$", application.output(), re.MULTILINE), "ready"
            )
            port = int(ready[1])
            self.send_while_it_is_set(port, 0.0, -HOUR)
            beats = application.output().count("beat")
            submit(port, message(), "bob@next.example")
            sink.wait_for_messages(1)
            new = self.home / "mta-state/maildir/localhost/bob/new"
            eventually(lambda: len(list(new.glob("*"))) == 20, "all messages in the Maildir")
            self.assertEqual(application.output().count("beat"), beats)
            with socket.create_connection((LOOPBACK, port), timeout=SOON) as client:
                self.assertTrue(client.recv(512).startswith(b"220 "))
                self.clock.set(HOUR)
                submit(port, message(), "bob@localhost")
                client.sendall(b"NOOP\r\n")
                self.assertTrue(client.recv(512).startswith(b"250 "))
