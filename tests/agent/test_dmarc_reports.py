"""Reports of DMARC in a whole agent: from an observation to the mail to its domain."""

from __future__ import annotations

import gzip
import os
from email import message_from_bytes, policy
from typing import Any

from attrs import evolve

from tests.policy.dkim.key_files import write_key
from tests.reports.dmarc.rows import observation
from tests.tidy import TidyTestCase
from twisted_mta.agent.dmarc_reports import FILE
from twisted_mta.config import DKIMKey, PolicySettings
from twisted_mta.mail.address import Mailbox
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.resolver import FakeResolver

DAY = 86_400.0
RECORD = "v=DMARC1; p=reject; rua=mailto:reports@ours.example"


class DMARCReportsTests(TidyTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.resolver = FakeResolver(texts={"_dmarc.ours.example": [RECORD]})

    def started(self, *, reports: bool = True, **settings: Any) -> MemoryMTA:
        mta = MemoryMTA(
            self.directory,
            resolver=self.resolver,
            local_domains=("ours.example",),
            policy=PolicySettings(
                dmarc_reports=reports, report_from=Mailbox.parse("noc@mx.example")
            ),
            **settings,
        )
        mta.start()
        self.addCleanup(lambda: mta.stop() if mta.mta.running else None)
        return mta

    def observe(self, mta: MemoryMTA) -> None:
        agent = mta.mta.agent
        assert agent is not None
        agent.dmarc_reports.observe(observation(text=RECORD.encode(), domain="ours.example"))

    def reports(self, mta: MemoryMTA) -> list[bytes]:
        for _ in range(28):
            mta.advance(3_600)
        return mta.mail("reports", "ours.example")

    def test_a_domain_gets_a_signed_report_on_the_day_before(self) -> None:
        path = write_key(os.path.join(self.directory, "key.pem"), "ed25519")
        mta = self.started(dkim_keys=(DKIMKey(domain="mx.example", selector="s1", key=path),))
        self.observe(mta)
        (content,) = self.reports(mta)
        message = message_from_bytes(content, policy=policy.default)
        self.assertEqual(message["Return-Path"], "<noc@mx.example>")
        self.assertIn("d=mx.example", message["DKIM-Signature"])
        _, data = message.iter_parts()
        report = gzip.decompress(data.get_content()).decode()
        self.assertIn("<domain>ours.example</domain>", report)
        self.assertIn("<org_name>mx.example</org_name>", report)
        self.assertEqual(len(self.reports(mta)), 1)

    def test_counts_survive_a_restart(self) -> None:
        mta = self.started()
        self.observe(mta)
        mta.stop()
        mta = self.started()
        self.assertEqual(len(self.reports(mta)), 1)

    def test_without_the_setting_nothing_is_counted(self) -> None:
        mta = self.started(reports=False)
        self.observe(mta)
        self.assertEqual(self.reports(mta), [])
        self.assertFalse(os.path.exists(os.path.join(self.directory, FILE)))

    def test_a_reload_turns_them_on_and_off(self) -> None:
        mta = self.started(reports=False)
        off = mta.mta.config
        on = evolve(off, policy=evolve(off.policy, dmarc_reports=True))
        self.successResultOf(mta.mta.reload(on))
        self.observe(mta)
        self.assertEqual(len(self.reports(mta)), 1)
        self.observe(mta)
        self.successResultOf(mta.mta.reload(off))
        self.observe(mta)
        self.assertEqual(len(self.reports(mta)), 1)
