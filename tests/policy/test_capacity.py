"""Capacity for incoming messages, and the shortage that operators see while there is none."""

import errno

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.policy.capacity import Capacity, is_full


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

    def test_each_change_is_logged_once_and_not_for_each_refused_client(self) -> None:
        logged = logged_lines(self)
        for _ in range(3):
            self.assertIsNone(self.capacity.refusal())
        self.assertEqual(logged, [])
        self.capacity.reserve()
        self.capacity.reserve()
        refusals = [self.capacity.refusal() for _ in range(3)]
        self.assertNotIn(None, refusals)
        self.assertEqual(logged, [f"no mail is taken: {refusals[0]}"])
        self.capacity.release()
        for _ in range(3):
            self.assertIsNone(self.capacity.refusal())
        self.assertEqual(logged[1:], ["there is room again, and mail is taken"])

    def test_a_disk_is_full_where_it_or_our_quota_is_used_up(self) -> None:
        for number, full in ((errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)):
            self.assertEqual(is_full(OSError(number, "")), full)

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
