"""Delay notices over simulated days: when a sender gets one, and that it gets no second."""

from __future__ import annotations

import email
from email.message import Message as ParsedMessage
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.config import QueueSettings
from twisted_mta.telemetry.metrics.table import NOTICES
from twisted_mta.testing import MemoryMTA

DEAD = "192.0.2.66"
MAIL = b"Subject: Hello\r\n\r\nGood morning!\r\n"
HOUR, DAY = 3600.0, 86400.0


class Delays(TidyTestCase):
    def started(self, **settings: Any) -> MemoryMTA:
        routes = (("*", f"smtp://{DEAD}"), ("other.example", f"smtp://{DEAD}:26"))
        return self.enterContext(MemoryMTA(routes=routes, **settings))

    def advance_until(self, mta: MemoryMTA, hours: float) -> None:
        mta.advance(hours * HOUR - mta.reactor.seconds())

    def actions(self, mta: MemoryMTA, sender: str) -> list[list[tuple[str, str]]]:
        """Return (final recipient, action) of each block in each notice to a sender."""
        return [
            [
                (block["Final-Recipient"].partition("; ")[2], block["Action"])
                for block in self.blocks(notice)[1:]
            ]
            for notice in mta.mail(sender)
        ]

    def blocks(self, notice: bytes) -> list[ParsedMessage]:
        _, status, *_ = email.message_from_bytes(notice).get_payload()
        assert isinstance(status, ParsedMessage)
        blocks = status.get_payload()
        assert isinstance(blocks, list)
        return blocks  # type: ignore[return-value]

    def test_mail_that_arrives_after_a_long_quiet_time_is_late_by_no_more_than_minutes(
        self,
    ) -> None:
        """The queue is looked at once an hour while it is empty."""
        for warning in (60.0, 4 * HOUR):
            mta = self.started(
                queue=QueueSettings(delay_warning=warning, retry_minimum=DAY, retry_maximum=DAY)
            )
            self.advance_until(mta, 50.5)
            before = mta.reactor.seconds()
            mta.submit_by_smtp(MAIL, "bob@a.example", sender="ann@localhost")
            mta.advance_until(lambda: mta.mail("ann"))  # noqa: B023 - called in this turn
            late = mta.reactor.seconds() - before - warning
            self.assertTrue(0 <= late <= 300, late)

    def test_in_five_days_a_sender_gets_one_delay_notice_and_one_bounce(self) -> None:
        mta = self.started()
        mta.submit_by_smtp(MAIL, "bob@a.example", sender="ann@localhost")
        self.advance_until(mta, 4)
        self.assertEqual(mta.mail("ann"), [])
        self.advance_until(mta, 4.2)
        self.assertEqual(self.actions(mta, "ann"), [[("bob@a.example", "delayed")]])
        self.advance_until(mta, 120)
        self.assertEqual(len(mta.mail("ann")), 1)
        self.advance_until(mta, 122)
        self.assertEqual(
            self.actions(mta, "ann"),
            [[("bob@a.example", "delayed")], [("bob@a.example", "failed")]],
        )
        (delay_notice, _) = mta.mail("ann")
        (_, block) = self.blocks(delay_notice)
        self.assertEqual(block["Status"], "4.4.1")
        self.assertEqual(block["Will-Retry-Until"], "Wed, 20 Jan 2027 08:00:00 +0000")
        self.assertIn(b"until Wed, 20 Jan 2027 08:00:00 +0000", b" ".join(delay_notice.split()))
        self.assertEqual(mta.status().queue["messages"], 0)
        counted = mta.mta.agent.metrics.snapshot().numbers
        for action, times in (("delayed", 1), ("failed", 1)):
            self.assertEqual(counted[NOTICES, action], times)

    def test_mail_without_an_attempt_of_its_own_gets_a_delay_notice(self) -> None:
        # A suspended next hop gets one message as a probe, and the others wait.
        mta = self.started()
        for number in range(120):
            mta.submit_by_smtp(MAIL, f"bob{number}@a.example", sender=f"ann{number}@localhost")
        self.advance_until(mta, 4)
        self.assertEqual(mta.mail("ann119"), [])
        self.advance_until(mta, 4.5)
        for number in range(120):
            self.assertEqual(
                self.actions(mta, f"ann{number}"), [[(f"bob{number}@a.example", "delayed")]]
            )
        self.advance_until(mta, 12)
        self.assertEqual({len(mta.mail(f"ann{number}")) for number in range(120)}, {1})

    def test_recipients_with_different_next_hops_share_a_delay_notice(self) -> None:
        mta = self.started()
        mta.submit_by_smtp(MAIL, "bob@a.example", "carol@other.example", sender="ann@localhost")
        self.advance_until(mta, 5)
        self.assertEqual(
            self.actions(mta, "ann"),
            [[("bob@a.example", "delayed"), ("carol@other.example", "delayed")]],
        )

    def test_a_restart_sends_no_second_delay_notice(self) -> None:
        mta = self.started()
        mta.submit_by_smtp(MAIL, "bob@a.example", sender="ann@localhost")
        self.advance_until(mta, 4.2)
        self.assertEqual(len(mta.mail("ann")), 1)
        mta.restart()
        self.advance_until(mta, 20)
        self.assertEqual(len(mta.mail("ann")), 1)

    def test_notify_decides_whether_a_delay_notice_is_sent(self) -> None:
        # RFC 3461 §4.1
        mta = self.started()
        for sender, notify in (("ann", "FAILURE"), ("bea", "NEVER"), ("cat", "DELAY")):
            client = mta.connect()
            client.say(
                f"MAIL FROM:<{sender}@localhost>",
                f"RCPT TO:<bob@a.example> NOTIFY={notify}",
                "DATA",
            )
            client.send(MAIL + b".\r\n")
        self.advance_until(mta, 122)
        self.assertEqual(self.actions(mta, "ann"), [[("bob@a.example", "failed")]])
        self.assertEqual(self.actions(mta, "bea"), [])
        self.assertEqual(self.actions(mta, "cat"), [[("bob@a.example", "delayed")]])
        self.assertEqual(mta.status().queue["failures"], 2)

    def test_without_delay_warning_no_delay_notice_is_sent(self) -> None:
        mta = self.started(queue=QueueSettings(delay_warning=None))
        mta.submit_by_smtp(MAIL, "bob@a.example", sender="ann@localhost")
        self.advance_until(mta, 100)
        self.assertEqual(mta.mail("ann"), [])

    def test_mail_with_the_null_reverse_path_gets_no_delay_notice(self) -> None:
        mta = self.started()
        mta.submit_by_smtp(MAIL, "bob@a.example", sender="")
        self.advance_until(mta, 122)
        self.assertEqual(mta.status().queue["messages"], 0)
        self.assertEqual(mta.status().queue["failures"], 1)
