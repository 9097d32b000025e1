"""Retries over simulated days: how often a dead next hop is tried, and when its mail bounces."""

from __future__ import annotations

from tests.tidy import TidyTestCase
from twisted_mta.config import Destination, QueueSettings
from twisted_mta.testing.memory_mta import MemoryMTA

DEAD = "192.0.2.66"
MAIL = b"Subject: Hello\r\n\r\nGood morning!\r\n"
HOUR, DAY = 3600.0, 86400.0


class Retries(TidyTestCase):
    def started(self, *destinations: Destination) -> MemoryMTA:
        return self.enterContext(
            MemoryMTA(
                routes=(("*", f"smtp://{DEAD}"), ("there.example", f"smtp://{DEAD}:26")),
                destinations=destinations,
                queue=QueueSettings(delay_warning=None),
            )
        )

    def assertReturned(self, mta: MemoryMTA, sender: str, hours: int) -> None:
        """Check that the sender gets one notice, with the first probe after ``hours``."""
        mta.advance_until(lambda: mta.mail(sender))
        self.assertTrue(hours * HOUR <= mta.reactor.seconds() < (hours + 1.1) * HOUR)
        self.assertEqual(len(mta.mail(sender)), 1)

    def test_mail_is_retried_for_five_days_and_then_bounces(self) -> None:
        mta = self.started()
        for number in range(3):
            mta.submit_by_smtp(
                MAIL, f"bob{number}@a{number}.example", sender=f"ann{number}@localhost"
            )
        self.assertReturned(mta, "ann0", 120)
        connections = mta.mta.agent.traffic.unconnected
        # One probe for all three messages: every hour, and some more at first.
        self.assertTrue(110 <= connections <= 135, connections)
        for number in range(3):
            (notice,) = mta.mail(f"ann{number}")
            self.assertIn(b"Status: 5.4.7", notice)
        self.assertEqual(self.successResultOf(mta.mta.status()).queue["messages"], 0)

    def test_a_destination_by_domain_or_host_has_its_own_lifetime_and_retries(self) -> None:
        mta = self.started(
            Destination(domain="hasty.example", lifetime=DAY, retry_minimum=60.0),
            Destination(domain=f"{DEAD}:26", lifetime=2 * DAY),
        )
        mta.submit_by_smtp(MAIL, "bob@hasty.example", sender="hasty@localhost")
        mta.submit_by_smtp(MAIL, "bob@there.example", sender="there@localhost")
        mta.submit_by_smtp(MAIL, "bob@any.example", sender="any@localhost")
        self.assertReturned(mta, "hasty", 24)
        self.assertReturned(mta, "there", 48)
        self.assertReturned(mta, "any", 120)
