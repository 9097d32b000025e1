"""The API over HTTPS, with a token and with a login, in front of two workers."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .forked import run_script
from .machine import LOOPBACK, PATIENCE
from .mail import ProgramTestCase
from .mta import MTA, TOOL

SETTINGS = """
[mta]
workers = 2
[web]
users = "{home}/web-users"
tokens = "{home}/web-tokens"
tls = true
"""


class _AsItself(MTA):
    """An MTA that may listen on any address as root, where root runs the tests."""

    def command(self) -> list[str | Path]:
        twistd, *rest = super().command()
        return [twistd, "--uid", str(os.geteuid()), *rest] if os.geteuid() == 0 else [twistd, *rest]


class Access(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE  # the certificate is self-signed
        self.token = self.new_token()
        subprocess.run(
            [
                *(sys.executable, str(TOOL)),
                "users",
                "add",
                "--file",
                f"{self.home}/web-users",
                "ann",
            ],
            input="opensesame\n",
            text=True,
            check=True,
            capture_output=True,
        )

    def new_token(self) -> str:
        words = ("users", "token", "--file", f"{self.home}/web-tokens", "--scope", "read,submit")
        return run_script([str(TOOL), *words, "shop"]).stdout.strip()

    def connect(self, mta: MTA) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(
            LOOPBACK, mta.web, timeout=PATIENCE, context=self.tls
        )
        self.addCleanup(connection.close)
        return connection

    def ask(
        self, mta: MTA, method: str, path: str, body: str | None = None, **fields: str
    ) -> http.client.HTTPResponse:
        connection = self.connect(mta)
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def test_mail_comes_in_once_and_its_events_go_out(self) -> None:
        bearer = f"Bearer {self.token}"
        with MTA(self.home, toml=SETTINGS.format(home=self.home)) as mta:
            events = self.ask(mta, "GET", "/v1/events?types=delivered", Authorization=bearer)
            self.assertEqual(events.headers["Content-Type"], "text/event-stream")
            self.assertEqual(events.readline(), b"retry: 2000\n")
            fields = {"from": "shop@localhost", "to": ["bob@localhost"], "text": "It is sent."}
            ids = []
            for _ in range(2):
                taken = self.ask(
                    *(mta, "POST", "/v1/messages", json.dumps(fields)),
                    Authorization=bearer,
                    Content_Type="application/json",
                    Idempotency_Key="order-1",
                )
                self.assertEqual(taken.status, 202)
                ids.append(json.load(taken)["id"])
            self.assertEqual(ids[0], ids[1])
            line = b""
            while not line.startswith(b"data: "):
                line = events.readline()
            event: Any = json.loads(line[6:])
            self.assertEqual((event["id"], event["recipients"]), (ids[0], ["bob@localhost"]))
            self.assertEqual(len(mta.wait_for_mail("localhost", "bob")), 1)
            refused = self.ask(mta, "POST", "/v1/reload", Authorization=bearer)
            self.assertEqual(refused.status, 403)

    def test_a_login_acts_and_a_reload_ends_an_old_token(self) -> None:
        with MTA(self.home, toml=SETTINGS.format(home=self.home)) as mta:
            form = urlencode({"name": "ann", "password": "opensesame"})
            answered = self.ask(
                *(mta, "POST", "/login", form),
                Content_Type="application/x-www-form-urlencoded",
                Origin=f"https://{LOOPBACK}:{mta.web}",
            )
            self.assertEqual(answered.status, 303)
            cookie = answered.headers["Set-Cookie"].partition(";")[0]
            self.assertTrue(cookie.startswith("__Host-"), cookie)
            session = json.load(self.ask(mta, "GET", "/v1/session", Cookie=cookie))
            self.new_token()
            without = self.ask(mta, "POST", "/v1/reload", Cookie=cookie)
            self.assertEqual(without.status, 403)
            done = self.ask(mta, "POST", "/v1/reload", Cookie=cookie, X_CSRF_Token=session["csrf"])
            self.assertEqual(done.status, 200)
            old = self.ask(mta, "GET", "/v1/status", Authorization=f"Bearer {self.token}")
            self.assertEqual(old.status, 401)
            self.assertNotIn("opensesame", mta.output())
            self.assertNotIn(self.token, mta.output())

    def test_a_page_that_takes_secrets_in_clear_from_other_machines_is_a_trouble(self) -> None:
        toml = SETTINGS.format(home=self.home).replace("tls = true", "")
        for address, expected in (("0.0.0.0", ["clear_page"]), (LOOPBACK, [])):
            web = f"tcp:0:interface={address}"
            with _AsItself(self.home, "--web", web, toml=toml) as mta:
                status = json.loads(mta.tool("status", "--json").stdout)
                found = [each["kind"] for each in status["troubles"]]
                self.assertEqual([each for each in found if each == "clear_page"], expected)
                self.assertEqual("passwords and tokens" in mta.output(), bool(expected))
