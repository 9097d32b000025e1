"""Mail of the application goes to workers, with scripted processes."""

from __future__ import annotations

import io
from base64 import b64decode
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from tests.workers.scripted import ScriptedProcess
from tests.workers.test_workers import WorkersTestCase
from twisted_mta.admin.questions import SHOW
from twisted_mta.config.tables import QueueSettings
from twisted_mta.mail.events import Accepted, Delivered, MailEvent, Removed
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.server.application_mail import Receipt, SubmissionRefused
from twisted_mta.workers.process import READING

PLAIN = b"Subject: Hi\r\n\r\nHello.\r\n"
FIRST, SECOND = str(QueueId(1 << 6)), str(QueueId(1 << 6 | 1))  # of workers 0 and 1
NO = Reply(550, "5.1.1", "No")


def step(kind: type[MailEvent], id: str) -> dict[str, Any]:
    return kind(id, "", ("bob@localhost",), "maildir", Reply(250, "2.0.0"), 1.0).to_json()


class Submitting(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor.born = self.takes
        self.working()

    def takes(self, process: ScriptedProcess) -> None:
        """Let a process take mail, with an id of its own."""
        id = {"id": FIRST if process.arguments[-2] == "0" else SECOND}
        process.replies.update(submission_begin=id, submission_finish=id, queued_recipients={})

    def submit(self, message: Any = PLAIN, *recipients: str) -> Deferred[Receipt]:
        submission = self.parent.submissions.read(
            message, sender="", recipients=recipients or ["bob@localhost"]
        )
        submitted = Deferred.fromCoroutine(self.parent.submit(submission))
        self.reactor.settle()
        return submitted

    def taking(self) -> ScriptedProcess:
        """Return the process that was asked last."""
        return max(
            self.processes,
            key=lambda each: max(
                [0, *(a["number"] + 1 for name, a in each.heard if name == "submission_begin")]
            ),
        )

    def dying(self) -> tuple[Deferred[Receipt], ScriptedProcess, str]:
        """Submit to a process that has said what it tracks, and does not answer the commit."""
        never: Deferred[Any] = Deferred()
        for process in self.processes:
            process.replies["submission_finish"] = never
        submitted = self.submit()
        process = self.taking()
        id = process.replies["submission_begin"]["id"]
        process.pipe.send("track_mail", id=id, recipients={"bob@localhost": [0]})
        self.reactor.settle()
        self.assertNoResult(submitted)
        return submitted, process, id

    def successor(self, queued: Any) -> ScriptedProcess:
        """Start the successor of a process that has died."""

        def born(process: ScriptedProcess) -> None:
            self.takes(process)
            process.replies["queued_recipients"] = queued

        self.reactor.born = born
        self.advance(0.1)
        return self.processes[-1]


class Taking(Submitting):
    def test_a_message_is_begun_written_in_pieces_and_committed(self) -> None:
        content = PLAIN + b"x" * 70_000
        receipt = self.successResultOf(self.submit(content))
        process = self.taking()
        self.assertEqual(receipt.id, process.replies["submission_begin"]["id"])
        calls = [(name, a) for name, a in process.heard if name.startswith("submission")]
        self.assertEqual(
            [name for name, _ in calls],
            ["submission_begin", *["submission_write"] * 3, "submission_finish"],
        )
        written = b"".join(b64decode(a["octets"]) for _, a in calls if "octets" in a)
        self.assertEqual(written, content)

    def test_a_few_pieces_are_on_the_way_at_a_time(self) -> None:
        answers: list[Deferred[None]] = []

        def write(**arguments: Any) -> Deferred[None]:
            answers.append(Deferred())
            return answers[-1]

        for process in self.processes:
            process.pipe._calls = {**process.pipe._calls, "submission_write": write}
        submitted = self.submit(PLAIN + b"x" * 600_000)  # 19 pieces
        self.assertEqual(len(answers), 9)
        answers[0].callback(None)
        self.reactor.settle()
        self.assertEqual(len(answers), 10)
        for each in answers:  # there come more
            if not each.called:
                each.callback(None)
                self.reactor.settle()
        self.assertEqual(len(answers), 19)
        self.successResultOf(submitted)

    def test_workers_take_turns(self) -> None:
        ids = [self.successResultOf(self.submit()).id for _ in range(4)]
        self.assertEqual(sorted(ids), [FIRST, FIRST, SECOND, SECOND])
        self.assertNotEqual(ids[0], ids[1])

    def test_a_refusal_is_that_of_the_worker(self) -> None:
        recipients = {"bob@localhost": NO.to_json()}
        refused = {"refused": NO.to_json(), "recipients": recipients, "limit": False}
        for name in ("submission_begin", "submission_finish"):
            for process in self.processes:
                self.takes(process)
                process.replies[name] = refused
            error = self.failureResultOf(self.submit(), SubmissionRefused).value
            self.assertEqual((error.reply, error.recipients), (NO, {"bob@localhost": NO}))

    def test_a_content_that_cannot_be_read_is_forgotten_by_the_worker(self) -> None:
        submission = self.parent.submissions.read(
            io.StringIO("text"),  # type: ignore[arg-type]
            sender="",
            recipients=["bob@localhost"],
        )
        self.patch(self.parent._threads, "__class__", Inline)
        submitted = Deferred.fromCoroutine(self.parent.submit(submission))
        self.reactor.settle()
        self.failureResultOf(submitted, TypeError)
        self.reactor.settle()
        self.assertEqual(self.taking().names[-1], "submission_abort")

    def test_a_cancelled_submission_is_forgotten_by_the_worker(self) -> None:
        never: Deferred[None] = Deferred()
        for name in ("submission_begin", "submission_write"):
            for process in self.processes:
                self.takes(process)
                process.replies[name] = never
            submitted = self.submit()
            submitted.cancel()
            self.failureResultOf(submitted)
            self.reactor.settle()
            self.assertTrue(any(each.names[-1] == "submission_abort" for each in self.processes))

    def test_without_a_worker_it_is_to_be_tried_again(self) -> None:
        for process in self.alive:
            process.exit(signal=9)
        error = self.failureResultOf(self.submit(), SubmissionRefused).value
        self.assertEqual(error.reply.code, 451)


class Inline:
    """Runs calls at once."""

    def __call__(self, function: Any, *args: Any) -> Deferred[Any]:
        return succeed(function(*args))

    def stop(self) -> None:
        """Do nothing."""


class Dying(Submitting):
    def test_another_worker_takes_what_a_dying_one_has_not_begun(self) -> None:
        for process in self.processes:
            process.replies["submission_begin"] = Deferred()
        submitted = self.submit()
        dying = self.taking()
        for process in self.alive:
            self.takes(process)
        dying.exit(signal=9)
        self.reactor.settle()
        self.assertIn(self.successResultOf(submitted).id, (FIRST, SECOND))

    def test_a_message_that_is_not_complete_is_refused(self) -> None:
        for process in self.processes:
            process.replies["submission_write"] = Deferred()
        submitted = self.submit()
        self.taking().exit(signal=9)
        self.reactor.settle()
        error = self.failureResultOf(submitted, SubmissionRefused).value
        self.assertEqual(error.reply.code, 451)

    def test_a_message_that_the_successor_has_is_accepted(self) -> None:
        submitted, process, id = self.dying()
        process.exit(signal=9)
        self.reactor.settle()
        self.assertNoResult(submitted)
        successor = self.successor({id: [0]})
        self.assertEqual(successor.heard[0][1]["followed"], {id: [0]})
        self.assertEqual(self.successResultOf(submitted).id, id)
        (asked,) = (a for name, a in successor.heard if name == "queued_recipients")
        self.assertEqual(asked, {"ids": [id], "untold": [id]})
        outcome = self.parent.outcome(id)
        successor.pipe.send("mail_event", event=step(Delivered, id), numbers=[0])
        self.reactor.settle()
        self.assertIsInstance(self.successResultOf(outcome)["bob@localhost"], Delivered)

    def test_a_message_that_the_successor_does_not_have_was_not_stored(self) -> None:
        submitted, process, id = self.dying()
        process.exit(signal=9)
        self.successor({})
        self.failureResultOf(submitted, SubmissionRefused)
        self.failureResultOf(self.parent.outcome(id), LookupError)

    def test_a_message_of_which_a_step_was_told_is_accepted_at_once(self) -> None:
        submitted, process, id = self.dying()
        process.pipe.send("mail_event", event=step(Accepted, id), numbers=[0])
        self.reactor.settle()
        process.exit(signal=9)
        self.reactor.settle()
        self.assertEqual(self.successResultOf(submitted).id, id)

    def test_an_outcome_that_was_told_before_the_death_counts(self) -> None:
        submitted, process, id = self.dying()
        outcome = self.parent.outcome(id)
        process.pipe.send("mail_event", event=step(Removed, id), numbers=[0])
        self.reactor.settle()
        process.exit(signal=9)
        self.successor({})
        self.assertIsInstance(self.successResultOf(outcome)["bob@localhost"], Removed)
        self.successResultOf(submitted)

    def test_an_outcome_that_nobody_was_told_is_an_error(self) -> None:
        submitted, process, id = self.dying()
        process.pipe.send("mail_event", event=step(Accepted, id), numbers=[0])
        self.reactor.settle()
        outcome = self.parent.outcome(id)
        process.exit(signal=9)
        self.successor({})
        error = self.failureResultOf(outcome, LookupError).value
        self.assertIn("has died", str(error))
        self.successResultOf(submitted)

    def test_a_stop_ends_all_waits(self) -> None:
        submitted, process, id = self.dying()
        outcome = self.parent.outcome(id)
        process.exit(signal=9)
        self.reactor.settle()
        self.successResultOf(self.stop())
        for waiting in (submitted, outcome):
            self.failureResultOf(waiting, RuntimeError)


class SharedQueue(Submitting):
    """Of mail in a queue that workers share, each of them may report the next step."""

    def setUp(self) -> None:
        super().setUp()
        self.parent.config = evolve(
            self.parent.config, queue=QueueSettings(url="postgresql://db.example/mta")
        )

    def other(self, process: ScriptedProcess) -> ScriptedProcess:
        (other,) = (each for each in self.processes if each is not process)
        return other

    def test_a_step_of_another_worker_is_one_of_the_message(self) -> None:
        _, process, id = self.dying()
        outcome = self.parent.outcome(id)
        other = self.other(process)
        self.assertEqual(other.heard[-1], ("follow", {"messages": {id: [0]}}))
        self.assertNotIn("follow", process.names)
        other.pipe.send("mail_event", event=step(Delivered, id), numbers=[0])
        self.reactor.settle()
        self.assertEqual(list(self.successResultOf(outcome)), ["bob@localhost"])
        for each in (process, other):
            self.assertEqual(each.heard[-1], ("unfollow", {"id": id}))

    def test_what_another_machine_has_ended_is_an_error_within_seconds(self) -> None:
        self.parent._outcome_watch.start()  # as the start does with these settings
        _, process, id = self.dying()
        process.pipe.send("mail_event", event=step(Accepted, id), numbers=[0])
        self.reactor.settle()
        outcome = self.parent.outcome(id)
        for each in self.processes:
            each.replies["still_queued"] = {id: [0]}
        for _ in range(10):
            self.reactor.advance(1)
            self.reactor.settle()
        self.assertNoResult(outcome)
        for each in self.processes:
            each.replies["still_queued"] = {}
        for _ in range(5):
            self.reactor.advance(1)
            self.reactor.settle()
        error = self.failureResultOf(outcome, LookupError).value
        self.assertIn("another machine", str(error))
        for each in self.processes:
            self.assertIn(("unfollow", {"id": id}), each.heard)

    def test_a_worker_that_cannot_say_what_is_queued_may_have_a_step_to_tell(self) -> None:
        self.parent._outcome_watch.start()
        _, process, id = self.dying()
        process.pipe.send("mail_event", event=step(Accepted, id), numbers=[0])
        self.reactor.settle()
        outcome = self.parent.outcome(id)
        other = self.other(process)
        other.replies["still_queued"] = {}
        # It has lost the database in a commit, hangs, or has not yet looked.
        for reply in (None, Deferred(), OSError("no"), {id: [0]}):
            process.replies["still_queued"] = reply
            for _ in range(8):
                self.reactor.advance(1)
                self.reactor.settle()
            self.assertNoResult(outcome)
            if isinstance(reply, Deferred):
                self.reactor.advance(READING)
                self.reactor.settle()
        process.pipe.send("mail_event", event=step(Delivered, id), numbers=[0])
        self.reactor.settle()
        self.successResultOf(outcome)

    def test_a_successor_hears_of_all_messages_and_is_asked_for_those_it_took(self) -> None:
        _, process, id = self.dying()
        self.other(process).exit(signal=9)
        successor = self.successor({})
        (started,) = (arguments for name, arguments in successor.heard if name == "start")
        self.assertEqual(started["followed"], {id: [0]})
        self.assertNotIn("queued_recipients", successor.names)

    def test_questions_about_the_queue_are_for_one_worker(self) -> None:
        self.assertEqual(self.parent.shards(), (0,))
        first, second = self.processes
        first.exit(signal=9)
        self.reactor.settle()
        self.parent.ask_shard(0, SHOW, id=FIRST, content=False)
        self.reactor.settle()
        name, arguments = second.heard[-1]
        self.assertEqual((name, arguments["shard"]), ("queue", 1))


class Idle(Submitting):
    def idle(self) -> Deferred[None]:
        idle = Deferred.fromCoroutine(self.parent.when_idle())
        self.reactor.settle()
        return idle

    def test_all_workers_have_to_be_idle_at_the_same_time(self) -> None:
        busy: Deferred[None] = Deferred()
        first, second = self.processes
        first.replies["is_idle"] = second.replies["is_idle"] = True
        second.replies["when_idle"] = busy
        idle = self.idle()
        self.assertNoResult(idle)
        first.replies["is_idle"] = False  # mail has come meanwhile
        second.replies["when_idle"] = None
        first.replies["when_idle"] = again = Deferred[None]()
        busy.callback(None)
        self.reactor.settle()
        self.assertNoResult(idle)
        first.replies["is_idle"] = True
        first.replies["when_idle"] = None
        again.callback(None)
        self.reactor.settle()
        self.successResultOf(idle)

    def test_a_successor_is_waited_for(self) -> None:
        for process in self.processes:
            process.replies["is_idle"] = True
        self.processes[0].replies["when_idle"] = Deferred()
        idle = self.idle()
        self.processes[0].exit(signal=9)
        self.reactor.settle()
        self.assertNoResult(idle)
        self.reactor.born = lambda process: process.replies.update(is_idle=True)
        self.advance(0.1)
        self.successResultOf(idle)

    def test_it_ends_with_a_stop(self) -> None:
        self.processes[0].replies["when_idle"] = Deferred()
        idle = self.idle()
        self.successResultOf(self.stop())
        self.reactor.settle()
        self.successResultOf(idle)
