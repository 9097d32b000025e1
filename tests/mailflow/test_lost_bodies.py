"""A message whose body is lost is set aside at its next attempt, and not tried for days."""

from __future__ import annotations

import os

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.testing import MemoryMTA

SIZES = (100_000, 1_000_000)  # octets of a body whose file stays open, and of one that is read anew


class LostBodies(TidyTestCase):
    def test_it_is_set_aside_and_its_loss_is_a_trouble(self) -> None:
        for size in SIZES:
            said = logged_lines(self, "lost its body file; it is kept and not delivered")
            mta = self.enterContext(MemoryMTA())
            hop = mta.hop().defer(1, at="rcpt").then_accept()
            mail = b"Subject: Hello\r\n\r\n" + b"Good morning!\r\n" * (size // 15)
            mta.submit_by_smtp(mail, "bob@far.example", sender="ann@localhost")
            mta.advance(10)
            mta.crash()
            mta.start()
            self.lose_bodies(mta)
            mta.advance(3600)
            status = mta.status()
            self.assertEqual((len(hop.received), status.queue["quarantined"]), (0, 1))
            self.assertIn("quarantine", [each.kind for each in status.troubles])
            (line,) = said
            self.assertIn("its body file is missing", line)
            mta.advance(6 * 24 * 3600)
            self.assertEqual(mta.status().queue["quarantined"], 1)
            self.assertEqual((mta.mail("ann"), len(said)), ([], 1))

    def test_a_body_that_cannot_be_read_now_is_tried_again(self) -> None:
        mta = self.enterContext(MemoryMTA())
        hop = mta.hop().defer(1, at="rcpt").then_accept()
        mail = b"Subject: Hello\r\n\r\n" + b"Good morning!\r\n" * 100_000
        mta.submit_by_smtp(mail, "bob@far.example", sender="ann@localhost")
        mta.advance(10)
        mta.files.fail_next("open", OSError("broken"))
        mta.advance(400)
        self.assertEqual(len(hop.received), 0)
        mta.files.mend()
        mta.advance(3600)
        self.assertEqual(len(hop.received), 1)
        self.assertEqual(mta.status().queue["quarantined"], 0)

    def lose_bodies(self, mta: MemoryMTA) -> None:
        directory = os.path.join(mta.mta.config.state_dir, "body")
        for name in mta.files.names(directory):
            mta.files.unlink(os.path.join(directory, name))
