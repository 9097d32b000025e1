"""Submission to a whole MTA over real connections: AUTH, limits, and the log."""

import hmac
import os
import re
from base64 import b64decode, b64encode
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from tests.server.authority import Authority
from tests.server.loopback import ClientTLS, LoopbackTestCase, listener, received
from twisted_mta.auth.accounts import Account
from twisted_mta.auth.accounts_file import changing
from twisted_mta.config import AccountLimit, AccountLimits, Config, ConfigError
from twisted_mta.service import CannotReload
from twisted_mta.smtp.sasl.scram import scram_keys
from twisted_mta.system.real_world import secret_octets

PASSWORD = "open sesame 71"


def encoded(octets: bytes | str) -> str:
    return b64encode(octets.encode() if isinstance(octets, str) else octets).decode()


def plain(name: str, password: str = PASSWORD) -> str:
    return f"AUTH PLAIN {encoded(f'{chr(0)}{name}{chr(0)}{password}')}"


class SubmissionTestCase(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.users = os.path.join(self.directory, "users")
        self.add(Account.of("ann", PASSWORD, addresses=["a@a.example"], secret=secret_octets))

    def add(self, account: Account) -> None:
        with changing(self.users) as accounts:
            accounts[account.name] = account

    def submission(self, **settings: Any) -> Any:
        settings = {"users": self.users, "auth_failure_delay": 0, **settings}
        return self.agent(
            listener(kind="submission"),
            listener(kind="submissions"),
            listener(auth="any", slow_after_errors=1000),
            **settings,
        )

    async def codes(self, client: Any, *lines: str) -> list[str]:
        return [reply[:9].rstrip() for reply in await client.say(*lines)]


class Submitting(SubmissionTestCase):
    async def test_auth_comes_before_mail_and_tls_before_auth(self) -> None:
        agent = self.submission()
        client = await self.session(agent)
        self.assertEqual(
            await self.codes(client, "MAIL FROM:<a@a.example>", plain("ann")),
            ["530 5.7.0", "538 5.7.1"],
        )
        await client.start_tls()
        (greeting,) = await client.say("EHLO client.example")
        self.assertIn("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN LOGIN", greeting)
        self.assertEqual(
            await self.codes(
                client,
                "MAIL FROM:<a@a.example>",
                plain("ann", "wrong"),
                plain("nobody"),
                plain("ann"),
                "MAIL FROM:<b@a.example>",
                "MAIL FROM:<Ann@mx.example> AUTH=<>",
                "RCPT TO:<far@away.example>",
                "DATA",
            ),
            [
                *("530 5.7.0", "535 5.7.8", "535 5.7.8", "235 2.7.0", "550 5.7.1"),
                *("250 2.1.0", "250 2.1.5", "354 End w"),
            ],
        )
        await client.say("Subject: hello\r\n\r\nBcc: no field\r\n.")
        (message,) = agent.messages
        self.assertIn(" with ESMTPSA id ", received(message))
        self.assertEqual(message.envelope.parameters, {})
        added = message.trace.decode().split("\r\n")[-3:]
        self.assertRegex(added[0], r"^Date: \w{3}, \d")
        self.assertRegex(added[1], rf"^Message-ID: <{message.id}@mx.example>$")
        logged = "\n".join(self.log)
        self.assertIn(" with=ESMTPSA user=ann tls=", logged)
        self.assertIn("127.0.0.1 authenticated as user=ann by PLAIN", logged)
        self.assertIn("127.0.0.1 failed to authenticate as user=nobody by PLAIN", logged)
        # Neither the password nor its encoded form is in the log.
        for secret in (PASSWORD, plain("ann")[11:], "wrong", plain("ann", "wrong")[11:]):
            self.assertNotIn(secret, logged)

    async def test_submission_under_implicit_tls_needs_no_starttls(self) -> None:
        agent = self.submission()
        client = await self.dial(self.port(agent, 1), ClientTLS())
        await client.reply()
        await client.say("EHLO client.example")
        self.assertEqual(await self.codes(client, plain("ann")), ["235 2.7.0"])
        self.assertEqual(await client.mail("far@away.example"), ["250", "250", "354", "250"])

    async def test_auth_on_an_smtp_listener_is_optional_and_lets_the_client_relay(self) -> None:
        agent = self.submission()
        client = await self.session(agent, number=2)
        self.assertEqual(await client.mail("far@away.example"), ["250", "550"])
        self.assertEqual(await self.codes(client, "RSET", plain("ann")), ["250 2.0.0", "235 2.7.0"])
        self.assertEqual(await client.mail("far@away.example"), ["250", "250", "354", "250"])
        self.assertIn(" with ESMTPA id ", received(agent.messages[-1]))
        self.assertIn(b"\r\nMessage-ID: <", agent.messages[-1].trace)

    async def test_addresses_of_accounts_are_existing_mailboxes(self) -> None:
        agent = self.submission(recipients="existing")
        client = await self.session(agent, number=2)
        self.assertEqual(await client.mail("bob@mx.example"), ["250", "550"])
        await client.say("RSET")
        self.assertEqual(await client.mail("Ann+x@mx.example"), ["250", "250", "354", "250"])

    async def test_an_account_has_a_limit_of_recipients_and_messages_an_hour(self) -> None:
        agent = self.agent(
            listener(auth="any", recipients_per_hour=2, messages_per_hour=1), users=self.users
        )
        client = await self.session(agent)
        await client.say(plain("ann"))
        self.assertEqual(await client.mail("far@away.example"), ["250", "250", "354", "250"])
        self.assertEqual(await client.mail("far@away.example"), ["250", "250", "450"])
        await client.say("RSET")
        self.assertEqual(await client.mail("far@away.example"), ["250", "450"])

    async def test_one_account_may_have_limits_of_its_own(self) -> None:
        agent = self.agent(
            listener(auth="any"),
            users=self.users,
            account_limits=AccountLimits(messages_per_hour=100, recipients_per_hour=100),
            limits_of_accounts=(AccountLimit(account="Ann", recipients_per_hour=1),),
        )
        client = await self.session(agent)
        await client.say(plain("ann"))
        self.assertEqual(await client.mail("far@away.example"), ["250", "250", "354", "250"])
        await client.say("MAIL FROM:<ann@mx.example>")
        self.assertEqual(
            await client.say("RCPT TO:<far@away.example>"),
            ["450 4.7.1 Limit of 1 recipient an hour reached, try again in 60 minutes"],
        )


class Reloading(SubmissionTestCase):
    async def test_a_reload_takes_all_accounts_of_a_good_file_or_none_of_a_bad_one(self) -> None:
        agent = self.submission()
        client = await self.session(agent, number=2)
        self.add(Account.of("bob", PASSWORD, secret=secret_octets))
        self.assertEqual(await self.codes(client, plain("bob")), ["535 5.7.8"])
        lines = await agent.reload()
        self.assertEqual(lines, [f"{self.users}: 2 accounts, changed: bob"])
        client = await self.session(agent, number=2)
        self.assertEqual(await self.codes(client, plain("bob")), ["235 2.7.0"])
        with open(self.users, "a", encoding="utf-8") as file:
            file.write(f"eve:{PASSWORD}\n")
        with self.assertRaises(CannotReload) as caught:
            await agent.reload()
        self.assertIn(f"{self.users}: line 3: not an object of JSON", str(caught.exception))
        self.assertNotIn(PASSWORD, str(caught.exception))
        client = await self.session(agent, number=2)
        self.assertEqual(await self.codes(client, plain("bob")), ["235 2.7.0"])

    async def test_a_reload_names_the_first_account_as_changed(self) -> None:
        with changing(self.users) as accounts:
            accounts["ann"] = None
        agent = self.submission()
        await self.session(agent)
        self.add(Account.of("bob", PASSWORD, secret=secret_octets))
        self.assertEqual(await agent.reload(), [f"{self.users}: 1 account, changed: bob"])


class Throttled(SubmissionTestCase):
    async def test_failures_are_limited_by_account_and_by_address(self) -> None:
        agent = self.submission(auth_failures_per_account=3, auth_failures_per_address=6)
        for name, password, code in (
            *(("ann", "wrong", "535 5.7.8"),) * 3,
            ("ann", PASSWORD, "454 4.7.0"),
            *(("bob", "wrong", "535 5.7.8"),) * 3,
            ("carol", "wrong", "454 4.7.0"),
        ):
            client = await self.session(agent, number=2)
            self.assertEqual(await self.codes(client, plain(name, password)), [code])
            self.assertEqual(await self.codes(client, "NOOP"), ["250 2.0.0"])

    async def test_a_session_ends_after_five_failures(self) -> None:
        client = await self.session(self.submission(), number=2)
        replies = await self.codes(client, *[plain("ann", "wrong")] * 5)
        self.assertEqual(replies, ["535 5.7.8"] * 5)
        self.assertEqual((await client.reply())[:9], "421 4.7.0")
        self.assertEqual(await client.reply(), "CLOSED")


class Bound(SubmissionTestCase):
    """SCRAM-SHA-256-PLUS, over real TLS."""

    async def exchange(self, agent: Any, binding: str, octets: bytes | None = None) -> str:
        client = await self.session(agent, ClientTLS())
        if octets is None and binding == "tls-exporter":
            tls = client.transport.getHandle()
            octets = tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        elif octets is None:
            certificate = client.server_certificate
            assert certificate is not None
            assert certificate.signature_hash_algorithm is not None
            octets = certificate.fingerprint(certificate.signature_hash_algorithm)
        first = "n=ann,r=abc"
        (reply,) = await client.say(f"AUTH SCRAM-SHA-256-PLUS {encoded(f'p={binding},,{first}')}")
        if not reply.startswith("334 "):
            return reply[:9]
        server = b64decode(reply[4:]).decode()
        found = re.fullmatch("r=(abc.+),s=(.+),i=([0-9]+)", server)
        assert found is not None
        keys = scram_keys("sha256", PASSWORD, b64decode(found[2]), int(found[3]))
        final = f"c={encoded(f'p={binding},,'.encode() + octets)},r={found[1]}"
        message = ",".join((first, server, final)).encode()
        mask = hmac.digest(keys.stored, message, "sha256")
        proof = bytes(one ^ other for one, other in zip(keys.client, mask, strict=True))
        (reply,) = await client.say(encoded(f"{final},p={encoded(proof)}"))
        if not reply.startswith("334 "):
            return reply[:9]
        signature = hmac.digest(keys.server, message, "sha256")
        self.assertEqual(b64decode(reply[4:]), b"v=" + b64encode(signature))
        (reply,) = await client.say("")
        return reply[:9]

    async def test_scram_plus_is_bound_to_the_connection(self) -> None:
        agent = self.submission()
        self.assertEqual(await self.exchange(agent, "tls-exporter"), "235 2.7.0")
        self.assertEqual(await self.exchange(agent, "tls-server-end-point"), "235 2.7.0")
        self.assertEqual(await self.exchange(agent, "tls-exporter", bytes(32)), "535 5.7.8")
        self.assertEqual(await self.exchange(agent, "tls-unique", bytes(12)), "535 5.7.8")

    async def test_a_client_that_denies_our_channel_binding_is_refused(self) -> None:
        client = await self.session(self.submission(), ClientTLS())
        # RFC 5802 §6: "y" claims that the server did not announce channel binding.
        for flag, reply in (("y", "535 5.7.8"), ("n", "334 ")):
            codes = await self.codes(
                client, f"AUTH SCRAM-SHA-256 {encoded(f'{flag},,n=ann,r=abc')}"
            )
            self.assertTrue(codes[0].startswith(reply[:4].strip()), codes)

    async def test_a_scram_salt_does_not_reveal_whether_an_account_exists(self) -> None:
        client = await self.session(self.submission(), ClientTLS())
        salts = {}
        for name in ("ann", "ANN", "nobody", "NoBody"):
            (reply,) = await client.say(f"AUTH SCRAM-SHA-256 {encoded(f'n,,n={name},r=abc')}")
            salts[name] = b64decode(reply[4:]).decode().split(",")[1]
            await client.say("*")
        # Names match in any case: a salt that differed with the case would reveal a missing
        # account.
        self.assertEqual(salts["ann"], salts["ANN"])
        self.assertEqual(salts["nobody"], salts["NoBody"])
        self.assertNotEqual(salts["ann"], salts["nobody"])


class ByCertificate(SubmissionTestCase):
    async def test_external_needs_a_verified_certificate(self) -> None:
        authority = Authority()
        client_certificate = authority.issue("client.example")
        stranger = Authority().issue("stranger.example")
        path = os.path.join(self.directory, "authority.pem")
        with open(path, "wb") as file:
            file.write(authority.issued.certificate.public_bytes(Encoding.PEM))
        self.add(
            Account.of(
                "printer", None, certificates=[client_certificate.fingerprint], secret=secret_octets
            )
        )
        agent = self.agent(
            listener(
                kind="submission",
                client_certificates="ask",
                client_certificate_authorities=path,
            ),
            users=self.users,
        )
        client = await self.session(agent, ClientTLS(client_certificate))
        (greeting,) = await client.say("EHLO client.example")
        self.assertIn(" EXTERNAL", greeting)
        self.assertEqual(
            await self.codes(
                client, f"AUTH EXTERNAL {encoded('ann')}", f"AUTH EXTERNAL {encoded('printer')}"
            ),
            ["535 5.7.8", "235 2.7.0"],
        )
        client = await self.session(agent, ClientTLS(client_certificate))
        self.assertEqual(await self.codes(client, "AUTH EXTERNAL ="), ["235 2.7.0"])
        for shown in (None, stranger):
            client = await self.session(agent, ClientTLS(shown))
            (greeting,) = await client.say("EHLO client.example")
            self.assertNotIn("EXTERNAL", greeting)
            self.assertEqual(await self.codes(client, "AUTH EXTERNAL ="), ["504 5.5.4"])


class Checkers(SubmissionTestCase):
    async def test_a_strcred_checker_decides_on_auth(self) -> None:
        agent = self.agent(listener(auth="any"), auth="memory:bob:builder")
        client = await self.session(agent)
        (greeting,) = await client.say("EHLO client.example")
        self.assertIn("AUTH SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN", greeting)
        self.assertEqual(
            await self.codes(client, plain("bob", "x"), plain("bob", "builder")),
            ["535 5.7.8", "235 2.7.0"],
        )
        self.assertEqual(
            await self.codes(client, "MAIL FROM:<ann@mx.example>", "MAIL FROM:<bob@mx.example>"),
            ["550 5.7.1", "250 2.1.0"],
        )

    async def test_a_checker_without_a_mechanism_authenticates_no_client(self) -> None:
        agent = self.agent(listener(kind="submission"), auth="anonymous")
        client = await self.session(agent, ClientTLS())
        self.assertEqual(
            await self.codes(client, "AUTH ANONYMOUS eA==", "MAIL FROM:<bob@mx.example>"),
            ["504 5.5.4", "530 5.7.0"],
        )

    def test_an_error_does_not_show_the_argument_of_the_checker(self) -> None:
        config = Config(auth="memory:bob:builder")
        self.assertNotIn("builder", repr(config))
        with self.assertRaises(ConfigError) as caught:
            Config(auth="memry:bob:builder")
        self.assertNotIn("builder", str(caught.exception))
        with self.assertRaises(ConfigError) as caught:
            self.agent(listener(auth="any"), auth="memory:bob")
        self.assertEqual(
            str(caught.exception),
            "auth = memory:...: the checker cannot be made (InvalidAuthArgumentString)",
        )
