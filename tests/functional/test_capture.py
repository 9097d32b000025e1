"""``twistd -n mta --capture``: a capture server in one command."""

from __future__ import annotations

import json
import shutil
import smtplib
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from twisted.trial.unittest import SynchronousTestCase

from .machine import LOOPBACK
from .mta import MTA


class Capture(SynchronousTestCase):
    def test_mail_for_anybody_is_on_the_page(self) -> None:
        home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, home)
        mta = MTA(home, "--capture")
        self.addCleanup(mta.stop)
        mta.start()
        with smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30) as client:
            client.sendmail("app@app.test", ["bob@user.test"], "Subject: Welcome\r\n\r\nHi!\r\n")
            refused = self.assertRaises(
                smtplib.SMTPRecipientsRefused,
                client.sendmail,
                *("app@app.test", ["bob+450@user.test"], "Subject: no\r\n\r\n"),
            )
            self.assertEqual(refused.recipients["bob+450@user.test"][0], 450)
        mta.wait_for(lambda: self.asked(mta)["messages"], "the message is captured")
        (message,) = self.asked(mta)["messages"]
        self.assertEqual((message["to"], message["subject"]), (["bob@user.test"], "Welcome"))
        with urlopen(f"http://{LOOPBACK}:{mta.web}/captured/{message['id']}", timeout=30) as page:
            self.assertIn(b"<pre>Hi!\n</pre>", page.read())
        self.assertEqual(self.asked(mta, "DELETE"), {"deleted": 1})
        self.assertEqual(self.asked(mta), {"messages": []})

    def asked(self, mta: MTA, method: str = "GET") -> Any:
        url = f"http://{LOOPBACK}:{mta.web}/v1/captured"
        with urlopen(Request(url, method=method), timeout=30) as answer:
            return json.load(answer)
