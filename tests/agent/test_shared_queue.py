"""Bodies of a shared queue: sent while the lease is certain, fetched apart from transactions."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.agent.shared_queue import GuardedBody, SharedQueue
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.queue.operator.operations import Inspected
from twisted_mta.queue.store.contract import Leased, Operation, Settle, StoreError
from twisted_mta.queue.store.spool import FileBody
from twisted_mta.smtp.client.outgoing import chunked, stuffed
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles

from ..queue.mail import message

ZERO = RecipientNumber(0)


class _Store:
    """Has the bodies of some messages.

    Attributes:
        lost: the ids of others.
    """

    def __init__(self) -> None:
        self.brings_bodies = False
        self.lost: list[int] = []

    def fetch(self, message: Message) -> None:
        if message.id in self.lost:
            raise StoreError("the connection is lost")


class _Commit:
    def __init__(self) -> None:
        self.performed: list[Operation] = []

    def perform(self, operation: Operation) -> Deferred[None]:
        self.performed.append(operation)
        return succeed(None)


class Fetching(TidyTestCase):
    def setUp(self) -> None:
        self.store, self.commit = _Store(), _Commit()
        self.queue = SharedQueue(
            self.store,  # type: ignore[arg-type]
            clock=Clock(),
            ids=None,
            executor=inline_executor,
        )
        self.queue._commit = self.commit  # type: ignore[assignment]
        body = FileBody(UnsyncedFiles(), "/state/body/1", 1000)
        self.mail = tuple(message(id, body=body) for id in (1, 2))

    def test_a_result_without_large_bodies_needs_nothing(self) -> None:
        self.assertIsNone(self.queue.fetch(Leased((message(1),), {})))

    def test_a_lease_whose_body_cannot_be_read_ends_without_an_attempt(self) -> None:
        self.store.lost = [1]
        fetched = self.queue.fetch(Leased(self.mail, {"x.example": 1.0}))
        assert fetched is not None
        leased = self.successResultOf(fetched)
        self.assertEqual(leased, Leased(self.mail[1:], {"x.example": 1.0}))
        self.assertEqual(self.commit.performed, [Settle(self.mail[0], untried=(ZERO,))])

    def test_a_message_whose_body_cannot_be_read_is_not_shown(self) -> None:
        self.store.lost = [1]
        fetched = self.queue.fetch(Inspected(self.mail[0], (), None, {}))
        assert fetched is not None
        self.failureResultOf(fetched, StoreError)
        self.assertEqual(self.commit.performed, [])


class Guarded(TidyTestCase):
    def setUp(self) -> None:
        self.leased = True
        self.body = GuardedBody(
            MemoryBody(b"Subject: Hello\r\n\r\nHello.\r\n"), lambda: self.leased
        )
        self.message = message(1, body=self.body)

    def test_content_is_the_same_as_long_as_the_lease_lasts(self) -> None:
        self.assertEqual(self.body.size, 26)
        self.assertTrue(b"".join(stuffed(self.message)).endswith(b"\r\n\r\nHello.\r\n.\r\n"))

    def test_without_a_lease_no_final_dot_is_sent(self) -> None:
        pieces = stuffed(self.message)
        sent = next(pieces) + next(pieces)
        self.leased = False
        with self.assertRaisesRegex(OSError, "lease"):
            sent += b"".join(pieces)
        self.assertFalse(sent.endswith(b"\r\n.\r\n"))

    def test_without_a_lease_no_last_piece_of_a_chunk_is_sent(self) -> None:
        pieces = chunked(self.message)
        next(pieces)  # the trace fields
        self.leased = False
        with self.assertRaisesRegex(OSError, "lease"):
            next(pieces)
