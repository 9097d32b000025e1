"""What the status page remembers of what has passed."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.envelope import Message, Outcome, RecipientNumber
from twisted_mta.queue.activity import Activity, Progress
from twisted_mta.smtp.reply import Reply

from .mail import DEFERRED, DELIVERED, FAILED, message


class Remembering(SynchronousTestCase):
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

    def test_it_is_delivered_when_all_its_recipients_are(self) -> None:
        self.assertEqual(self.settle((0, DELIVERED)).state, "queued")
        progress = self.settle((1, DELIVERED))
        self.assertEqual((progress.state, progress.last), ("delivered", str(DELIVERED)))

    def test_it_has_failed_when_one_of_them_has(self) -> None:
        self.assertEqual(self.settle((0, DELIVERED), (1, FAILED)).state, "failed")

    def test_it_is_deferred_as_long_as_one_of_them_is(self) -> None:
        self.assertEqual(self.settle((0, DEFERRED)).state, "deferred")
        self.assertEqual(self.settle((0, DEFERRED)).deferred, 1)
        self.assertEqual(self.settle((1, DELIVERED)).state, "deferred")
        self.assertEqual(self.settle((0, DELIVERED)).state, "delivered")

    def test_everything_is_counted(self) -> None:
        self.settle((0, DEFERRED), (1, FAILED))
        self.settle((0, DELIVERED))
        self.settle((0, DELIVERED), of=message(99))
        counts = self.activity
        self.assertEqual(
            (counts.accepted, counts.delivered, counts.deferred, counts.failed), (1, 2, 1, 1)
        )

    def test_only_the_last_are_remembered_the_newest_first(self) -> None:
        for id in range(2, 200):
            self.activity.message_accepted(message(id))
        recent = self.activity.recent()
        self.assertEqual([int(each.id) for each in recent], list(range(199, 149, -1)))
