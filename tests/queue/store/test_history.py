"""The last attempts at a recipient are kept with it, and go with it."""

from __future__ import annotations

from attrs import evolve

from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.queue.store import history
from twisted_mta.queue.store.attempts import PastAttempt
from twisted_mta.queue.store.contract import Accept, Deferral, Forget, Settle

from ..mail import DEFERRED, NOW, message, settled
from .test_sqlite import StoreTestCase

TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, peer_subject="CN=mx", peer_verified=True)


class History(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store.open()

    def defer(
        self, mail: Message, *numbers: int, attempt: int = 1, said: str = "", **rest: object
    ) -> None:
        """Record that recipients of a message (all) were tried in vain."""
        recipients = tuple(evolve(each, attempts=attempt - 1) for each in mail.envelope.recipients)
        self.store.apply(
            [
                Settle(
                    mail.for_recipients(recipients),
                    deferred=tuple(
                        Deferral(
                            Outcome(
                                RecipientNumber(number),
                                DEFERRED,
                                "mx.example[192.0.2.1]:25",
                                transcript=said,
                                **rest,  # type: ignore[arg-type]
                            ),
                            NOW + 300,
                        )
                        for number in numbers or range(len(recipients))
                    ),
                    at=NOW + attempt,
                    next_hop="smtp:next.example",
                )
            ]
        )

    def attempts(self, id: int = 1, number: int = 0) -> tuple[PastAttempt, ...]:
        assert self.store._database is not None
        return history.read(self.store._database, QueueId(id)).get(RecipientNumber(number), ())

    def rows(self) -> list[int]:
        """Return how many attempts, and how many conversations, there are."""
        assert self.store._database is not None
        (counts,) = self.store._database.execute(
            "SELECT (SELECT count(*) FROM attempt), (SELECT count(*) FROM conversation)"
        ).fetchall()
        return list(counts)

    def test_an_attempt_in_vain_is_kept_with_all_that_is_known_of_it(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        self.defer(mail, said="S: 220 mx\n", tls=TLS, uncertain=True)
        expected = PastAttempt(
            attempt=1,
            ended_at=NOW + 1,
            next_hop="smtp:next.example",
            reply=Reply.of(451, "4.1", "Come back later"),
            remote="mx.example[192.0.2.1]:25",
            tls=TLS,
            uncertain=True,
            transcript="S: 220 mx\n",
        )
        self.assertEqual(self.attempts(), (expected,))
        self.restart()
        self.store.open()
        self.assertEqual(self.attempts(), (expected,))

    def test_nothing_is_written_for_what_goes_at_once(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        self.store.apply([settled(mail)])
        self.assertEqual(self.rows(), [0, 0])

    def test_the_last_five_attempts_and_two_conversations(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        for attempt in range(1, 9):
            self.defer(mail, attempt=attempt, said=f"S: {attempt}\n")
        kept = self.attempts()
        self.assertEqual([each.attempt for each in kept], [4, 5, 6, 7, 8])
        self.assertEqual([each.transcript for each in kept], ["", "", "", "S: 7\n", "S: 8\n"])
        self.assertEqual(self.rows(), [5, 2])

    def test_who_was_tried_together_shares_what_was_said(self) -> None:
        mail = message(1, *(f"{number}@next.example" for number in range(1000)))
        self.store.apply([Accept(mail)])
        for attempt in range(1, 4):
            self.defer(mail, attempt=attempt, said=f"S: {attempt}\n")
        self.assertEqual(self.rows(), [3000, 2])
        self.assertEqual(self.attempts(number=999)[-1].transcript, "S: 3\n")

    def test_one_that_leaves_takes_only_its_own(self) -> None:
        mail = message(1, "a@next.example", "b@next.example")
        self.store.apply([Accept(mail)])
        self.defer(mail, said="S: both\n")
        self.store.apply([settled(mail, 0)])
        self.assertEqual(self.rows(), [1, 1])
        self.assertEqual(self.attempts(number=1)[0].transcript, "S: both\n")
        self.store.apply([settled(mail, 1)])
        self.assertEqual(self.rows(), [0, 0])

    def test_what_is_forgotten_leaves_nothing(self) -> None:
        mail, other = message(1), message(2)
        self.store.apply([Accept(mail), Accept(other)])
        self.defer(mail, said="S: 1\n")
        self.defer(other, said="S: 2\n")
        self.store.apply([Forget((mail.id,))])
        self.assertEqual(self.rows(), [1, 1])
        self.assertEqual(self.attempts(2)[0].transcript, "S: 2\n")

    def test_an_answer_that_is_recorded_twice_is_one_attempt(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        self.defer(mail, said="S: 1\n")
        self.defer(mail, said="S: 1\n")
        self.assertEqual(self.rows(), [1, 1])
