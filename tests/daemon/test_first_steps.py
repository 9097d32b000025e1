"""The lines after the start: the message that they suggest is taken and delivered as they say."""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from tests.logs import logged_lines
from tests.server.authority import Authority
from twisted_mta.agent.mailboxes import Mailboxes
from twisted_mta.config import Listener
from twisted_mta.daemon.first_steps import log_first_steps
from twisted_mta.testing.memory_mta import SMTP, MemoryMTA

MAIL = b"Subject: Hello\r\n\r\nIt works.\r\n"


class FirstSteps(SynchronousTestCase):
    def started(self, *, aliases: str = "", **settings: Any) -> MemoryMTA:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        if aliases:
            settings["aliases"] = os.path.join(self.directory, "aliases")
            with open(settings["aliases"], "w", encoding="ascii") as file:
                file.write(aliases)
        listener = settings.pop("listener", {})
        port = 24 if listener.get("kind") == "lmtp" else SMTP[1]
        endpoint = f"tcp:{port}:interface={SMTP[0]}"
        settings["listeners"] = (Listener(endpoint=endpoint, **listener),)
        mta = MemoryMTA(self.directory, **settings)
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def lines(self, mta: MemoryMTA) -> list[str]:
        return self.logged(mta, mta.mta.agent.mailboxes)

    def logged(self, mta: MemoryMTA, mailboxes: Mailboxes | None) -> list[str]:
        lines = logged_lines(self)
        log_first_steps(Logger(), mta.mta.config, mta.mta.bound, mailboxes)
        return lines

    def test_the_suggested_recipient_is_accepted_and_its_mail_is_where_the_line_says(self) -> None:
        routes = (("first.example", "error:5.1.1 gone"), ("second.example", "discard:"))
        domains = ("first.example", "second.example", "third.example")
        for settings, recipient in (
            ({"recipients": "any"}, "you@localhost"),
            ({"recipients": "existing"}, "postmaster@localhost"),
            ({"aliases": "you: ann\n"}, "postmaster@localhost"),
            ({"local_domains": domains, "routes": routes}, "you@third.example"),
            ({"listener": {"require_tls": True}}, "you@localhost"),
        ):
            mta = self.started(**settings)
            tried, shown = self.lines(mta)
            self.assertIn(f'["{recipient}"]', tried)
            self.assertIn("s.starttls();", tried)
            name, _, domain = recipient.partition("@")
            self.assertEqual(shown, f"then: cat {mta.mta.config.maildir}/{domain}/{name}/new/*")
            client = mta.connect(greet=False)
            client.say("EHLO client.example")
            client.start_tls()
            client.say("EHLO client.example")
            client.say(f"MAIL FROM:<me@{domain}>")
            self.assertEqual(client.say(f"RCPT TO:<{recipient}>")[0][:3], "250")
            client.say("DATA")
            self.assertEqual(client.send(MAIL + b".\r\n")[0][:3], "250")
            mta.advance(1)
            directory = f"{mta.mta.config.maildir}/{domain}/{name}/new"
            self.assertEqual(len(mta.files.tree(directory)), 1)

    def test_nothing_is_suggested_that_would_be_refused(self) -> None:
        authorities = Authority().issued.save(os.curdir, "authorities.pem")
        required = {
            "client_certificates": "require",
            "client_certificate_authorities": authorities,
        }
        for settings in (
            {"local_domains": ("relayed.example",), "routes": (("relayed.example", "discard:"),)},
            {"recipients": "existing", "aliases": "postmaster: ann@elsewhere.example\n"},
            {"listener": required},
            {"listener": {"kind": "lmtp"}},
            {"listener": {"kind": "submission"}},
            {"listener": {"implicit_tls": True}},
            {"listener": {"proxy_protocol_from": (SMTP[0],)}},
        ):
            self.assertEqual(self.lines(self.started(**settings)), [], settings)

    def test_without_tls_on_the_listener_starttls_is_not_suggested(self) -> None:
        tried, _ = self.lines(self.started(listener={"tls": "none"}))
        self.assertNotIn("starttls", tried)

    def test_aliases_that_other_processes_have_may_lead_elsewhere(self) -> None:
        mta = self.started(aliases="ann: bob\n")
        self.assertEqual(self.logged(mta, None), [])
