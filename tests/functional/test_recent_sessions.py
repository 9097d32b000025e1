"""Recent sessions on the page and in the tool, of an MTA with workers."""

from __future__ import annotations

import contextlib
import json
import smtplib
import subprocess

from .machine import LOOPBACK
from .mail import message, submit
from .mta import MTA, TOOL
from .test_page import PASSWORD, PageTestCase

ROWS = "document.querySelectorAll('#found tbody tr').length"
EVIL = "<script>alert(1)</script>.evil.example"


class RecentSessions(PageTestCase):
    def spam(self, mta: MTA) -> None:
        """Come as a client with an evil name, and be refused."""
        with contextlib.suppress(smtplib.SMTPException):
            client = smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30)
            client.putcmd(f"EHLO {EVIL}")
            client.getreply()
            client.docmd("MAIL FROM:<ann@evil.example>")
            client.docmd("RCPT TO:<bob>")
            client.docmd("RCPT TO:<bob@@localhost>")
            client.quit()

    def test_the_page_shows_them_live_and_finds_those_that_were_refused(self) -> None:
        users = self.home / "users"
        subprocess.run(
            [TOOL, "users", "add", "--file", users, "ann"],
            input=f"{PASSWORD}\n".encode(),
            check=True,
            capture_output=True,
        )
        with MTA(self.home, "--workers", "2", toml=f'[web]\nusers = "{users}"\n') as mta:
            browser = self.browser(mta, "/sessions")
            browser.wait("document.querySelector('#found').innerText.includes('No session has')")
            self.assertAccessible(browser)
            for _ in range(4):
                submit(mta.smtp, message(), "bob@localhost")
            self.spam(mta)
            browser.wait(f"{ROWS} === 5")
            self.assertAccessible(browser)
            shown = browser.do("document.querySelector('#found').innerText")
            for text in ("QUIT", "TLSv1.3", EVIL, "501"):
                self.assertIn(text, shown)
            self.assertFalse(browser.do("!!document.querySelector('#found script')"))
            self.assertNotIn("trace the next", shown)
            browser.do("document.querySelector('[name=refused]').value = 'true'")
            browser.do("document.querySelector('[name=peer]').value = 'EVIL'")
            browser.click("button", "Search")
            browser.wait(f"{ROWS} === 1")
            self.assertIn(EVIL, browser.do("document.querySelector('#found').innerText"))
            self.assertEqual(browser.complaints, [])
            browser.open(f"http://{LOOPBACK}:{mta.web}/login")
            browser.do("document.querySelector('[name=name]').value = 'ann'")
            browser.do(f"document.querySelector('[name=password]').value = '{PASSWORD}'")
            browser.click("button", "Log in")
            browser.wait("document.querySelector('.verdict')")
            browser.click("header nav a", "Sessions")
            browser.wait(f"{ROWS} === 5")
            link = browser.do("document.querySelector('#found a').getAttribute('href')")
            self.assertEqual(link, "/v1/trace?client=127.0.0.1")
            self.assertAccessible(browser)
            listed = mta.tool("trace", "--recent", "--refused").stdout.splitlines()
            self.assertEqual(len(listed), 2)
            self.assertIn(EVIL, listed[1])
            told = json.loads(mta.tool("trace", "--recent", "--json").stdout)["sessions"]
            self.assertEqual(sum(each["accepted"] for each in told), 4)
            self.assertEqual(mta.tool("trace", "--refused").returncode, 2)
