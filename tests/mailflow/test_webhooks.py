"""Webhooks are told of each step of mail, whatever fails on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from attrs import evolve

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from tests.webhooks.receiver import Receiver
from twisted_mta.admin.http import Request
from twisted_mta.config import Listener, QueueSettings, WebhookSettings
from twisted_mta.queue.store.contract import Accept, Operation, Result, Settle, StoreError
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.queue.store.webhook_events import CountEvents, EventsOperation
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.commits import Fate
from twisted_mta.testing.memory_mta import EPOCH, MemoryMTA
from twisted_mta.webhooks.status import troubles

PORT = 8080
URL = f"http://127.0.0.1:{PORT}/events"
SECRET = "whsec_" + "A" * 43 + "="
OTHER = "whsec_" + "B" * 42 + "A="
PLAIN = b"From: app@localhost\r\nSubject: Hi\r\n\r\nHello.\r\n"
DAY = 86_400.0


class Webhooks(TidyTestCase):
    def setUp(self) -> None:
        self.receiver = Receiver()
        self.secret_file = os.path.abspath(self.mktemp())
        self.secrets(SECRET)

    def secrets(self, *secrets: str) -> None:
        with open(self.secret_file, "w", encoding="utf-8") as file:
            file.write("# for the app\n\n" + "".join(f"{each}\n" for each in secrets))
        os.chmod(self.secret_file, 0o600)

    def aliases(self, text: str) -> str:
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
        return path

    def hook(self, url: str = URL, **settings: Any) -> WebhookSettings:
        return WebhookSettings(url=url, secret_file=self.secret_file, **settings)

    def mta(self, *hooks: WebhookSettings, **settings: Any) -> MemoryMTA:
        mta = self.enterContext(MemoryMTA(webhooks=hooks or (self.hook(),), **settings))
        self.listen(mta, self.receiver)
        return mta

    def listen(self, mta: MemoryMTA, receiver: Receiver, port: int = PORT) -> None:
        listening = mta.reactor.listenTCP(port, receiver, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)

    def submit(self, mta: MemoryMTA, *recipients: str) -> str:
        submitted: list[Any] = []
        mta.mta.submit(PLAIN, sender="app@localhost", recipients=recipients).addBoth(
            submitted.append
        )
        mta.reactor.settle()
        return str(submitted[0].id)

    def pass_(self, mta: MemoryMTA, seconds: float) -> None:
        mta.advance(seconds=seconds)

    def troubles(self, mta: MemoryMTA) -> list[str]:
        agent = mta.mta._agent
        assert agent is not None
        return [each.text for each in troubles(agent.webhooks.statuses(), mta.wall_time())]

    def status(self, mta: MemoryMTA) -> Any:
        agent = mta.mta._agent
        assert agent is not None
        return agent.webhooks.statuses()[0]

    def ask(self, mta: MemoryMTA, path: str, method: str = "GET") -> Any:
        answers: list[Any] = []
        answer = mta.mta.admin.answer(Request(method=method, path=path))
        answer.addBoth(answers.append)
        self.pass_(mta, 1)
        return answers[0]

    # What is posted.

    def test_each_step_is_posted_once_and_signed(self) -> None:
        mta = self.mta()
        id = self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        accepted, delivered = self.receiver.requests
        self.assertEqual(accepted.start, "POST /events HTTP/1.1")
        self.assertEqual(accepted.fields["content-type"], "application/json")
        self.assertTrue(accepted.fields["user-agent"].startswith("twisted-mta/"))
        self.assertEqual(int(accepted.fields["webhook-timestamp"]), int(EPOCH))
        self.assertTrue(all(each.verified_by(SECRET) for each in self.receiver.requests))
        self.assertEqual(
            accepted.json,
            {
                "id": accepted.id,
                "type": "accepted",
                "timestamp": "2027-01-15T08:00:00.000+00:00",
                "data": {
                    "event": "accepted",
                    "id": id,
                    "at": EPOCH,
                    "sender": "app@localhost",
                    "recipients": ["bob@localhost"],
                    "more": 0,
                    "next_hop": None,
                    "reply": None,
                    "class": None,
                },
            },
        )
        self.assertEqual((delivered.json["type"], delivered.json["data"]["id"]), ("delivered", id))
        self.assertNotEqual(accepted.id, delivered.id)
        self.pass_(mta, DAY)
        self.assertEqual(len(self.receiver.requests), 2)
        self.assertEqual((self.status(mta).waiting, self.status(mta).octets), (0, 0))

    def test_only_the_wanted_events_are_posted_each_to_its_url(self) -> None:
        other = Receiver()
        url = f"http://127.0.0.1:{PORT + 1}/?app=2"
        mta = self.mta(
            self.hook(events=["bounced"]),
            self.hook(url, events=["accepted", "deferred", "expired"]),
            routes=(("far.example", "smtp://192.0.2.1"), ("*", "error:5.1.1 no")),
            aliases=self.aliases("crew: bob@localhost, ann@bad.example"),
            queue=QueueSettings(lifetime="1 h"),
        )
        self.listen(mta, other, PORT + 1)
        self.submit(mta, "bob@far.example")
        self.submit(mta, "crew@localhost")
        self.pass_(mta, 2 * 3600)
        self.assertEqual(self.receiver.types, ["bounced"])
        self.assertEqual(other.requests[0].start, "POST /?app=2 HTTP/1.1")
        bounces = 2  # notices are messages too
        self.assertEqual(other.types.count("accepted"), 2 + bounces)
        self.assertEqual(other.types[-2:].count("expired"), 1)
        self.assertIn("deferred", other.types)
        bounced = self.receiver.requests[0].json["data"]
        self.assertEqual((bounced["reply"], bounced["class"]), ("550 5.1.1 no", "unknown-user"))

    def test_steps_of_the_operator_are_posted(self) -> None:
        mta = self.mta(routes=(("far.example", "smtp://192.0.2.1"),))
        id = self.submit(mta, "bob@far.example")
        for action in ("hold", "remove"):
            getattr(mta.mta.queue, action)(id)
            self.pass_(mta, 1)
        self.assertEqual(self.receiver.types[-2:], ["held", "removed"])

    def test_mail_of_lmtp_that_is_delivered_at_once_is_posted(self) -> None:
        endpoint = "tcp:24:interface=127.0.0.1"
        listener = Listener(kind="lmtp", endpoint=endpoint, lmtp_delivery="direct")
        mta = self.mta(listeners=(listener,))
        client = mta.connect(("127.0.0.1", 24), greet=False)
        client.say("LHLO client.example")
        client.mail(PLAIN, "bob@localhost")
        self.pass_(mta, 1)
        self.assertEqual(self.receiver.types, ["accepted", "delivered"])

    # Failures of the receiver.

    def test_an_event_is_posted_again_with_its_id_until_it_is_taken(self) -> None:
        mta = self.mta(self.hook(events=["delivered"]))
        self.receiver.answer = 500
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 3600)
        failed = list(self.receiver.requests)
        self.assertIn(len(failed), range(8, 20))  # 5 s, doubled each time, to 10 min
        self.assertEqual(len({each.id for each in failed}), 1)
        self.assertEqual(len({each.fields["webhook-timestamp"] for each in failed}), len(failed))
        self.assertEqual(
            self.troubles(mta),
            [
                f"the webhook {URL} does not take events: it answers 500, expected 2xx:"
                " 1 event waits"
            ],
        )
        self.receiver.answer = 200
        self.pass_(mta, 720)
        self.assertEqual(len(self.receiver.requests), len(failed) + 1)
        self.assertEqual(self.troubles(mta), [])
        self.pass_(mta, DAY)
        self.assertEqual(len(self.receiver.requests), len(failed) + 1)

    def test_a_connection_serves_many_requests_and_is_closed_soon_after(self) -> None:
        mta = self.mta()
        for _ in range(50):
            self.submit(mta, "bob@localhost")
        self.pass_(mta, 2)
        self.assertEqual(len(self.receiver.requests), 100)
        self.assertLessEqual(self.receiver.connections, 8)
        self.pass_(mta, 5)
        self.assertEqual(self.receiver.open, [])

    def test_what_a_receiver_answers_is_bounded(self) -> None:
        for raw in (
            b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 100_000,
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
            b"\x00\xff" * 30_000,
            b"220 mail.example ESMTP\r\n\r\n",
        ):
            self.receiver = Receiver()
            with MemoryMTA(webhooks=(self.hook(events=["delivered"]),)) as mta:
                port = mta.reactor.listenTCP(PORT, self.receiver, interface="127.0.0.1")
                self.receiver.raw = raw
                self.submit(mta, "bob@localhost")
                self.pass_(mta, 20)
                self.assertNotEqual(self.status(mta).error, "", raw[:40])
                self.assertEqual(self.status(mta).posted, 0)
                port.stopListening()
            self.assertEqual(self.receiver.open, [])

    def test_a_long_body_behind_a_good_answer_changes_nothing(self) -> None:
        mta = self.mta(self.hook(events=["delivered"]))
        self.receiver.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 50_000
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        self.assertEqual((self.status(mta).posted, self.status(mta).waiting), (1, 0))
        self.pass_(mta, 10)
        self.assertEqual((len(self.receiver.requests), self.receiver.open), (1, []))

    def test_interim_responses_are_left_out_up_to_a_number_and_flood_no_log(self) -> None:
        for number, piece in ((10, 1), (10, 4096), (11, 7)):
            self.receiver = Receiver()
            with MemoryMTA(webhooks=(self.hook(events=["delivered"]),)) as mta:
                port = mta.reactor.listenTCP(PORT, self.receiver, interface="127.0.0.1")
                interim = b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * number
                self.receiver.raw = interim + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
                self.receiver.piece = piece
                lines = logged_lines(self, "100")
                for _ in range(3):
                    self.submit(mta, "bob@localhost")
                self.pass_(mta, 1)
                taken = number <= 10
                self.assertEqual(self.status(mta).posted, 3 if taken else 0)
                if not taken:
                    self.assertIn("more than 10 responses 1xx", self.status(mta).error)
                self.assertEqual(lines, [])
                port.stopListening()

    def test_what_is_no_http_is_named(self) -> None:
        mta = self.mta(self.hook(events=["delivered"]))
        self.receiver.raw = b"220 \x1b[2J\xff ESMTP\r\n\r\n"
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        self.assertIn("its answer is not HTTP/1.1: b'220 ", self.status(mta).error)
        self.assertTrue(self.status(mta).error.isprintable())

    def test_a_body_that_never_ends_keeps_no_connection(self) -> None:
        mta = self.mta(self.hook(events=["delivered"]))
        self.receiver.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx"
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        self.assertEqual((self.status(mta).posted, len(self.receiver.open)), (1, 1))
        self.pass_(mta, 10)
        self.assertEqual((len(self.receiver.requests), self.receiver.open), (1, []))

    def test_redirects_are_not_followed(self) -> None:
        elsewhere = Receiver()
        mta = self.mta()
        self.listen(mta, elsewhere, PORT + 1)
        self.receiver.answer = 307
        self.receiver.fields = [f"Location: http://127.0.0.1:{PORT + 1}/"]
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 60)
        self.assertEqual(elsewhere.connections, 0)
        self.assertEqual(self.status(mta).error, "it answers 307, expected 2xx")

    def test_retry_after_is_obeyed(self) -> None:
        mta = self.mta(self.hook(events=["delivered"]))
        self.receiver.answer, self.receiver.fields = 503, ["Retry-After: 1800"]
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1790)
        self.assertEqual(len(self.receiver.requests), 1)
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 5)
        self.assertEqual(len(self.receiver.requests), 1)
        self.receiver.answer, self.receiver.fields = 204, []
        self.pass_(mta, 10)
        self.assertEqual(len(self.receiver.requests), 3)

    def test_failures_get_a_line_a_minute_with_their_number(self) -> None:
        mta = self.mta(self.hook(events=["delivered"]))
        self.receiver.answer = 500
        lines = logged_lines(self, "has not taken the event ")
        more = logged_lines(self, "more attempts since the last line")
        # An application that refuses some events and takes others never gets pauses.
        for _ in range(300):
            self.receiver.answer = 500
            self.submit(mta, "bob@localhost")
            self.pass_(mta, 0.5)
            self.receiver.answer = 204
            self.submit(mta, "bob@localhost")
            self.pass_(mta, 0.5)
        self.assertGreater(self.status(mta).failed, 100)
        self.assertIn(len(lines), range(5, 8))
        self.assertEqual(len(more), len(lines) - 1)
        self.assertRegex(more[0], r"has not taken events: \d+ more attempts")

    def test_a_clock_that_is_set_back_or_ahead_keeps_no_event(self) -> None:
        for step in (-DAY, DAY, -40 * 365 * DAY):
            mta = self.enterContext(MemoryMTA(webhooks=(self.hook(events=["delivered"]),)))
            receiver = Receiver()
            port = mta.reactor.listenTCP(PORT, receiver, interface="127.0.0.1")
            receiver.answer = 500
            self.submit(mta, "bob@localhost")
            self.pass_(mta, 1)
            mta.clock_offset += step
            self.submit(mta, "bob@localhost")
            self.pass_(mta, 60)
            self.assertIn(len(receiver.requests), range(4, 12))  # neither none nor all the time
            receiver.answer = 204
            self.pass_(mta, 720)
            self.assertEqual(self.status(mta).waiting, 0, step)
            port.stopListening()

    def test_410_disables_it_until_a_reload_and_nothing_is_lost(self) -> None:
        mta = self.mta(self.hook(events=["delivered"]))
        self.receiver.answer = 410
        self.submit(mta, "bob@localhost")
        self.submit(mta, "bob@localhost")
        self.pass_(mta, DAY)
        before = len(self.receiver.requests)
        self.assertLessEqual(before, 2)
        [text] = self.troubles(mta)
        self.assertEqual(
            text, f"the webhook {URL} answers 410, and is disabled until a reload: 2 events wait"
        )
        self.receiver.answer = 204
        self.reload(mta)
        self.pass_(mta, 10)
        taken = self.receiver.requests[before:]
        self.assertEqual(len(taken), 2)
        self.assertEqual(self.troubles(mta), [])

    def test_while_it_fails_one_request_at_a_time_is_made(self) -> None:
        mta = self.mta(self.hook(events=["delivered"], timeout="10 s"))
        self.receiver.answer = 0  # none
        for _ in range(30):
            self.submit(mta, "bob@localhost")
        self.pass_(mta, 5)
        self.assertEqual(len(self.receiver.requests), 8)
        self.pass_(mta, 10)
        self.assertEqual(len(self.receiver.requests), 9)
        self.assertIn("no answer within 10 s", self.status(mta).error)
        # Mail goes on meanwhile.
        self.assertEqual([each.type for each in mta.events].count("delivered"), 30)
        self.receiver.answer = 204
        self.pass_(mta, 720)
        self.assertEqual(self.status(mta).waiting, 0)
        ids = [each.id for each in self.receiver.requests]
        self.assertEqual(len(set(ids)), 30)

    def test_a_dead_receiver_does_not_keep_another_one(self) -> None:
        dead = self.hook(f"http://127.0.0.1:{PORT + 1}/", events=["delivered"])
        mta = self.mta(dead, self.hook(events=["delivered"]))
        for _ in range(20):
            self.submit(mta, "bob@localhost")
        self.pass_(mta, 2)
        self.assertEqual(len(self.receiver.requests), 20)
        self.assertEqual([each.waiting for each in mta.mta._agent.webhooks.statuses()], [20, 0])  # type: ignore[union-attr]

    def test_events_that_are_too_old_are_dropped_and_counted(self) -> None:
        mta = self.mta(self.hook(events=["delivered"], lifetime="2 h"))
        self.receiver.answer = 500
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 2 * 3600 + 120)
        self.assertEqual((self.status(mta).waiting, self.status(mta).expired), (0, 1))
        self.assertIn(
            f"1 event for the webhook {URL} was dropped since the start: it has not taken it in"
            " time",
            self.troubles(mta),
        )
        snapshot = mta.mta.metrics.snapshot()
        self.assertEqual(snapshot.total(table.WEBHOOK_EVENTS, result="expired"), 1)

    def test_of_too_many_events_the_oldest_are_dropped(self) -> None:
        from twisted_mta.agent import webhooks

        self.patch(webhooks, "MOST_EVENTS", 10)
        mta = self.mta(self.hook(events=["accepted"]))
        self.receiver.answer = 500
        ids = [self.submit(mta, "bob@localhost") for _ in range(15)]
        self.pass_(mta, 1)
        self.assertEqual((self.status(mta).waiting, self.status(mta).dropped), (10, 5))
        self.receiver.answer = 204
        self.receiver.requests.clear()
        mta.restart()
        self.pass_(mta, 720)
        self.assertEqual({each.json["data"]["id"] for each in self.receiver.requests}, set(ids[5:]))

    # Crashes and restarts.

    def test_no_event_of_a_committed_outcome_is_lost_in_a_crash(self) -> None:
        mta = self.mta()
        mta.hop()
        self.receiver.answer = 0
        id = self.submit(mta, "bob@next.example")
        self.pass_(mta, 1)
        before = {each.json["type"]: each.id for each in self.receiver.requests}
        mta.crash()
        self.receiver.answer = 204
        self.receiver.requests.clear()
        mta.start()
        self.pass_(mta, 30)
        self.assertEqual(sorted(self.receiver.types), ["accepted", "delivered"])
        self.assertEqual({each.json["type"]: each.id for each in self.receiver.requests}, before)
        self.assertEqual({each.json["data"]["id"] for each in self.receiver.requests}, {id})

    def test_a_crash_at_any_transaction_loses_no_event_that_was_written(self) -> None:
        for fate in (Fate.CRASH_BEFORE, Fate.CRASH_AFTER, Fate.IN_DOUBT):
            for after in range(10):
                self.lose_none(fate, after)
        self.assertTrue(self.flushLoggedErrors(StoreError))  # those in doubt

    def lose_none(self, fate: Fate, after: int) -> None:
        """Let one transaction crash the machine, or fail in doubt; compare what was told."""
        written: set[str] = set()
        outcomes: set[str] = set()
        told: set[str] = set()

        def note(operations: Sequence[Operation], results: Sequence[Result]) -> None:
            for each in operations:
                if isinstance(each, Accept | Settle):
                    written.update(event.name for event in each.events)
                if isinstance(each, Accept):
                    outcomes.add(f"accepted {each.message.id}")
                elif isinstance(each, Settle) and each.done:
                    outcomes.add(f"delivered {each.message.id}")

        receiver = Receiver()
        with ExitStack() as stack:
            mta = stack.enter_context(MemoryMTA(webhooks=(self.hook(),)))
            port = mta.reactor.listenTCP(PORT, receiver, interface="127.0.0.1")
            stack.callback(port.stopListening)
            mta.commits.written = note
            mta.hop()
            mta.commits.next(fate, OSError(5, "no disk"), after=after)
            for recipient in ("bob@localhost", "bob@next.example", "ann@localhost"):
                submitted = mta.mta.submit(PLAIN, sender="app@localhost", recipients=[recipient])
                submitted.addErrback(lambda failure: None)  # refused, or while it is down
                self.pass_(mta, 0.3)
            if not mta.is_running:
                mta.start()
            self.pass_(mta, 3600)
            self.submit(mta, "bob@localhost")
            self.pass_(mta, 1)
            told = {f"{each.json['type']} {each.json['data']['id']}" for each in receiver.requests}
            self.assertEqual({each.id for each in receiver.requests}, written, (fate, after))
            self.assertEqual(outcomes - told, set(), (fate, after))
            self.assertTrue(outcomes)
            self.assertEqual(self.status(mta).waiting, 0)

    def test_a_stop_lets_requests_end_and_what_is_left_is_posted_after_the_start(self) -> None:
        mta = self.mta()
        self.receiver.answer = 0
        self.submit(mta, "bob@localhost")
        mta.restart()
        self.receiver.requests.clear()
        self.receiver.answer = 204
        self.pass_(mta, 30)
        self.assertEqual(sorted(self.receiver.types), ["accepted", "delivered"])

    # Settings.

    def reload(self, mta: MemoryMTA, *hooks: WebhookSettings) -> list[str]:
        changes = {"webhooks": hooks} if hooks else {}
        pending = mta.mta.reload(evolve(mta.mta.config, **changes))
        mta.reactor.settle()
        lines: list[str] = self.successResultOf(pending)
        return lines

    def refusal(self, mta: MemoryMTA) -> str:
        """Return why a reload is refused."""
        pending = mta.mta.reload(mta.mta.config)
        mta.reactor.settle()
        return self.failureResultOf(pending).getErrorMessage()

    def test_secrets_rotate_by_a_reload(self) -> None:
        mta = self.mta(self.hook(events=["accepted"]))
        self.secrets(OTHER, SECRET)
        lines = self.reload(mta)
        self.assertIn(f"{self.secret_file}: 2 secrets sign; before: 1", lines)
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        [request] = self.receiver.requests
        self.assertTrue(request.verified_by(SECRET) and request.verified_by(OTHER))
        self.secrets(OTHER)
        self.reload(mta)
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        last = self.receiver.requests[-1]
        self.assertTrue(last.verified_by(OTHER))
        self.assertFalse(last.verified_by(SECRET))

    def test_a_bad_file_of_secrets_refuses_the_reload_and_tells_no_secret(self) -> None:
        mta = self.mta()
        for content, problem in (
            ("confidential", "line 3: it does not begin with whsec_"),
            ("whsec_c2hvcnQ=", "line 3: found 5 octets"),
            ("whsec_???", "line 3: it is not base64"),
        ):
            self.secrets(content)
            refusal = self.refusal(mta)
            self.assertIn(problem, refusal)
            self.assertNotIn(content, refusal)
        self.secrets()
        self.assertIn("found no secret", self.refusal(mta))
        self.secrets(SECRET)
        os.chmod(self.secret_file, 0o644)
        self.assertIn("found mode 0644, expected 0600", self.refusal(mta))

    def test_the_events_of_a_webhook_that_was_removed_are_dropped(self) -> None:
        other = self.hook(f"http://127.0.0.1:{PORT + 1}/")
        mta = self.mta(self.hook())
        self.receiver.answer = 500
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        self.reload(mta, other)
        self.pass_(mta, 1)
        self.reload(mta, self.hook())
        self.receiver.answer = 204
        self.receiver.requests.clear()
        self.pass_(mta, DAY)
        self.assertEqual(self.receiver.requests, [])

    def test_without_webhooks_nothing_is_written(self) -> None:
        applied: list[Operation] = []
        apply = SQLiteStore.apply

        def spy(store: SQLiteStore, batch: Sequence[Operation]) -> list[Any]:
            applied.extend(batch)
            return apply(store, batch)

        self.patch(SQLiteStore, "apply", spy)
        mta = self.enterContext(MemoryMTA())
        self.submit(mta, "bob@localhost")
        self.pass_(mta, DAY)
        self.assertTrue([each for each in applied if isinstance(each, Settle)])
        self.assertEqual([each for each in applied if getattr(each, "events", ())], [])
        outbox = [each for each in applied if isinstance(each, EventsOperation)]
        self.assertEqual(outbox, [CountEvents()])  # at the start: those of settings of before

    # For operators.

    def test_the_status_and_a_test_event(self) -> None:
        mta = self.mta(self.hook(f"{URL}?key=hidden", events=["accepted"]))
        self.submit(mta, "bob@localhost")
        self.pass_(mta, 1)
        [shown] = json.loads(self.ask(mta, "/v1/webhooks").body)["webhooks"]
        self.assertEqual(
            (shown["url"], shown["state"], shown["posted"], shown["waiting"], shown["error"]),
            (URL, "ready", 1, 0, ""),
        )
        self.assertEqual(shown["last_success"] // 1, EPOCH)
        answer = json.loads(self.ask(mta, "/v1/webhooks/test", "POST").body)
        self.assertEqual(answer["results"], [{"url": URL, "problem": ""}])
        self.assertEqual(self.receiver.types[-1], "test")
        self.receiver.answer = 401
        answer = json.loads(self.ask(mta, "/v1/webhooks/test", "POST").body)
        self.assertEqual(answer["results"][0]["problem"], "it answers 401, expected 2xx")
