"""The benchmark measures what it reports."""

import asyncio
import os
import subprocess
import sys
import time

import dns.message
import dns.rcode
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.queue.schedule.backoff import Backoff
from twisted_mta.queue.store.contract import Survey
from twisted_mta.system.real_world import wall_time
from twisted_mta.telemetry.metrics.table import (
    COMMIT_BATCHES,
    COMMIT_OPERATIONS,
    QUEUE_DEFERRED,
    QUEUE_MESSAGES,
)

from ..functional.machine import eventually, folder, need, need_proc
from ..functional.mta import MTA
from . import storm
from .client import content
from .contestant import Contestant, Field, Silence, metrics, total
from .latency import drive
from .load import Work, rates
from .processes import cpu_seconds, family, forget_peaks, memory, resident
from .queued import fill, opened
from .results import OURS, THEIRS
from .tls_load import send_all


class Processes(SynchronousTestCase):
    def test_cpu_time_includes_running_and_ended_children(self) -> None:
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

    def test_memory_includes_children(self) -> None:
        need_proc()
        child = subprocess.Popen(
            [sys.executable, "-c", "held = b'x' * (32 << 20)\nprint(flush=True)\ninput()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        child.stdout.readline()
        self.assertGreater(resident(child.pid), 32 << 20)
        self.assertGreater(memory(os.getpid(), "VmRSS")[child.pid], 32 << 20)
        self.assertGreater(resident(os.getpid()), resident(child.pid))

    def test_a_memory_peak_can_be_reset(self) -> None:
        need_proc()
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "held = b'x' * (32 << 20)\ndel held\nprint(flush=True)\ninput()",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(child.communicate)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        child.stdout.readline()
        self.assertGreater(memory(child.pid, "VmHWM")[child.pid], 32 << 20)
        forget_peaks(child.pid)
        self.assertLess(memory(child.pid, "VmHWM")[child.pid], 32 << 20)


class Commits(SynchronousTestCase):
    def test_commits_of_all_workers_are_added(self) -> None:
        page = (
            "# TYPE twisted_mta_commit_batches_total counter\n"
            'twisted_mta_commit_batches_total{process="1"} 10.0\n'
            'twisted_mta_commit_batches_total{process="2"} 5.0\n'
            "twisted_mta_commit_operations_total 90.0\n"
            "twisted_mta_commit_duration_seconds_sum 3.0\n"
        )
        self.assertEqual(total(page, COMMIT_BATCHES), 15.0)
        self.assertEqual(total(page, COMMIT_OPERATIONS), 90.0)


class Contest(SynchronousTestCase):
    def setUp(self) -> None:
        need("smtp-source", "smtp-sink")
        self.field = Field(self.enterContext(folder("benchmark")))

    def contestant(self, name: str, silent: bool = False) -> Contestant:
        return self.enterContext(self.field.contestant(name, silent=silent))

    def test_both_contestants_are_measured_with_the_same_messages(self) -> None:
        need("postfix")
        for name in (THEIRS, OURS):
            contestant = self.contestant(name)
            for work in (Work(400, sessions=4), Work(400, sessions=4, kept=False)):
                start = time.monotonic()
                figures = rates(contestant, work)
                taken = time.monotonic() - start
                self.assertGreaterEqual(figures["accepted/s"], figures["end to end/s"])
                self.assertGreater(figures["end to end/s"], work.messages / taken)
                self.assertGreater(figures["CPU µs/message"], 0)  # counted in steps of 10 ms
                self.assertEqual("operations/commit" in figures, name == OURS)

    def test_with_a_silent_next_hop_only_acceptance_is_measured(self) -> None:
        figures = rates(self.contestant(OURS, silent=True), Work(10, sessions=2))
        self.assertIn("accepted/s", figures)
        self.assertNotIn("end to end/s", figures)

    def test_a_message_to_many_next_hops_arrives_at_each(self) -> None:
        work = Work(2, sessions=2, hops=3)
        for name in (THEIRS, OURS):
            if name == THEIRS:
                need("postfix")
            contestant = self.enterContext(self.field.contestant(name, spread=3))
            figures = rates(contestant, work)
            self.assertGreater(figures["end to end/s"], 0)
            self.arrived(contestant, 6)

    def test_the_generator_of_tls_load_sends_all_messages(self) -> None:
        contestant = self.contestant(OURS)
        send_all(contestant.port, 7, 3, 1000)
        self.arrived(contestant, 7)

    def test_all_due_messages_are_sent_and_timed(self) -> None:
        contestant = self.contestant(OURS)
        load = asyncio.run(drive(contestant.port, 200.0, 0.2, 4, 1000))
        self.assertGreater(len(load.final), 10)
        for final, whole in zip(load.final, load.whole, strict=True):
            self.assertLessEqual(final, whole)
        self.arrived(contestant, len(load.final))

    def arrived(self, contestant: Contestant, expected: int) -> None:
        hop = contestant.hop
        assert not isinstance(hop, Silence)
        eventually(lambda: hop.count() >= expected, f"{expected} messages at the next hop")
        self.assertEqual(hop.count(), expected)


class LongQueue(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = self.enterContext(folder("queued"))
        fill(self.home / "mta-state", 1500)

    def test_an_mta_finds_the_filled_queue(self) -> None:
        with MTA(self.home) as mta:
            page = metrics(mta)
        self.assertEqual(total(page, QUEUE_MESSAGES), 1500)
        self.assertEqual(total(page, QUEUE_DEFERRED), 1500)

    def test_no_message_of_a_filled_queue_is_due_during_the_measurement(self) -> None:
        store = opened(self.home / "mta-state")
        self.addCleanup(store.close)
        now = wall_time()
        (found,) = store.apply([Survey(now, now + Backoff().maximum)])
        assert found is not None
        self.assertEqual(len(found.rest), 1500)
        self.assertGreater(min(due or 0 for due in found.rest.values()), now + 1000)


class Content(SynchronousTestCase):
    def test_a_content_has_the_given_size_and_one_final_dot(self) -> None:
        made = content(4096)
        self.assertLess(abs(len(made) - 4096), 300)
        self.assertTrue(made.endswith(b"\r\n.\r\n"))
        self.assertEqual(made.count(b"\r\n."), 1)


class Storms(SynchronousTestCase):
    def test_the_name_server_answers_according_to_its_kind(self) -> None:
        query = dns.message.make_query("d1.example.", "MX", use_edns=0)
        response = dns.message.from_wire(storm.answer(query.to_wire(), "refused"))
        self.assertTrue(query.is_response(response))
        self.assertIn("MX 10 mx.d1.example.", response.answer[0].to_text())
        response = dns.message.from_wire(storm.answer(query.to_wire(), "servfail"))
        self.assertEqual(response.rcode(), dns.rcode.SERVFAIL)

    def test_failed_attempts_are_counted_while_mail_is_accepted(self) -> None:
        need_proc()
        with folder("storm") as home:
            figures = storm.measure(home, "refused", 30, 20.0, 1.0, workers=1)
        self.assertGreater(figures["failed"], 0)
        self.assertGreater(figures["p50 ms"], 0)
