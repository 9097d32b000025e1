"""The table of what expires."""

from __future__ import annotations

import os

from tests.policy.dkim.key_files import write_key
from tests.server.authority import Authority
from tests.tls.acme.renewing import MX, RenewerTestCase
from tests.tls.acme_server import DAY
from twisted_mta import Config
from twisted_mta.agent.expiry import Expiry, expiries
from twisted_mta.config import DKIMKey, Listener
from twisted_mta.config.destination import Destination
from twisted_mta.system.real_world import wall_time


class Expiries(RenewerTestCase):
    def config(self, **more: object) -> Config:
        listener = Listener(endpoint="tcp:25", sni=more.pop("sni", ()))  # type: ignore[arg-type]
        return Config(hostname=MX, state_dir=self.directory, listeners=(listener,), **more)  # type: ignore[arg-type]

    def file(self, name: str, days: int) -> str:
        issued = Authority().issue(name, names=[name], days=(-1, days), for_clients=False)
        return issued.save(self.directory, f"{name}.pem")

    def rows(self, config: Config) -> list[tuple[str, str, int]]:
        now = wall_time()
        return [(each.kind, each.of, each.days_left(now + 60)) for each in expiries(config)]

    def test_everything_in_the_order_of_its_days(self) -> None:
        key = write_key(os.path.join(self.directory, "s1.pem"))
        os.utime(key, (0, wall_time() - 300 * DAY))
        sni = {"names": ["b.example"], "certificate": self.file("b.example", 10)}
        client = Destination(
            domain="far.example", tls="encrypt", client_certificate=self.file("c.example", 5)
        )
        config = self.config(
            tls_certificate=self.file(MX, 20),
            sni=(sni,),
            destinations=(client,),
            dkim_keys=(DKIMKey(domain="d.example", selector="s1", key=key),),
        )
        self.assertEqual(
            self.rows(config),
            [
                ("client certificate", "[[destination]] far.example", 4),
                ("certificate", "b.example (smtp)", 9),
                ("certificate", f"{MX} (smtp)", 19),
                ("DKIM key", "s1._domainkey.d.example", 64),
            ],
        )

    def test_files_that_cannot_be_read_are_left_out(self) -> None:
        config = self.config(tls_certificate=os.path.join(self.directory, "missing.pem"))
        self.assertEqual(expiries(config), [])

    def issued(self) -> Expiry:
        [row] = expiries(self.config(acme=self.settings()))
        self.assertEqual(row.of, f"{MX} (smtp)")
        return row

    def test_a_certificate_that_renews_itself(self) -> None:
        renewer = self.start()
        self.advance(seconds=60)
        self.assertEqual(self.issued().at, self.installed[0].not_valid_after_utc.timestamp())
        self.assertIn("nothing: it renews itself, about 2027-03-1", self.issued().do)
        self.down = "ca.example has no address"
        self.advance(days=63)
        self.assertIn("renewal fails: ca.example has no address; mend that,", self.issued().do)
        self.assertIn("ca.example has no address", renewer.problem)
