"""What expires, in health and metrics."""

from __future__ import annotations

import os

from twisted.internet.task import Clock

from tests.policy.dkim.key_files import write_key
from tests.server.authority import Authority
from tests.tidy import TidyTestCase
from twisted_mta import Config
from twisted_mta.admin.expiries import Expiries
from twisted_mta.config import DKIMKey
from twisted_mta.config.destination import Destination
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.real_world import wall_time

DAY = 86_400.0


class Telling(TidyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.clock = Clock()
        issued = Authority().issue(
            "c.example", names=["c.example"], days=(-1, 20), for_clients=True
        )
        key = write_key(os.path.join(self.directory, "s1.pem"))
        os.utime(key, (0, wall_time() - 300 * DAY))
        self.config = Config(
            state_dir=self.directory,
            destinations=(
                Destination(
                    domain="far.example",
                    tls="encrypt",
                    client_certificate=issued.save(self.directory, "c.pem"),
                ),
            ),
            dkim_keys=(DKIMKey(domain="d.example", selector="s1", key=key),),
        )
        self.expiries = Expiries(
            lambda: self.config, run=inline_executor, clock=self.clock, lasts=60.0
        )

    def troubles(self, days: float) -> list[tuple[str, str, str]]:
        found = self.expiries.troubles(wall_time() + days * DAY)
        return [(each.kind, each.severity, each.text.partition(" for ")[2]) for each in found]

    def test_the_first_of_each_kind_is_a_metric(self) -> None:
        self.assertIsNone(self.expiries.first("certificate"))
        for kind, days in (("client certificate", 20), ("DKIM key", 65)):
            at = self.expiries.first(kind)  # type: ignore[arg-type]
            assert at is not None
            self.assertEqual(round((at - wall_time()) / DAY), days)

    def test_a_client_certificate_is_a_trouble_two_weeks_before_it_expires(self) -> None:
        self.assertEqual(self.troubles(5), [])
        ((kind, severity, text),) = self.troubles(7)
        self.assertEqual((kind, severity), ("certificate", "warning"))
        self.assertRegex(text, r"\A\[\[destination\]\] far\.example expires on \d{4}-\d\d-\d\d\Z")
        ((kind, severity, text),) = self.troubles(21)
        self.assertEqual((kind, severity), ("certificate", "critical"))
        self.assertIn("has expired on", text)

    def test_a_dkim_key_is_one_after_a_year(self) -> None:
        self.assertEqual([each[:2] for each in self.troubles(66)][1:], [("dkim_keys", "info")])

    def test_files_are_read_again_after_a_while(self) -> None:
        self.assertIsNotNone(self.expiries.first("DKIM key"))
        self.config = Config(state_dir=self.directory)
        self.assertIsNotNone(self.expiries.first("DKIM key"))
        self.clock.advance(60)
        self.assertIsNone(self.expiries.first("DKIM key"))
