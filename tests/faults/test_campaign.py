"""The MTA keeps all acknowledged mail through faults under load."""

import signal
from pathlib import Path
from smtplib import SMTPDataError

from twisted.trial.unittest import SynchronousTestCase

from ..functional.machine import folder, need, need_proc
from ..functional.mail import message, submit
from ..functional.mta import MTA
from .campaign import Campaign
from .exhausted import ExhaustedMTA
from .forgetful import Forgetful
from .gone import DetachableMTA, MountedMTA
from .memory import MIB, grown_by
from .moves import MoveCampaign

RATE = 60.0
"""Messages a second: enough for some to be under way at each fault."""


class Faults(SynchronousTestCase):
    home: Path

    def setUp(self) -> None:
        self.home = self.enterContext(folder("faults"))

    def test_nothing_is_lost_or_corrupted_by_five_kills_under_load(self) -> None:
        verdict = Campaign(self.home, rate=RATE, seed=5).run(5)
        self.assertTrue(verdict.good, str(verdict))
        self.assertGreater(verdict.acked, 100, str(verdict))

    def test_the_campaign_finds_what_a_forgetful_server_loses(self) -> None:
        verdict = Campaign(self.home, seed=1, program=Forgetful).run(1, drain=3.0)
        self.assertFalse(verdict.good, str(verdict))
        self.assertGreater(len(verdict.lost), 0, str(verdict))
        self.assertEqual(verdict.corrupt, [], str(verdict))

    def test_nothing_is_lost_or_doubled_by_orderly_restarts_under_load(self) -> None:
        verdict = Campaign(self.home, rate=RATE, seed=2, fault=signal.SIGTERM).run(2)
        self.assertTrue(verdict.good, str(verdict))
        self.assertEqual(verdict.explained, [])

    def test_nothing_is_lost_or_doubled_by_setting_the_clock_under_load(self) -> None:
        need("cc")
        verdict = Campaign(self.home, rate=RATE, seed=3, fault="CLOCK", workers=2).run(4)
        self.assertTrue(verdict.good, str(verdict))
        self.assertEqual(verdict.explained, [])

    def test_a_state_directory_that_goes_away_and_comes_back_loses_nothing(self) -> None:
        verdict = Campaign(self.home, rate=RATE, seed=3, program=DetachableMTA).run(2)
        self.assertTrue(verdict.good, str(verdict))
        self.assertGreater(verdict.refused, 10, str(verdict))

    def test_an_unmounted_state_directory_and_a_killed_worker_lose_nothing(self) -> None:
        need("unshare", "nsenter")
        verdict = Campaign(self.home, rate=RATE, seed=4, program=MountedMTA, workers=2).run(1)
        self.assertTrue(verdict.good, str(verdict))

    def test_without_memory_or_threads_for_a_while_nothing_is_lost_or_doubled(self) -> None:
        verdict = Campaign(self.home, rate=RATE, seed=6, program=ExhaustedMTA).run(3)
        self.assertTrue(verdict.good, str(verdict))
        self.assertGreater(verdict.refused, 10, str(verdict))
        self.assertEqual(verdict.explained, [])

    def test_moves_that_are_killed_lose_and_double_nothing(self) -> None:
        self.home.chmod(0o755)
        campaign = MoveCampaign(self.home, seed=8, messages=150)
        verdict = campaign.run(6)
        self.assertTrue(verdict.good, str(verdict))
        self.assertEqual((campaign.kills, verdict.acked), (6, 150))

    def test_a_queue_that_was_removed_is_not_made_again(self) -> None:
        with MTA(self.home) as mta:
            submit(mta.smtp, message(), "bob@localhost", starttls=False)
            mta.wait_for_mail("localhost", "bob")
            (mta.state / "queue.sqlite").unlink()
            for _ in range(3):
                with self.assertRaises(SMTPDataError) as told:
                    submit(mta.smtp, message(), "bob@localhost", starttls=False)
                self.assertEqual(told.exception.smtp_code, 451)
                self.assertFalse(mta.is_ready())
            self.assertFalse((mta.state / "queue.sqlite").exists())

    def test_twenty_large_messages_at_once_do_not_fill_the_memory(self) -> None:
        need_proc()
        measured = grown_by(self.home, size=8 * MIB)  # 160 MiB in all; 64 are allowed
        self.assertTrue(measured.within, str(measured))
