"""A content is sent as fast as the connection takes it, and other work comes in between."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.delivery.body_producer import AnyExecutor, BodyProducer

PIECE = 65_536


class Sender:
    """A connection that takes everything at once."""

    def __init__(self) -> None:
        self.sent: list[int | None] = []
        self.progress = 0
        self.ends: list[OSError | None] = []
        self.broken = False

    def send_piece(self, piece: bytes | None) -> None:
        if self.broken:
            raise RuntimeError("broken")
        self.sent.append(None if piece is None else len(piece))

    def body_progressed(self) -> None:
        self.progress += 1

    def body_ended(self, error: OSError | None) -> None:
        self.ends.append(error)


class Producing(SynchronousTestCase):
    executor: AnyExecutor | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.sender = Sender()
        self.producer = BodyProducer(self.sender, self.content(), self.executor, self.clock)

    def content(self) -> Iterator[bytes]:
        for _ in range(5):
            yield b"x" * PIECE

    def test_a_turn_of_the_reactor_sends_a_few_pieces_alone(self) -> None:
        self.producer.resumeProducing()
        self.assertEqual(self.sender.sent, [PIECE] * 2)
        self.clock.calls[0].func()
        self.clock.calls.pop(0)
        self.assertEqual(self.sender.sent, [PIECE] * 4)
        self.assertEqual(self.sender.ends, [])
        self.clock.advance(0)
        self.assertEqual(self.sender.sent, [PIECE] * 5 + [None])
        self.assertEqual(self.sender.ends, [None])
        self.assertEqual(self.sender.progress, 3)

    def test_nothing_is_sent_while_it_is_paused(self) -> None:
        self.producer.resumeProducing()
        self.producer.pauseProducing()
        self.clock.advance(0)
        self.assertEqual(self.sender.sent, [PIECE] * 2)
        self.producer.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.sender.ends, [None])

    def test_the_end_of_the_connection_leaves_no_timer(self) -> None:
        self.producer.resumeProducing()
        self.producer.stopProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.sender.ends, [])

    def test_an_internal_error_ends_the_content_once(self) -> None:
        self.sender.broken = True
        self.producer.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        (error,) = self.sender.ends
        self.assertEqual(str(error), "internal error, see the log")


class ProducingByExecutor(Producing):
    """The same where an executor reads the pieces."""

    executor = staticmethod(maybeDeferred)
