"""The workers of one parent, with scripted processes."""

from __future__ import annotations

import gc
import os
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from tests.workers.scripted import FakePorts, ScriptedProcess, ScriptedReactor
from twisted_mta import Config
from twisted_mta.admin.questions import PendingReport
from twisted_mta.admin.report import ProcessReport
from twisted_mta.config import Listener
from twisted_mta.mail.events import Bounced, MailEvent
from twisted_mta.mail.reply import Reply
from twisted_mta.system.shared_counts import SharedCounts
from twisted_mta.telemetry.metrics import Metrics, table
from twisted_mta.workers.workers import WorkerFailed, Workers

KEY = ["peer", "0", "192.0.2.1"]


class WorkersTestCase(TidyTestCase):
    workers = 2

    def setUp(self) -> None:
        self.reactor = ScriptedReactor()
        self.ports = FakePorts()
        self.lines: list[bytes] = []
        self.metrics = Metrics()
        self.config = Config(
            state_dir="/state",
            hostname="mta.example",
            workers=self.workers,
            drain_timeout=10.0,
            listeners=(Listener(endpoint="tcp:25"), Listener(endpoint="tcp:26")),
        )
        self.parent = Workers(
            self.config,
            reactor=self.reactor,
            ports=self.ports,  # type: ignore[arg-type]
            lines=self.lines.append,
            metrics=self.metrics,
            wall_time=lambda: 1e9 + self.reactor.seconds(),
            nonce=lambda: "nonce",
        )
        self.addCleanup(self.close_counts, self.parent)
        self.said = logged_lines(self)

    def close_counts(self, parent: Workers) -> None:
        """Close the counts of workers that still run; a stop closes them too."""
        if parent._counts is not None:
            parent._counts.close()

    @property
    def processes(self) -> list[ScriptedProcess]:
        return self.reactor.processes

    @property
    def alive(self) -> list[ScriptedProcess]:
        return [process for process in self.processes if not process.ended]

    def begin(self) -> Deferred[None]:
        started = self.parent.start([(number,) for number in range(self.workers)])
        self.reactor.settle()
        return started

    def working(self) -> None:
        """Bring them to where they take connections."""
        self.successResultOf(self.begin())
        self.parent.serve()
        self.reactor.settle()

    def stop(self) -> Deferred[None]:
        stopped = self.parent.stop()
        self.reactor.settle()
        return stopped

    def advance(self, seconds: float) -> None:
        self.reactor.advance(seconds)
        self.reactor.settle()


class Starting(WorkersTestCase):
    workers = 3

    def test_each_process_gets_settings_shards_and_descriptors(self) -> None:
        for name in ("LISTEN_FDS", "NOTIFY_SOCKET"):
            self.patch(os, "environ", {**os.environ, name: "1"})
        self.parent.start([(0, 3), (1,), (2,)])
        self.reactor.settle()
        first = self.processes[0]
        module = "twisted_mta.workers.main"
        self.assertEqual(first.arguments[1:], ["-P", "-m", module, "0", "text"])
        self.assertEqual(first.heard[0][1]["shards"], [0, 3])
        self.assertEqual(first.heard[0][1]["endpoints"], ["smtp", "smtp"])
        self.assertTrue(first.heard[0][1]["create"])
        self.assertEqual(first.settings, self.config)
        self.assertEqual(sorted(first.descriptors), [0, 1, 2, 3, 4, 5, 6])
        self.assertEqual(first.descriptors[4], self.parent.counts.descriptor)
        self.assertEqual((first.descriptors[5], first.descriptors[6]), (70, 71))
        self.assertNotIn("LISTEN_FDS", first.environment)
        self.assertNotIn("NOTIFY_SOCKET", first.environment)
        path = first.environment["PYTHONPATH"].split(os.pathsep)
        self.assertTrue(all(map(os.path.isabs, path)))

    def test_the_parent_leaves_no_descriptor_open(self) -> None:
        gc.collect()
        before = len(os.listdir("/dev/fd"))
        self.working()
        begun = len(os.listdir("/dev/fd"))
        self.processes[0].exit(signal=9)
        self.advance(0.1)
        self.assertEqual(len(os.listdir("/dev/fd")), begun)
        self.successResultOf(self.stop())
        self.assertEqual(len(os.listdir("/dev/fd")), before)

    def test_no_connection_is_left_to_a_dead_worker(self) -> None:
        self.working()
        first, second, _ = (
            SharedCounts(self.parent.counts.descriptor, number) for number in range(3)
        )
        second.serve()
        for _ in range(3):
            first.enter()
        self.assertTrue(first.ahead)
        self.processes[1].exit(signal=9)
        self.assertFalse(first.ahead)

    def test_the_start_ends_when_all_workers_have_opened_their_queues(self) -> None:
        opened: Deferred[None] = Deferred()
        self.reactor.born = lambda process: process.replies.update(
            start=opened if process.pid == 101 else None
        )
        started = self.begin()
        self.assertNoResult(started)
        opened.callback(None)
        self.reactor.settle()
        self.successResultOf(started)
        self.assertFalse(any("serve" in process.names for process in self.processes))
        self.parent.serve()
        self.reactor.settle()
        self.assertTrue(all(process.names[-1] == "serve" for process in self.processes))

    def test_a_worker_that_cannot_open_its_queue_ends_all(self) -> None:
        failing = OSError("no such disk")
        self.reactor.born = lambda process: process.replies.update(
            start=failing if process.pid == 101 else None, drain=None
        )
        started = self.begin()
        self.assertTrue(all(process.names[-1] == "drain" for process in self.processes))
        self.assertNoResult(started)  # while they hold the locks
        for process in self.processes:
            process.exit()
        error = self.failureResultOf(started, WorkerFailed).value
        self.assertEqual(str(error), "no such disk")
        self.assertIn("worker 1 cannot start: no such disk", self.said)
        self.advance(3600)
        self.assertEqual(len(self.processes), 3)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_worker_that_dies_during_the_start_has_a_successor(self) -> None:
        self.reactor.born = lambda process: process.replies.update(
            start=Deferred() if process.pid == 100 else None
        )
        started = self.begin()
        self.processes[0].exit(signal=9)
        self.assertNoResult(started)
        self.advance(0.1)
        self.successResultOf(started)
        self.assertEqual(self.processes[3].heard[0][1]["shards"], [0])

    def test_a_worker_that_always_dies_during_the_start_fails_it(self) -> None:
        never: Deferred[None] = Deferred()
        self.reactor.born = lambda process: process.replies.update(start=never)
        started = self.begin()
        for _ in range(5):
            worker = next(each for each in self.alive if each.arguments[-2] == "1")
            worker.exit(status=1)
            self.reactor.settle()
            self.advance(2)
        self.assertEqual(self.alive, [])
        error = self.failureResultOf(started, WorkerFailed).value
        self.assertIn("worker 1 has ended with status 1, as 4 did before it", str(error))

    def test_a_process_that_cannot_be_spawned_fails_the_start(self) -> None:
        self.reactor.refusal = OSError("too many processes")
        started = self.begin()
        error = self.failureResultOf(started, WorkerFailed).value
        self.assertEqual(str(error), "no process can be started: too many processes")
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class Logging(WorkersTestCase):
    workers = 1

    def log(self, lines: int, pause: float = 0.0) -> list[bool]:
        """Have a worker log, line by line; return whether each next one would be heard at once."""
        process = self.processes[0]
        heard = []
        for number in range(lines):
            self.reactor.advance(pause)
            process.protocol.childDataReceived(1, b"line %d\n" % number)
            heard.append(process.pipes[1].reading)
        return heard

    def test_the_log_of_a_worker_is_read_at_once(self) -> None:
        self.working()
        self.assertTrue(all(self.log(5)))
        self.assertTrue(all(self.log(100, pause=0.051)))
        self.assertEqual(len(self.lines), 105)

    def test_the_log_of_a_very_busy_worker_is_read_20_times_a_second(self) -> None:
        self.working()
        self.assertEqual(self.log(16, pause=0.001), [True] * 15 + [False])
        for _ in range(3):
            self.advance(0.051)
            self.assertEqual(self.log(1), [False])
        self.advance(0.102)
        self.assertEqual(self.log(1), [True])
        self.assertEqual(len(self.lines), 20)

    def test_a_log_whose_lines_come_in_groups_is_read_20_times_a_second(self) -> None:
        self.working()
        for _ in range(20):  # a commit ends, and its messages are logged
            self.log(8, pause=0.0002)
            self.advance(0.003)
        for _ in range(3):
            self.advance(0.051)
            self.assertEqual(self.log(1), [False])

    def test_a_log_with_more_than_one_read_is_read_on(self) -> None:
        self.working()
        self.log(15)
        process = self.processes[0]
        for _ in range(20):
            process.protocol.childDataReceived(1, b"x" * 8191 + b"\n")  # a full read
            self.assertTrue(process.pipes[1].reading)
        self.assertEqual(self.log(1), [False])

    def test_a_worker_may_die_while_its_log_is_not_read(self) -> None:
        self.working()
        self.log(16)
        del self.processes[0].pipes[1]
        self.processes[0].exit(signal=9)
        self.advance(0.1)
        self.assertEqual(len(self.processes), 2)


class Restarting(WorkersTestCase):
    def test_a_successor_takes_over_the_shards_of_a_dead_worker(self) -> None:
        self.working()
        self.processes[1].exit(signal=9)
        self.assertIn(
            "worker 1 was ended by SIGKILL; another one takes over its queue in 0.1 s", self.said
        )
        self.assertEqual(len(self.processes), 2)
        self.advance(0.1)
        successor = self.processes[2]
        self.assertEqual(successor.names, ["start", "serve"])
        self.assertEqual(successor.heard[0][1]["shards"], [1])
        self.assertFalse(successor.heard[0][1]["create"])  # it exists already
        self.assertIn("worker 1 works again", self.said)
        self.assertEqual(self.processes[0].names, ["start", "serve"])
        restarts = list(self.metrics.snapshot().series(table.WORKER_RESTARTS))
        self.assertEqual(restarts, [((), 1)])
        _, second = self.parent.reports()
        assert isinstance(second, PendingReport)
        self.assertEqual(second.otherwise.restarts, 1)

    def test_each_early_death_doubles_the_wait_up_to_a_minute(self) -> None:
        self.working()
        waits = []
        for _ in range(12):
            self.alive[-1].exit(status=1)
            wait = min(call.getTime() for call in self.restarts()) - self.reactor.seconds()
            waits.append(round(wait, 3))
            self.advance(wait)
        self.assertEqual(waits[:4], [0.1, 0.2, 0.4, 0.8])
        self.assertEqual(waits[-2:], [60.0, 60.0])
        self.advance(61)
        self.alive[-1].exit(status=1)
        self.advance(0.1)
        self.assertEqual(len(self.alive), 2)

    def restarts(self) -> list[Any]:
        return [call for call in self.reactor.getDelayedCalls() if "_again" in str(call.func)]

    def test_a_successor_that_cannot_be_spawned_is_tried_again(self) -> None:
        self.working()
        self.reactor.refusal = OSError("no memory")
        self.processes[0].exit(signal=9)
        self.advance(0.1)
        self.assertIn(
            "worker 0 cannot be started (no memory); another one takes over its queue in 0.2 s",
            self.said,
        )
        self.reactor.refusal = None
        self.advance(0.2)
        self.assertEqual(len(self.alive), 2)
        self.successResultOf(self.stop())

    def test_a_stop_does_not_wait_for_a_process_that_was_not_spawned(self) -> None:
        self.working()
        self.reactor.refusal = OSError("no memory")
        self.processes[0].exit(signal=9)
        self.advance(0.1)
        self.successResultOf(self.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_tls_news_of_one_worker_reach_the_others(self) -> None:
        self.working()
        teller, *others = self.processes
        teller.pipe.send("tls_news")
        self.reactor.settle()
        self.assertNotIn("tls_news", teller.names)
        self.assertEqual([each.names[-1] for each in others], ["tls_news"] * len(others))

    def test_steps_of_mail_of_all_workers_are_told_also_of_successors(self) -> None:
        heard: list[MailEvent] = []
        before = self.parent.subscribe(heard.append)
        self.working()
        self.parent.subscribe(heard.append)()  # ends at once, and the first goes on
        event = Bounced("1", "a@x", ("b@y", "c@y"), "smtp:y", Reply(550, "5.1.1", "No", "way"), 1.5)
        self.processes[0].exit(signal=9)
        self.advance(0.1)
        for process in self.alive:
            self.assertIn("watch", process.names)
            self.assertNotIn("unwatch", process.names)
            process.pipe.send("mail_event", numbers=[], event=event.to_json())
        self.reactor.settle()
        self.assertEqual(heard, [event] * len(self.alive))
        before()
        self.reactor.settle()
        for process in self.alive:
            self.assertEqual(process.names[-1], "unwatch")

    def test_the_end_by_any_signal_is_described(self) -> None:
        self.working()
        self.processes[0].exit(signal=35)
        self.assertIn("worker 0 was ended by signal 35; ", " ".join(self.said))
        self.advance(0.1)
        self.assertEqual(len(self.alive), 2)

    def test_a_process_that_closes_its_pipe_and_does_not_end_is_killed(self) -> None:
        self.working()
        self.processes[0].transport.loseConnection()
        self.reactor.settle()
        self.advance(9)
        self.assertFalse(self.processes[0].killed)
        self.advance(1)
        self.assertTrue(self.processes[0].killed)
        self.advance(0.1)
        self.assertEqual(len(self.alive), 2)

    def test_the_credits_of_a_dead_worker_are_free(self) -> None:
        self.working()
        first, second = self.processes
        for process in (first, second, second):
            process.pipe.send("limits", message=["ask", KEY, 2, 1, False])
        self.reactor.settle()
        self.assertEqual([self.granted(first), self.granted(second)], [1, 1])
        first.exit(signal=9)
        self.reactor.settle()
        self.assertEqual(self.granted(second), 2)

    def granted(self, process: ScriptedProcess) -> int:
        said = [arguments["message"] for name, arguments in process.heard if name == "limits"]
        return sum(count for verb, _, count, *_ in (m for m in said if m[0] == "grant"))

    def test_unread_messages_of_a_dead_process_do_not_count_for_its_successor(self) -> None:
        self.working()
        first = self.processes[0]
        first.pipe.send("limits", message=["ask", KEY, 2, 1, False])
        first.exit(signal=9)  # before the message was read
        self.reactor.settle()
        self.assertEqual(self.parent.ledger.held(tuple(KEY)), 0)
        self.advance(0.1)
        self.assertEqual(self.processes[2].names, ["start", "serve"])


class Hanging(WorkersTestCase):
    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.advance(1)

    def test_a_worker_that_hangs_is_killed_and_replaced(self) -> None:
        self.working()
        self.processes[1].hangs = True
        self.pass_time(30)
        self.assertFalse(self.processes[1].killed)
        self.pass_time(1)
        self.assertTrue(self.processes[1].killed)
        self.assertIn("worker 1 has not answered for 30 s, and is killed", self.said)
        self.pass_time(1)
        self.assertEqual(self.processes[2].names[:2], ["start", "serve"])
        self.pass_time(100)
        self.assertEqual(len(self.processes), 3)
        hangs = list(self.metrics.snapshot().series(table.WORKER_HANGS))
        self.assertEqual(hangs, [((), 1)])

    def test_a_worker_is_asked_for_a_sign_of_life_each_second_and_one_that_hangs_once(self) -> None:
        self.working()
        self.processes[1].hangs = True
        self.pass_time(20)
        self.assertEqual([process.pings for process in self.processes], [20, 1])

    def test_time_in_which_the_parent_did_not_run_does_not_count(self) -> None:
        self.working()
        stopped: list[Deferred[None]] = []
        for process in self.processes:  # all processes are stopped, the parent included
            stopped.append(Deferred())
            process.replies["ping"] = stopped[-1]
        self.pass_time(20)
        self.advance(36_000)
        self.pass_time(5)
        for process, answer in zip(self.processes, stopped, strict=True):
            process.replies["ping"] = None
            answer.callback(None)
        self.pass_time(100)
        self.assertEqual(len(self.processes), 2)

    def test_workers_are_watched_on_after_an_error(self) -> None:
        self.working()
        worker = self.parent._workers[0]
        working = worker.tick
        self.patch(worker, "tick", lambda: 1 / 0)
        self.reactor.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.patch(worker, "tick", working)
        self.processes[1].hangs = True
        for _ in range(40):
            self.reactor.advance(1)
            self.reactor.settle()
        self.assertTrue(self.processes[1].ended)

    def test_a_worker_that_sends_messages_does_not_hang(self) -> None:
        self.working()
        self.processes[0].hangs = True
        for _ in range(5):
            self.pass_time(25)
            self.processes[0].pipe.send("tls_news")
        self.assertFalse(self.processes[0].killed)

    def test_a_worker_that_starts_slowly_is_not_killed(self) -> None:
        never: Deferred[None] = Deferred()
        self.reactor.born = lambda process: process.replies.update(start=never)
        self.begin()
        self.pass_time(120)
        self.assertFalse(any(process.killed for process in self.processes))

    def test_a_worker_that_never_opens_its_queue_is_killed(self) -> None:
        never: Deferred[None] = Deferred()
        self.working()
        self.reactor.born = lambda process: process.replies.update(start=never)
        self.alive[-1].exit(status=1)
        self.pass_time(500)
        self.assertFalse(self.processes[2].killed)
        self.pass_time(110)
        self.assertTrue(self.processes[2].killed)

    def test_a_worker_that_ends_again_and_again_is_a_trouble(self) -> None:
        self.working()
        for _ in range(3):
            self.assertEqual(self.parent.troubles(), [])
            self.alive[-1].exit(status=1)
            self.pass_time(1)
        (trouble,) = self.parent.troubles()
        self.assertEqual(
            (trouble.kind, trouble.text),
            ("workers", "worker 1 has ended 3 times in a row; the log says how"),
        )
        self.pass_time(61)
        self.assertEqual(self.parent.troubles(), [])


class Stopping(WorkersTestCase):
    def drains(self) -> None:
        """Let them take their time for it."""
        self.reactor.born = lambda process: process.replies.update(drain=None, hurry=None)
        self.working()

    def test_a_stop_ends_when_all_processes_have_ended(self) -> None:
        self.drains()
        stopped = self.stop()
        self.assertEqual(self.ports.bound, [])  # no client is accepted and left waiting
        self.assertEqual([each.names[-1] for each in self.processes], ["drain", "drain"])
        self.processes[0].exit()
        self.assertNoResult(stopped)
        self.processes[1].exit()
        self.successResultOf(stopped)
        self.reactor.settle()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_every_stop_fires_at_the_end(self) -> None:
        self.drains()
        stops = [self.stop(), self.stop()]
        self.assertEqual([each.names.count("drain") for each in self.processes], [1, 1])
        for process in self.processes:
            process.exit()
        for stopped in (*stops, self.stop()):
            self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_stop_without_a_start_ends_at_once(self) -> None:
        self.successResultOf(self.stop())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_stop_starts_no_successor(self) -> None:
        self.drains()
        self.processes[0].exit(signal=9)
        stopped = self.stop()
        self.processes[1].exit(signal=11)
        self.successResultOf(stopped)
        self.assertIn("worker 1 was ended by SIGSEGV", self.said)
        self.advance(120)
        self.assertEqual(len(self.processes), 2)

    def test_a_stop_drains_a_worker_that_is_starting(self) -> None:
        opened: Deferred[None] = Deferred()
        self.reactor.born = lambda process: process.replies.update(start=opened)
        started = self.begin()
        self.successResultOf(self.stop())
        self.assertEqual([each.names for each in self.processes], [["start", "drain"]] * 2)
        self.assertNoResult(started)

    def test_a_worker_that_does_not_end_is_killed_after_all_timeouts(self) -> None:
        self.drains()
        stopped = self.stop()
        self.processes[0].exit()
        self.advance(79)
        self.assertNoResult(stopped)
        self.advance(1)
        self.successResultOf(stopped)
        self.assertTrue(self.processes[1].killed)
        self.assertIn("worker 1 does not end, and is killed", self.said)

    def test_a_worker_that_does_not_answer_a_drain_is_killed_earlier(self) -> None:
        self.working()
        self.processes[0].hangs = True
        stopped = self.stop()
        self.advance(9)
        self.assertNoResult(stopped)
        self.advance(1)
        self.successResultOf(stopped)
        self.assertTrue(self.processes[0].killed)
        self.assertIn("worker 0 does not hear that it is to end, and is killed", self.said)

    def test_a_worker_that_fails_to_drain_is_killed_at_once(self) -> None:
        self.working()
        self.processes[0].replies["drain"] = AttributeError("no port")
        self.successResultOf(self.stop())
        self.assertTrue(self.processes[0].killed)
        self.assertIn("worker 0 cannot end (no port), and is killed", self.said)

    def test_a_hurry_shortens_the_time_of_a_stop(self) -> None:
        self.drains()
        stopped = self.stop()
        self.parent.hurry()
        self.reactor.settle()
        self.assertEqual([each.names[-1] for each in self.processes], ["hurry", "hurry"])
        self.advance(10)
        self.successResultOf(stopped)

    def test_a_hurry_before_the_stop_ends_no_worker(self) -> None:
        self.drains()
        self.parent.hurry()
        self.reactor.settle()
        self.assertEqual([each.names[-1] for each in self.processes], ["serve", "serve"])
        self.stop()
        self.assertEqual([each.names[-1] for each in self.processes], ["hurry", "hurry"])
        self.advance(10)
        self.assertEqual(self.alive, [])


class Reloading(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.after = evolve(self.config, drain_timeout=20.0)

    def prepare(self) -> Deferred[Any]:
        prepared = Deferred.fromCoroutine(self.parent.prepare(self.after))
        self.reactor.settle()
        return prepared

    def use(self, prepared: Deferred[Any]) -> Deferred[list[str]]:
        used: Deferred[list[str]] = self.successResultOf(prepared)()
        self.reactor.settle()
        return used

    def refused(self, prepared: Deferred[Any]) -> str:
        return str(self.failureResultOf(prepared, WorkerFailed).value)

    def test_all_workers_prepare_settings_before_the_first_uses_them(self) -> None:
        self.reactor.born = lambda process: process.replies.update(use=["a.pem is new"])
        self.working()
        prepared = self.prepare()
        self.assertEqual([each.names[-1] for each in self.processes], ["prepare", "prepare"])
        used = self.use(prepared)
        self.assertEqual([each.names[-1] for each in self.processes], ["use", "use"])
        self.assertEqual(self.successResultOf(used), ["a.pem is new"])
        self.processes[0].exit(signal=9)
        self.advance(0.1)
        self.assertEqual(self.processes[2].settings, self.after)
        self.assertEqual(self.processes[2].names, ["start", "serve"])

    def test_workers_read_files_in_turn_and_learn_which_are_good(self) -> None:
        self.working()
        first, second = self.processes
        first.replies["prepare"] = read = Deferred()
        prepared = self.prepare()
        self.assertEqual([each.names[-1] for each in self.processes], ["prepare", "serve"])
        read.callback({"/etc/aliases": "12ab"})
        self.reactor.settle()
        self.assertEqual(second.names[-1], "prepare")
        self.assertEqual(second.heard[-1][1]["checked"], {"/etc/aliases": "12ab"})
        first.replies["use"] = used = Deferred()
        self.use(prepared)
        self.assertEqual([each.names[-1] for each in self.processes], ["use", "prepare"])
        used.callback([])
        self.reactor.settle()
        self.assertEqual(second.names[-1], "use")

    def test_all_forget_settings_that_one_worker_cannot_use(self) -> None:
        self.working()
        self.processes[1].replies["prepare"] = ValueError("a.pem is no certificate")
        self.assertEqual(self.refused(self.prepare()), "a.pem is no certificate")
        self.reactor.settle()
        self.assertEqual([each.names[-1] for each in self.processes], ["forget", "forget"])
        self.processes[0].exit(signal=9)
        self.advance(0.1)
        self.assertEqual(self.processes[2].settings, self.config)

    def test_all_forget_settings_while_preparing_which_one_worker_dies(self) -> None:
        self.working()
        self.processes[1].replies["prepare"] = Deferred()
        prepared = self.prepare()
        self.processes[1].exit(signal=9)
        self.reactor.settle()
        self.assertEqual(self.refused(prepared), "worker 1 has died meanwhile; try again")
        self.reactor.settle()
        self.assertEqual(self.processes[0].names[-1], "forget")

    def test_all_forget_settings_while_preparing_which_one_worker_hangs(self) -> None:
        self.working()
        self.processes[0].hangs = True
        prepared = self.prepare()
        self.advance(59)
        self.assertNoResult(prepared)
        self.advance(1)
        self.assertEqual(self.refused(prepared), "worker 0: no answer in 60 s")
        self.reactor.settle()
        self.assertEqual(self.processes[1].names[-1], "serve")  # its turn has not come
        self.assertEqual(len(self.alive), 2)

    def test_without_a_worker_no_settings_are_put_in_force(self) -> None:
        self.working()
        for process in self.processes:
            process.exit(signal=9)
        self.assertIn("no worker is there", self.refused(self.prepare()))
        self.assertEqual(self.parent.config, self.config)

    def test_the_successor_of_a_worker_that_dies_after_preparing_has_the_new_settings(self) -> None:
        self.working()
        prepared = self.prepare()
        self.processes[1].exit(signal=9)
        self.successResultOf(self.use(prepared))
        self.advance(0.1)
        self.assertEqual(self.processes[2].settings, self.after)

    def test_a_successor_that_began_with_the_old_settings_is_started_anew(self) -> None:
        self.working()
        prepared = self.prepare()
        self.processes[1].exit(signal=9)
        self.advance(0.1)
        self.assertEqual(self.processes[2].settings, self.config)
        self.successResultOf(self.use(prepared))
        self.assertEqual(self.processes[2].names, ["start", "serve", "drain"])
        self.advance(0.2)
        self.assertEqual(self.processes[3].settings, self.after)
        self.assertEqual(self.processes[3].names, ["start", "serve"])

    def test_a_successor_with_the_old_settings_that_is_still_starting_is_started_anew(self) -> None:
        self.working()
        opened: Deferred[None] = Deferred()
        self.reactor.born = lambda process: process.replies.update(
            start=opened if process.pid == 102 else None
        )
        self.processes[1].exit(signal=9)
        self.advance(0.1)
        self.successResultOf(self.use(self.prepare()))
        self.assertEqual(self.processes[2].names, ["start"])
        opened.callback(None)
        self.reactor.settle()
        self.assertEqual(self.processes[2].names[-1], "drain")
        self.advance(0.2)
        self.assertEqual(self.processes[3].settings, self.after)

    def test_a_worker_that_does_not_use_new_settings_is_killed(self) -> None:
        for reply in (ValueError("a mistake of ours"), Deferred()):
            self.setUp()
            self.working()
            self.processes[0].replies["use"] = reply
            used = self.use(self.prepare())
            self.advance(60)
            self.successResultOf(used)
            self.assertTrue(self.processes[0].killed)
            self.assertFalse(self.processes[1].killed)
            self.advance(0.1)
            self.assertEqual(self.processes[2].settings, self.after)


class Reporting(WorkersTestCase):
    def asked(self) -> list[Deferred[ProcessReport]]:
        reports = [each.report for each in self.parent.reports() if isinstance(each, PendingReport)]
        self.reactor.settle()
        return reports

    def test_a_worker_that_hangs_is_asked_for_one_report(self) -> None:
        self.working()
        hanging = self.processes[1]
        answer: Deferred[Any] = Deferred()
        hanging.replies["report"] = answer
        silent = []
        for _ in range(3):
            first, second = self.asked()
            self.assertEqual(self.successResultOf(first).pid, 100)
            self.assertNoResult(second)
            second.addErrback(lambda _: None)
            second.cancel()  # it has timed out
            silent.append(second)
        self.assertEqual(hanging.names.count("report"), 1)
        _, last = self.asked()
        hanging.replies["report"] = reply = self.processes[0].replies["report"]
        answer.callback(reply)
        self.reactor.settle()
        self.assertEqual(self.successResultOf(last).state, "ready")
        self.asked()
        self.assertEqual(hanging.names.count("report"), 2)

    def test_the_report_of_a_worker_that_dies_fails(self) -> None:
        self.working()
        self.processes[0].replies["report"] = Deferred()
        first, _ = self.asked()
        self.processes[0].exit(signal=9)
        self.reactor.settle()
        self.failureResultOf(first)

    def test_a_worker_without_a_process_is_reported_as_ended(self) -> None:
        self.working()
        self.processes[0].exit(signal=9)
        self.reactor.settle()
        gone, there = self.parent.reports()
        assert isinstance(gone, ProcessReport)
        self.assertEqual((gone.number, gone.state, gone.pid), (0, "ended", 0))
        self.assertEqual((gone.deliveries, gone.connections, gone.queue_open), (0, {}, False))
        self.assertIsInstance(there, PendingReport)

    def test_a_worker_that_has_closed_its_pipe_is_reported_as_ended(
        self,
    ) -> None:
        self.working()
        self.processes[0].transport.loseConnection()
        self.reactor.settle()
        gone, _ = self.parent.reports()
        assert isinstance(gone, ProcessReport)
        self.assertEqual((gone.state, gone.pid), ("ended", 100))

    def test_a_worker_that_starts_is_reported_as_starting(self) -> None:
        never: Deferred[None] = Deferred()
        self.reactor.born = lambda process: process.replies.update(start=never)
        self.begin()
        states = [(each.state, each.pid) for each in self.parent.reports()]  # type: ignore[union-attr]
        self.assertEqual(states, [("starting", 100), ("starting", 101)])
