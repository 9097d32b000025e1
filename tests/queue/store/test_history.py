"""The remembered attempts at a recipient, in the embedded store."""

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
        self, mail: Message, *numbers: int, attempt: int = 1, transcript: str = "", **rest: object
    ) -> None:
        """Record an attempt after which recipients of a message (all) were deferred."""
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
                                transcript=transcript,
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
        """Return the numbers of attempts and of transcripts in the database."""
        assert self.store._database is not None
        (counts,) = self.store._database.execute(
            "SELECT (SELECT count(*) FROM attempt), (SELECT count(*) FROM conversation)"
        ).fetchall()
        return list(counts)

    def test_an_attempt_that_ended_in_a_deferral_is_kept_with_all_its_facts(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        self.defer(mail, transcript="S: 220 mx\n", tls=TLS, uncertain=True)
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

    def test_nothing_is_written_for_a_message_delivered_at_the_first_attempt(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        self.store.apply([settled(mail)])
        self.assertEqual(self.rows(), [0, 0])

    def test_the_last_five_attempts_and_two_transcripts_are_kept(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        for attempt in range(1, 9):
            self.defer(mail, attempt=attempt, transcript=f"S: {attempt}\n")
        kept = self.attempts()
        self.assertEqual([each.attempt for each in kept], [4, 5, 6, 7, 8])
        self.assertEqual([each.transcript for each in kept], ["", "", "", "S: 7\n", "S: 8\n"])
        self.assertEqual(self.rows(), [5, 2])

    def test_recipients_tried_together_share_one_transcript(self) -> None:
        mail = message(1, *(f"{number}@next.example" for number in range(1000)))
        self.store.apply([Accept(mail)])
        for attempt in range(1, 4):
            self.defer(mail, attempt=attempt, transcript=f"S: {attempt}\n")
        self.assertEqual(self.rows(), [3000, 2])
        self.assertEqual(self.attempts(number=999)[-1].transcript, "S: 3\n")

    def test_a_recipient_that_leaves_takes_only_its_own_attempts(self) -> None:
        mail = message(1, "a@next.example", "b@next.example")
        self.store.apply([Accept(mail)])
        self.defer(mail, transcript="S: both\n")
        self.store.apply([settled(mail, 0)])
        self.assertEqual(self.rows(), [1, 1])
        self.assertEqual(self.attempts(number=1)[0].transcript, "S: both\n")
        self.store.apply([settled(mail, 1)])
        self.assertEqual(self.rows(), [0, 0])

    def test_a_forgotten_message_leaves_no_attempts(self) -> None:
        mail, other = message(1), message(2)
        self.store.apply([Accept(mail), Accept(other)])
        self.defer(mail, transcript="S: 1\n")
        self.defer(other, transcript="S: 2\n")
        self.store.apply([Forget((mail.id,))])
        self.assertEqual(self.rows(), [1, 1])
        self.assertEqual(self.attempts(2)[0].transcript, "S: 2\n")

    def test_a_deferral_applied_twice_is_one_attempt(self) -> None:
        mail = message()
        self.store.apply([Accept(mail)])
        self.defer(mail, transcript="S: 1\n")
        self.defer(mail, transcript="S: 1\n")
        self.assertEqual(self.rows(), [1, 1])
