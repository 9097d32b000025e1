"""Killed at random moments under load, the MTA keeps what it has acknowledged."""

import signal
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ..functional.programs import folder, need, need_proc
from .campaign import Campaign
from .forgetful import Forgetful
from .memory import MIB, grown_by


class Faults(SynchronousTestCase):
    home: Path

    def setUp(self) -> None:
        self.home = self.enterContext(folder("faults"))

    def test_nothing_is_lost_or_corrupted_by_five_kills_under_load(self) -> None:
        verdict = Campaign(self.home, seed=5).run(5)
        self.assertTrue(verdict.good, str(verdict))
        self.assertGreater(verdict.acked, 100, str(verdict))

    def test_the_campaign_finds_what_a_forgetful_server_loses(self) -> None:
        verdict = Campaign(self.home, seed=1, program=Forgetful).run(1, drain=3.0)
        self.assertFalse(verdict.good, str(verdict))
        self.assertGreater(len(verdict.lost), 0, str(verdict))
        self.assertEqual(verdict.corrupt, [], str(verdict))

    def test_nothing_is_lost_or_doubled_by_orderly_restarts_under_load(self) -> None:
        verdict = Campaign(self.home, seed=2, fault=signal.SIGTERM).run(2)
        self.assertTrue(verdict.good, str(verdict))
        self.assertEqual(verdict.explained, [])

    def test_nothing_is_lost_or_doubled_by_setting_the_clock_under_load(self) -> None:
        need(self, "cc")
        verdict = Campaign(self.home, seed=3, fault="CLOCK", workers=2).run(4)
        self.assertTrue(verdict.good, str(verdict))
        self.assertEqual(verdict.explained, [])

    def test_twenty_large_messages_at_once_do_not_fill_the_memory(self) -> None:
        need_proc()
        measured = grown_by(self.home, size=16 * MIB)  # 320 MiB in all, for 64 that are allowed
        self.assertTrue(measured.within, str(measured))
