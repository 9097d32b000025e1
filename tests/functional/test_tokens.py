"""OAuth 2.0 tokens at a smarthost: Postfix, with Dovecot that asks the token server about each."""

from __future__ import annotations

import json
import smtplib

from .dovecot import Dovecot
from .machine import LOOPBACK, eventually, need, run
from .mail import ProgramTestCase, message, submit, trusting
from .mta import MTA, TOOL
from .postfix import Postfix
from .sinks import Sink
from .test_smarthost import certificate_pair
from .token_server import CLIENT, SECRET, TokenServer


class Tokens(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("postfix", "dovecot", "/usr/lib/dovecot/lmtp", "openssl")
        self.server = self.enterContext(TokenServer("ann"))
        self.sink = self.enterContext(Sink(self.home))
        self.pair = certificate_pair(self.home)
        self.secret("client-secret", SECRET)
        self.secret("refresh-token", self.server.refresh_token)

    def smarthost(self, mechanisms: str = "oauthbearer xoauth2") -> Postfix:
        introspection = f"http://{LOOPBACK}:{self.server.port}/introspect"
        dovecot = self.enterContext(
            Dovecot(self.home, mechanisms=mechanisms, introspection=introspection)
        )
        return self.enterContext(
            Postfix(
                self.home,
                {
                    "relayhost": f"[{LOOPBACK}]:{self.sink.port}",
                    "smtpd_tls_security_level": "may",
                    "smtpd_tls_chain_files": str(self.pair),
                    "smtpd_tls_auth_only": "yes",
                    "smtpd_sasl_auth_enable": "yes",
                    "smtpd_sasl_type": "dovecot",
                    "smtpd_sasl_path": str(dovecot.auth),
                    "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
                },
            )
        )

    def secret(self, name: str, text: str) -> None:
        path = self.home / name
        path.write_text(f"{text}\n", encoding="utf-8")
        path.chmod(0o600)

    def mta(self, postfix: Postfix, source: str, *options: str, settings: str = "") -> MTA:
        return self.enterContext(
            MTA(
                self.home,
                *options,
                toml=(
                    f'[mta]\nlocal_domains = ["local.example"]\n{settings}'
                    f'routes = {{"*" = "smtp://localhost:{postfix.port}"}}\n'
                    f'[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n'
                    f'[[destination]]\ndomain = "localhost"\nusername = "ann"\n'
                    f'authorities = "{self.home}/certificate.pem"\n{source}'
                ),
            )
        )

    def grant(self, *more: str) -> str:
        return "\n".join(
            (
                f'oauth_token_url = "{self.server.url}"',
                f'oauth_client_id = "{CLIENT}"',
                f'oauth_client_secret_file = "{self.home}/client-secret"',
                *more,
            )
        )

    def refreshing(self) -> str:
        return self.grant(f'oauth_refresh_token_file = "{self.home}/refresh-token"')

    def assert_secret(self, mta: MTA) -> None:
        """No secret is in the log."""
        for secret in (SECRET, "refresh-", "token-", "auth=Bearer"):
            self.assertNotIn(secret, mta.output().replace("/refresh-token", ""))

    def test_a_device_that_knows_auth_login_sends_by_a_smarthost_that_wants_tokens(self) -> None:
        postfix = self.smarthost()
        users = self.home / "accounts"
        added = run(
            *(TOOL, "users", "add", "--file", users, "--address", "@local.example", "printer"),
            text="old password\n",
        )
        self.assertEqual(added.returncode, 0, added.stdout)
        mta = self.mta(
            postfix,
            self.refreshing(),
            *("--submission", f"tcp:0:interface={LOOPBACK}"),
            settings=f'users = "{users}"\nrelay_from = []\n',
        )
        with smtplib.SMTP(LOOPBACK, mta.submission, timeout=60) as device:
            device.starttls(context=trusting())
            device.ehlo()
            device.user, device.password = "printer", "old password"
            device.auth("LOGIN", device.auth_login)
            device.sendmail("printer@local.example", ["bob@elsewhere.example"], message())
        self.sink.wait_for_messages()
        self.assertIn("sasl_method=OAUTHBEARER, sasl_username=ann", postfix.output())
        self.assertEqual([each["grant_type"] for each in self.server.requests], ["refresh_token"])
        self.assert_secret(mta)

    def test_xoauth2_where_the_server_has_that_alone_and_the_secret_in_the_form(self) -> None:
        postfix = self.smarthost("xoauth2 plain")
        self.server.only_in_body = True
        mta = self.mta(postfix, self.grant('oauth_scope = "send"'))
        submit(mta.smtp, message(), "bob@elsewhere.example")
        self.sink.wait_for_messages()
        self.assertIn("sasl_method=XOAUTH2, sasl_username=ann", postfix.output())
        self.assertEqual(
            [(each["grant_type"], each["scope"]) for each in self.server.requests],
            [("client_credentials", "send")] * 2,  # with the secret in a field, then in the form
        )
        self.assert_secret(mta)

    def test_a_revoked_token_is_replaced_by_the_new_refresh_token_after_a_restart_too(self) -> None:
        postfix = self.smarthost()
        mta = self.mta(postfix, self.refreshing())
        submit(mta.smtp, message(), "bob@elsewhere.example")
        self.sink.wait_for_messages()
        mta.terminate()
        mta.start()
        self.server.granted.clear()
        submit(mta.smtp, message(), "bob@elsewhere.example")
        self.sink.wait_for_messages(2)
        self.assertIn("ALARM: ", mta.output())
        self.assertEqual(
            [each["refresh_token"] for each in self.server.requests], ["refresh-0", "refresh-1"]
        )
        self.assert_secret(mta)

    def test_two_workers_use_one_token(self) -> None:
        postfix = self.smarthost()
        mta = self.mta(postfix, self.refreshing(), "--workers", "2")
        for _ in range(8):
            submit(mta.smtp, message(), "bob@elsewhere.example")
        self.sink.wait_for_messages(8)
        self.assertEqual(len(self.server.requests), 1)

    def test_mail_waits_while_there_is_no_token_and_the_reason_is_shown(self) -> None:
        postfix = self.smarthost()
        self.server.failure = 400, b'{"error": "invalid_grant", "error_description": "expired"}'
        mta = self.mta(postfix, self.refreshing())
        submit(mta.smtp, message(), "bob@elsewhere.example")
        reason = "the token server refuses: invalid_grant: expired"
        eventually(lambda: 'reply="454 4.7.0 localhost' in mta.output(), "a deferral")
        self.assertIn(reason, mta.output())
        explained = mta.tool("explain", "bob@elsewhere.example").stdout
        self.assertIn(reason, " ".join(explained.split()))
        self.assertEqual(len(self.server.requests), 1)  # the next attempt is in a minute
        (trouble,) = [
            each
            for each in json.loads(mta.tool("status", "--json").stdout)["troubles"]
            if each["kind"] == "tokens"
        ]
        self.assertEqual(trouble["severity"], "critical")
        self.assert_secret(mta)

    def test_a_token_that_the_next_hop_refuses_is_a_trouble_that_names_it(self) -> None:
        postfix = self.smarthost()
        self.secret("token", "of.no.account")
        mta = self.mta(postfix, f'token_file = "{self.home}/token"')
        submit(mta.smtp, message(), "bob@elsewhere.example")
        eventually(lambda: "ALARM: " in mta.output(), "an alarm")
        status = " ".join(mta.tool("status").stdout.split())
        self.assertIn(f"localhost:{postfix.port} does not take our account and token: 535", status)

    def test_a_token_from_a_file_or_a_command_that_another_program_renews(self) -> None:
        postfix = self.smarthost()
        self.server.granted.append("from.elsewhere==")
        self.secret("token", "from.elsewhere==")
        for count, source in enumerate(
            (f'token_file = "{self.home}/token"', f"token_command = \"cat '{self.home}/token'\""), 1
        ):
            mta = self.mta(postfix, source)
            submit(mta.smtp, message(), "bob@elsewhere.example")
            self.sink.wait_for_messages(count)
            mta.terminate()
        self.assertEqual(postfix.output().count("sasl_method=OAUTHBEARER, sasl_username=ann"), 2)
