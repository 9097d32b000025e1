"""Destinations that the operator suspends, in a whole MTA on a clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.agent import operator_suspensions
from twisted_mta.testing import MemoryMTA

MAIL = b"Subject: Hello\r\n\r\nGood morning!\r\n"
HOUR = 3600.0


class SuspendedDestinations(TidyTestCase):
    def started(self, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(**settings))

    def change(self, mta: MemoryMTA, destination: str | None, **how: Any) -> None:
        """Suspend a destination; without ``how``, resume it."""
        agent = mta.mta.agent
        assert agent is not None

        async def changed() -> None:
            suspensions, resumed = agent.operator_suspensions, list[str]()
            if how:
                await suspensions.suspend(agent.shards[0], destination or "", by="ann", **how)
            else:
                done = await suspensions.resume(agent.shards[0], destination, by="ann")
                resumed = [each.name for each in done]
            await suspensions.take(resumed, by="ann")

        done = Deferred.fromCoroutine(changed())
        mta.advance_until(lambda: done.called)
        self.successResultOf(done)

    def suspend(self, mta: MemoryMTA, destination: str, seconds: float | None = None) -> None:
        self.change(mta, destination, seconds=seconds, reason="a secret")

    def test_the_sender_is_told_of_the_delay_and_of_the_end_and_not_of_the_reason(self) -> None:
        mta = self.started()
        mta.hop()
        self.suspend(mta, "far.example")
        mta.submit_by_smtp(MAIL, "bob@far.example", sender="ann@localhost")
        mta.advance(4.2 * HOUR)
        (delay,) = mta.mail("ann")
        mta.advance(118 * HOUR)
        (_, bounce) = mta.mail("ann")
        for notice, action in ((delay, b"Action: delayed"), (bounce, b"Action: failed")):
            text = b" ".join(notice.split())
            self.assertIn(action, text)
            self.assertIn(b"far.example is suspended by the operator", text)
            self.assertNotIn(b"secret", text)
        self.assertEqual(mta.status().queue["messages"], 0)

    def test_a_restart_and_a_crash_change_nothing(self) -> None:
        mta = self.started()
        hop = mta.hop()
        self.suspend(mta, "far.example", 50 * HOUR)
        mta.submit_by_smtp(MAIL, "bob@far.example", sender="ann@localhost")
        mta.restart()
        mta.advance(HOUR)
        mta.crash()
        mta.start()
        mta.advance(48 * HOUR)
        self.assertEqual(len(hop.received), 0)
        mta.advance(2 * HOUR)
        self.assertEqual(len(hop.received), 1)

    def test_a_local_domain_is_suspended_and_resumed(self) -> None:
        mta = self.started()
        self.suspend(mta, "localhost")
        mta.submit_by_smtp(MAIL, "bob@localhost", sender="ann@sender.example")
        mta.advance(HOUR)
        self.assertEqual(mta.mail("bob"), [])
        self.change(mta, None)
        mta.advance_until(lambda: mta.mail("bob"))

    def waiting(self, mta: MemoryMTA, *names: str) -> Mapping[str, int]:
        """Return how many recipients wait for destinations."""
        agent = mta.mta.agent
        assert agent is not None
        counted = agent.operator_suspensions.waiting(agent.shards[0], names)
        done = Deferred.fromCoroutine(counted)
        mta.advance_until(lambda: done.called)
        return self.successResultOf(done)

    def test_the_mail_of_all_domains_of_a_destination_is_counted_while_there_is_time(self) -> None:
        mta = self.started()
        self.suspend(mta, ".far.example")
        for first in range(0, 450, 50):
            recipients = [f"bob@{number}.far.example" for number in range(first, first + 50)]
            mta.submit_by_smtp(MAIL, *recipients, sender="ann@localhost")
        mta.advance(1)
        names = ".far.example", "other.example"
        counts = {".far.example": 450, "other.example": 0}
        self.assertEqual(self.waiting(mta, *names), counts)
        self.patch(operator_suspensions, "_LONGEST_COUNT", 0.0)
        self.assertEqual(self.waiting(mta, *names), dict.fromkeys(names, 0))
