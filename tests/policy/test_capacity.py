"""Capacity for incoming messages, and the shortage that operators see while there is none."""

import errno

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.policy.capacity import Capacity


class CapacityTests(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.free = 1000
        self.attempts: list[Deferred[None]] = []
        self.capacity = Capacity(
            memory=100,
            share=40,
            minimum_free=500,
            free=lambda: self.free,
            clock=self.clock,
            attempt=self.attempt,
        )

    def attempt(self) -> Deferred[None]:
        self.attempts.append(Deferred())
        return self.attempts[-1]

    def shortage(self) -> str:
        shortage = self.capacity.shortage()
        return "" if shortage is None else f"{shortage.what}: {shortage.text}"

    def test_a_full_disk_is_a_shortage_before_any_message_comes(self) -> None:
        self.assertEqual(self.shortage(), "")
        self.free = 499
        self.clock.advance(1)
        self.assertEqual(
            self.shortage(), "disk: 499 octets of the disk are free, and minimum_free_disk is 500"
        )
        self.free = 500
        self.clock.advance(1)
        self.assertEqual(self.shortage(), "")

    def test_memory_that_is_used_up_is_a_shortage_until_a_message_is_gone(self) -> None:
        self.capacity.reserve()
        self.assertEqual(self.shortage(), "")
        self.capacity.reserve()
        self.assertEqual(
            self.shortage(),
            "memory: messages on their way in hold 80 octets, and message_memory is 100",
        )
        self.capacity.release()
        self.assertEqual(self.shortage(), "")

    def test_a_failed_write_is_a_shortage_until_an_attempt_to_write_succeeds(self) -> None:
        self.capacity.write_failed("Disk quota exceeded")
        quota = "disk: the queue cannot be written: Disk quota exceeded"
        self.assertEqual((self.shortage(), self.attempts), (quota, []))
        self.assertIsNone(self.capacity.refusal())  # each message is tried all the same
        self.clock.advance(6)
        for _ in range(3):
            self.assertEqual(self.shortage(), quota)
        self.assertEqual(len(self.attempts), 1)
        self.attempts[0].errback(OSError(errno.ENOSPC, "No space left on device"))
        self.assertEqual(
            self.shortage(), "disk: the queue cannot be written: No space left on device"
        )
        self.clock.advance(6)
        self.shortage()
        self.attempts[1].callback(None)
        self.assertEqual(self.shortage(), "")
        self.clock.advance(60)
        self.assertEqual((self.shortage(), len(self.attempts)), ("", 2))
