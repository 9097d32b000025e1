"""A certificate that renews itself, from Pebble, an authority by others."""

from __future__ import annotations

import os
import smtplib
import ssl
import stat

from .machine import LOOPBACK, need
from .mail import ProgramTestCase, message, trusting
from .mta import MTA
from .pebble import Pebble

_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


class ACME(ProgramTestCase):
    def setUp(self) -> None:
        need("pebble", "pebble-challtestsrv")
        super().setUp()

    def mta(self, pebble: Pebble, *options: str, more: str = "") -> MTA:
        toml = (
            f'[acme]\ndirectory = "{pebble.directory}"\nauthorities = "{pebble.authorities}"\n'
            f'endpoint = "tcp:{pebble.challenges}:interface={LOOPBACK}"\n'
            f'contact = "mailto:postmaster@mta.example"\n{more}'
        )
        return MTA(self.home, *options, toml=toml)

    def secured(self, mta: MTA) -> tuple[smtplib.SMTP, bytes]:
        """Return a client under TLS, and the certificate that it has seen."""
        client = smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30)
        self.addCleanup(client.close)
        client.starttls(context=trusting())
        assert isinstance(client.sock, ssl.SSLSocket)
        return client, client.sock.getpeercert(binary_form=True) or b""

    def test_workers_take_a_renewed_certificate_and_no_connection_is_lost(self) -> None:
        with Pebble(self.home, life=15) as pebble, self.mta(pebble, "--workers", "2") as mta:
            mta.wait_for(
                lambda: "the certificate is in force" in mta.output(), "the first certificate"
            )
            before = [self.secured(mta) for _ in range(6)]
            [first] = {shown for _, shown in before}
            mta.wait_for(
                lambda: mta.output().count("the certificate is in force") > 1, "its renewal"
            )
            after = [self.secured(mta) for _ in range(6)]
            [second] = {shown for _, shown in after}
            self.assertNotEqual(first, second)
            for client, _ in (*before, *after):
                client.sendmail("ann@sender.example", ["bob@localhost"], message())
            mta.wait_for_mail("localhost", "bob", 12)
            self.assertNotIn("no new certificate", mta.output())
            folder = mta.state / "acme"
            for name in os.listdir(folder):
                self.assertEqual(stat.S_IMODE((folder / name).stat().st_mode), 0o600, name)
            self.assertEqual(mta.terminate(), 0)

    def test_an_authority_for_customers_alone(self) -> None:
        key = self.home / "eab"
        key.write_text(f"{_KEY}\n", encoding="ascii")
        more = f'eab_key_id = "kid-1"\neab_key_file = "{key}"\nkey_type = "rsa"\n'
        keys = {"kid-1": _KEY}
        with Pebble(self.home, life=3600, keys=keys) as pebble, self.mta(pebble, more=more) as mta:
            mta.wait_for(lambda: "the certificate is in force" in mta.output(), "the certificate")
            self.assertNotIn(_KEY, mta.output())
            _, shown = self.secured(mta)
            pem = ssl.DER_cert_to_PEM_cert(shown)
            self.assertIn(pem.strip(), (mta.state / "acme" / "certificate.pem").read_text())
