"""The last messages and the counts of an agent."""

from tests.tidy import TidyTestCase
from twisted_mta.admin.reporter import recent_message
from twisted_mta.agent.activity import Activity, Progress
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.reply import Reply
from twisted_mta.telemetry.metrics import Metrics, table

from ..queue.mail import BODY, DEFERRED, DELIVERED, FAILED, NOW, message


class LastMessages(TidyTestCase):
    def setUp(self) -> None:
        self.activity = Activity()
        self.message = message(1, "a@one.example", "b@two.example")
        self.activity.message_accepted(self.message)

    def settle(self, *outcomes: tuple[int, Reply], of: Message | None = None) -> Progress:
        self.activity.attempt_settled(
            of or self.message,
            [Outcome(RecipientNumber(number), reply) for number, reply in outcomes],
            "smtp:next.example",
        )
        return self.activity.recent()[0]

    def test_a_new_message_is_queued(self) -> None:
        (progress,) = self.activity.recent()
        self.assertEqual((progress.state, progress.last), ("queued", ""))

    def test_a_message_is_delivered_when_all_its_recipients_are(self) -> None:
        self.assertEqual(self.settle((0, DELIVERED)).state, "queued")
        progress = self.settle((1, DELIVERED))
        self.assertEqual((progress.state, progress.last), ("delivered", str(DELIVERED)))

    def test_a_message_has_failed_when_one_of_its_recipients_has(self) -> None:
        self.assertEqual(self.settle((0, DELIVERED), (1, FAILED)).state, "failed")

    def test_a_message_is_deferred_as_long_as_one_of_its_recipients_is(self) -> None:
        self.assertEqual(self.settle((0, DEFERRED)).state, "deferred")
        self.assertEqual(self.settle((0, DEFERRED)).deferred, 1)
        self.assertEqual(self.settle((1, DELIVERED)).state, "deferred")
        self.assertEqual(self.settle((0, DELIVERED)).state, "delivered")

    def test_a_message_is_held_until_all_its_recipients_are_released(self) -> None:
        self.settle((0, DEFERRED))
        for action, number, state in (
            ("hold", 2, "held"),
            ("release", 1, "held"),
            ("retry", 1, "held"),
            ("release", 1, "deferred"),
            ("release", 1, "deferred"),  # it was held before this process began
            ("hold", 1, "held"),
            ("remove", 1, "held"),
            ("release", 1, "deferred"),
            ("remove", 1, "removed"),
        ):
            self.activity.intervened(action, self.message.id, number)
            self.assertEqual(self.activity.recent()[0].state, state, (action, number))
        self.activity.intervened("hold", message(99).id, 1)  # of a message that is not remembered

    def test_accepted_messages_and_outcomes_are_counted(self) -> None:
        self.settle((0, DEFERRED), (1, FAILED))
        self.settle((0, DELIVERED))
        self.settle((0, DELIVERED), of=message(99))
        counts = self.activity
        self.assertEqual(
            (counts.accepted, counts.delivered, counts.deferred, counts.failed), (1, 2, 1, 1)
        )

    def test_the_last_50_messages_are_remembered_the_newest_first(self) -> None:
        for id in range(2, 200):
            self.activity.message_accepted(message(id))
        recent = self.activity.recent()
        self.assertEqual([int(each.id) for each in recent], list(range(199, 149, -1)))

    def test_a_message_in_a_report_is_of_bounded_size(self) -> None:
        many = message(7, *(f"r{number}@one.example" for number in range(1000)), sender=None)
        self.activity.message_accepted(many)
        outcome = (0, Reply.of(451, "4.1", *["x" * 400] * 100))
        self.activity.attempt_settled(
            many, [Outcome(RecipientNumber(outcome[0]), outcome[1])], "smtp:next.example"
        )
        shown, first = map(recent_message, self.activity.recent())
        self.assertEqual((shown.id, shown.reverse_path), (str(many.id), None))
        self.assertEqual(shown.recipients, tuple(f"r{number}@one.example" for number in range(5)))
        self.assertEqual((shown.more, shown.state), (995, "deferred"))
        self.assertLess(len(shown.last), 1000)
        self.assertEqual((first.more, first.size), (0, BODY.size))


class Counting(TidyTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()
        self.now = NOW
        self.activity = Activity(self.metrics, wall_time=lambda: self.now)
        self.message = message(1, "a@one.example", "b@two.example")

    def settle(self, next_hop: str, *replies: Reply) -> None:
        outcomes = [Outcome(RecipientNumber(n), reply) for n, reply in enumerate(replies)]
        self.activity.attempt_settled(self.message, outcomes, next_hop)

    def test_messages_recipients_and_octets_are_counted(self) -> None:
        self.activity.message_accepted(self.message)
        snapshot = self.metrics.snapshot()
        self.assertEqual(snapshot.total(table.MESSAGES_ACCEPTED), 1)
        self.assertEqual(snapshot.total(table.RECIPIENTS_ACCEPTED), 2)
        self.assertEqual(snapshot.total(table.OCTETS_ACCEPTED), BODY.size)

    def test_outcomes_are_counted_by_transport_and_subject(self) -> None:
        self.settle("smtp:next.example:25", DELIVERED, FAILED)
        self.settle("smtps:next.example:465", DEFERRED)
        self.settle("maildir", Reply.of(250, None))
        self.settle("carrier pigeon", Reply.of(550, "9.9"))
        self.assertEqual(
            sorted(self.metrics.snapshot().series(table.OUTCOMES)),
            [
                (("maildir", "delivered", "none"), 1),
                (("other", "failed", "other"), 1),
                (("smtp", "deferred", "4"), 1),
                (("smtp", "delivered", "0"), 1),
                (("smtp", "failed", "1"), 1),
            ],
        )

    def test_deliveries_are_timed_from_the_acceptance_of_the_message(self) -> None:
        self.now = NOW + 20
        self.settle("lmtp:/run/lmtp", DELIVERED, FAILED)
        self.now = NOW - 20  # the clock was set back
        self.settle("lmtp:/run/lmtp", DELIVERED)
        ((key, distribution),) = self.metrics.snapshot().distributions.items()
        self.assertEqual(key, (table.DELIVERY_DELAY, "lmtp"))
        self.assertEqual((sum(distribution.counts), distribution.sum), (2, 20.0))
