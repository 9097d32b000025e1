"""SIGHUP: a new certificate without a restart; an invalid one changes nothing."""

import os
import signal
import smtplib
import ssl

from tests.server.authority import self_signed

from .machine import LOOPBACK
from .mail import ProgramTestCase, message, trusting
from .mta import MTA


class Reload(ProgramTestCase):
    def shown(self, mta: MTA) -> bytes | None:
        with smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30) as client:
            client.starttls(context=trusting())
            assert isinstance(client.sock, ssl.SSLSocket)
            return client.sock.getpeercert(binary_form=True)

    def test_sighup_loads_the_new_certificate_and_drops_no_connection(self) -> None:
        old, new = self_signed("old.example"), self_signed("new.example")
        path = old.save(str(self.home), "mx.pem")
        with MTA(self.home, "--tls-certificate", path) as mta:
            with smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30) as before:
                before.starttls(context=trusting())
                self.assertEqual(self.shown(mta), old.der)
                new.save(str(self.home), "mx.pem")
                os.kill(mta.pid, signal.SIGHUP)
                mta.wait_for(lambda: "reloaded: " in mta.output(), "the reload")
                self.assertEqual(self.shown(mta), new.der)
                before.sendmail("ann@sender.example", ["bob@localhost"], message())
            mta.wait_for_mail("localhost", "bob")
            with open(path, "wb") as spoilt:
                spoilt.write(old.pem[:100])
            os.kill(mta.pid, signal.SIGHUP)
            mta.wait_for(lambda: "nothing was reloaded" in mta.output(), "the refusal")
            self.assertIn(f"in force stays: {path}: holds no certificate", mta.output())
            self.assertEqual(self.shown(mta), new.der)
            self.assertEqual(mta.terminate(), 0)
