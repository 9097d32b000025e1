"""The timer of a connection: it fires when it was last set to, by few calls of the clock."""

from __future__ import annotations

from random import Random  # noqa: TID251 - seeded, so every run draws the same
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock

from tests.server.loopback import LoopbackTestCase
from tests.tidy import TidyTestCase
from twisted_mta.server.factory import ListenerFactory
from twisted_mta.server.timeouts import ConnectionTimer, Timeouts
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.server_options import ServerOptions


class CountingClock(Clock):
    """Counts the calls of `callLater`."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_made = 0

    def callLater(self, when: float, *args: Any, **kwargs: Any) -> Any:
        self.calls_made += 1
        return super().callLater(when, *args, **kwargs)


class Timer(TidyTestCase):
    def setUp(self) -> None:
        self.clock = CountingClock()
        self.fired: list[float] = []
        self.timer = ConnectionTimer(
            Timeouts(), self.clock, lambda: self.fired.append(self.clock.seconds())
        )

    def test_a_short_connection_with_a_handshake_needs_one_call(self) -> None:
        self.timer.await_client()
        self.timer.await_handshake()
        self.clock.advance(1)
        self.timer.await_client()
        self.clock.advance(1)
        self.timer.set(10)
        self.timer.cancel()
        self.assertEqual(self.clock.calls_made, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_fires_at_the_time_that_was_set_last(self) -> None:
        for seed in range(300):
            self.setUp()
            random = Random(seed)
            due = None
            for _ in range(random.randrange(1, 8)):
                seconds = random.choice((1, 5, 10, 30, 60, 300))
                self.timer.set(seconds)
                due = self.clock.seconds() + seconds
                for _ in range(random.choice((0, 1, 4, 20, 100))):
                    self.clock.advance(1)
                    expected = [due] if due <= self.clock.seconds() else []
                    self.assertEqual(self.fired, expected, seed)
                if self.fired:
                    break
                due = None
            if due is not None:
                self.clock.pump([1] * 301)
                self.assertEqual(self.fired, [due], seed)

    def test_it_does_not_fire_once_it_is_cancelled(self) -> None:
        self.timer.set(60)
        self.clock.advance(30)
        self.timer.cancel()
        self.timer.cancel()
        self.clock.advance(60)
        self.assertEqual(self.fired, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AtTheEnd(LoopbackTestCase):
    async def test_a_timer_that_is_due_in_the_turn_of_the_last_reply_destroys_none(self) -> None:
        """The clock has been read before the last command, in a turn that takes long."""
        clock = Clock()
        timeouts = Timeouts()
        factory = ListenerFactory(
            RecordingDelivery(),
            clock=clock,
            settings=ServerOptions().settings(),
            timeouts=timeouts,
        )
        lose_connection = factory.outbox.lose_connection

        def lose_connection_late(transport: Any, *, finished: bool) -> Any:
            result = lose_connection(transport, finished=finished)
            clock.advance(1)
            return result

        self.patch(factory.outbox, "lose_connection", lose_connection_late)
        listening = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        client = await self.dial(listening.getHost().port)
        await client.reply()
        clock.advance(timeouts.command - 10)
        await client.say("NOOP")
        clock.advance(9.5)
        (reply,) = await client.say("QUIT")
        self.assertEqual(reply[:3], "221")
        self.assertEqual(await client.reply(), "CLOSED")
        assert client.reason is not None
        self.assertIs(client.reason.type, ConnectionDone)
