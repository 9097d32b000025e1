"""A client with credentials (RFC 4954): shown under TLS or never, and nothing sent without them."""

import hmac
from base64 import b64encode

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.message import Message
from twisted_mta.smtp.client.auth import RESPONSE_LIMIT
from twisted_mta.smtp.client.reply_reader import CHALLENGE_LIMIT
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import Close, Derive, Ready, TLSLevel
from twisted_mta.smtp.sasl import client
from twisted_mta.smtp.sasl.client import Credentials

from ..playing import FACTS, NONCE, Player, message

USER = Credentials("user", "pencil")
PLAIN = b64encode(b"\0user\0pencil").decode()
SERVER_NONCE = NONCE + "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SCRAM_FIRST = b64encode(f"n,,n=user,r={NONCE}".encode()).decode()
SCRAM_CHALLENGE = b64encode(f"r={SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()).decode()
SCRAM_PROOF = b64encode(
    f"c=biws,r={SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
).decode()
SCRAM_VERIFIER = b64encode(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").decode()


def opened(
    *extensions: str,
    credentials: Credentials = USER,
    messages: tuple[Message, ...] = (),
    at_a_time: int = 0,
) -> Player:
    """Return a session under TLS that has just heard the second reply to EHLO."""
    player = Player(
        *(messages or (message(),)), tls="encrypt", credentials=credentials, at_a_time=at_a_time
    ).play("""
        S: 220 mx.example ESMTP
        C: EHLO client.example
        S: 250-mx.example
        S: 250-AUTH PLAIN LOGIN
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 Go
    """)
    player.steps.clear()
    player.take(player.session.handshake_completed(FACTS))
    assert player.said == "EHLO client.example\r\n", player.said
    player.said = ""
    player.hear(
        "".join(f"250-{each}\r\n" for each in ("mx.example", *extensions)).encode() + b"250 X\r\n"
    )
    return player


class MechanismTests(SynchronousTestCase):
    """The strongest that is offered, and its whole dialogue."""

    def test_scram_sha_256(self) -> None:
        for at_a_time in (0, 1):
            player = opened(
                "AUTH LOGIN PLAIN SCRAM-SHA-1 SCRAM-SHA-256 CRAM-MD5 GSSAPI", at_a_time=at_a_time
            ).play(f"""
                C: AUTH SCRAM-SHA-256 {SCRAM_FIRST}
                S: 334 {SCRAM_CHALLENGE}
                C: {SCRAM_PROOF}
                S: 334 {SCRAM_VERIFIER}
                C:
                S: 235 2.7.0 Known
                C: MAIL FROM:<a@client.example>
            """)
            self.assertEqual(player.steps, [Ready()])

    def test_the_strongest_comes_first(self) -> None:
        for offered, said in (
            ("LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1", "AUTH SCRAM-SHA-1 "),
            ("LOGIN PLAIN CRAM-MD5", "AUTH CRAM-MD5\r\n"),
            ("login plain", f"AUTH PLAIN {PLAIN}\r\n"),
            ("LOGIN", "AUTH LOGIN\r\n"),
        ):
            player = opened(f"AUTH {offered}")
            self.assertEqual(player.said[: len(said)], said)

    def test_plain(self) -> None:
        opened("AUTH PLAIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 235 Known
            C: MAIL FROM:<a@client.example>
        """)

    def test_an_initial_response_that_is_too_long_for_a_command(self) -> None:
        """RFC 4954 §4: it comes when asked for; only then may the server be content."""
        long = Credentials("user", "x" * 400)
        response = b64encode(b"\0user\0" + b"x" * 400).decode()
        opened("AUTH PLAIN", credentials=long).play(f"""
            C: AUTH PLAIN
            S: 334
            C: {response}
            S: 235 Known
            C: MAIL FROM:<a@client.example>
        """)
        opened("AUTH PLAIN", credentials=long).play("""
            C: AUTH PLAIN
            S: 235 Known
            C: QUIT
        """)

    def test_the_longest_initial_response(self) -> None:
        """RFC 5321 §4.5.3.1.4: 512 octets."""
        for length in range(340, 380):
            said = opened("AUTH PLAIN", credentials=Credentials("user", "x" * length)).said
            whole = len(b64encode(b"\0user\0" + b"x" * length)) + len("AUTH PLAIN \r\n")
            self.assertEqual(len(said), whole if whole <= 512 else len("AUTH PLAIN\r\n"))

    def test_login(self) -> None:
        """Whatever the questions are called."""
        opened("AUTH LOGIN").play("""
            C: AUTH LOGIN
            S: 334 VXNlcm5hbWU6
            C: dXNlcg==
            S: 334
            C: cGVuY2ls
            S: 235 Known
            C: MAIL FROM:<a@client.example>
        """)

    def test_once_for_a_connection(self) -> None:
        player = opened("AUTH PLAIN", messages=(message(), message())).play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 235 Known
            C: MAIL FROM:<a@client.example>
            S: 550 5.7.1 Not you
            C: RSET
            S: 250 Ok
            C: MAIL FROM:<a@client.example>
        """)
        self.assertEqual(player.replies, ["550 5.7.1 Not you"])

    def test_on_lmtp(self) -> None:
        player = Player(message(), credentials=USER, dialect="lmtp", tls="encrypt").play("""
            S: 220 mx.example LMTP
            C: LHLO client.example
            S: 250-mx.example
            S: 250 STARTTLS
            C: STARTTLS
            S: 220 Go
        """)
        player.take(player.session.handshake_completed(FACTS))
        player.play(f"""
            C: LHLO client.example
            S: 250-mx.example
            S: 250 AUTH PLAIN
            C: AUTH PLAIN {PLAIN}
            S: 235 Known
            C: MAIL FROM:<a@client.example>
        """)


class NeverInClearTests(SynchronousTestCase):
    """Without TLS nothing is said of the credentials, and no mail goes, whatever the level."""

    levels: tuple[TLSLevel, ...] = ("none", "may", "encrypt")

    def assert_deferred(self, player: Player, reason: str) -> None:
        self.assertEqual(player.unusable.reply.code, 454)
        self.assertIn(reason, player.unusable.reply.text)
        self.assertIn("never sent in clear", player.unusable.reply.text)
        self.assertFalse(player.unusable.clear_retry)

    def test_starttls_not_offered(self) -> None:
        for level in self.levels:
            for ehlo in (
                "250-mx\n S: 250 AUTH PLAIN",
                "502 What?\n C: HELO client.example\n S: 250",
            ):
                player = Player(message(), tls=level, credentials=USER).play(f"""
                    S: 220 mx.example
                    C: EHLO client.example
                    S: {ehlo}
                    C: QUIT
                    S: 221 Bye
                """)
                self.assert_deferred(player, "STARTTLS is not offered")
                self.assertEqual(player.steps[-1], Close())

    def test_starttls_refused(self) -> None:
        for level in self.levels[1:]:
            player = Player(message(), tls=level, credentials=USER).play("""
                S: 220 mx.example
                C: EHLO client.example
                S: 250-mx.example
                S: 250-AUTH PLAIN
                S: 250 STARTTLS
                C: STARTTLS
                S: 454 4.7.0 Not now
                C: QUIT
            """)
            self.assert_deferred(player, "Not now")

    def test_a_failed_handshake_is_not_worth_a_retry_in_clear(self) -> None:
        """C8 of RFC 3207 §6: without credentials it would be."""
        for stop in (ClientSession.timed_out, lambda session: session.connection_lost("alert")):
            player = Player(message(), tls="may", credentials=USER).play("""
                S: 220 mx.example
                C: EHLO client.example
                S: 250-mx.example
                S: 250 STARTTLS
                C: STARTTLS
                S: 220 Go
            """)
            player.take(stop(player.session))
            self.assertFalse(player.unusable.clear_retry)

    def test_what_was_offered_in_clear_is_forgotten(self) -> None:
        """RFC 3207 §4.2: AUTH only from the second reply to EHLO."""
        player = opened("SIZE").play("C: QUIT")
        self.assertIn("AUTH is not offered", player.unusable.reply.text)


class RefusalTests(SynchronousTestCase):
    """A server that will not know us: for the operator to mend, so the mail waits."""

    def assert_deferred(self, player: Player, reply: str) -> None:
        self.assertIn(reply, str(player.unusable.reply))
        self.assertEqual(player.unusable.reply.code // 100, 4)
        self.assertEqual(player.unusable.tls, FACTS)
        self.assertFalse(player.session.idle)
        self.assertNotIn("pencil", str(player.steps))
        self.assertNotIn(PLAIN, str(player.steps))

    def refused(self, *replies: str) -> Player:
        dialogue = "\n".join(f"S: {reply}" for reply in replies)
        return opened("AUTH PLAIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            {dialogue}
            C: QUIT
            S: 221 Bye
        """)

    def test_for_good(self) -> None:
        """RFC 4954 §6: 535 and all other 5yz."""
        for reply in ("535 5.7.8 Wrong", "530 5.7.0 No", "538 5.7.11 No", "500 5.5.6 Too long"):
            player = self.refused(reply)
            self.assert_deferred(
                player, f"454 4.7.8 mx[192.0.2.1]:25: our credentials were refused: {reply}"
            )
            self.assertTrue(player.unusable.credentials_refused)
            self.assertIsNone(player.unusable.remote)
            self.assertEqual(player.steps[-1], Close())

    def test_for_now(self) -> None:
        """RFC 4954 §6: 454 and 432 are the server's own trouble."""
        for reply in ("454 4.7.0 Database down", "432 4.7.12 Change it"):
            player = self.refused(reply)
            self.assert_deferred(player, reply)
            self.assertFalse(player.unusable.credentials_refused)
            self.assertEqual(player.unusable.remote, "mx[192.0.2.1]:25")

    def test_without_end(self) -> None:
        """Of what is not about the message, not even a refusal is for good."""
        for octets in (b"535 5.7.8 " + b"x" * 13_000, b"535-5.7.8 no\r\n" * 100):
            player = opened("AUTH PLAIN")
            player.hear(octets)
            self.assert_deferred(player, "does not end")

    def test_refused_and_closed_in_one_piece(self) -> None:
        """The first word counts, not that the server has had enough of us."""
        player = opened("AUTH PLAIN")
        player.hear(b"535 5.7.8 Wrong\r\n421 4.7.0 Too many errors\r\n")
        self.assert_deferred(player, "535 5.7.8 Wrong")
        self.assertTrue(player.unusable.credentials_refused)
        self.assertEqual(player.steps[-1], Close(abort=True))

    def test_closing_down(self) -> None:
        player = opened("AUTH PLAIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 421 4.3.2 Going down
        """)
        self.assert_deferred(player, "421 4.3.2 Going down")
        self.assertEqual(player.steps[-1], Close())

    def test_a_mechanism_that_is_offered_and_not_known(self) -> None:
        """504 and 534 are of the mechanism: the next one is tried, none twice."""
        player = opened("AUTH PLAIN SCRAM-SHA-256 LOGIN").play(f"""
            C: AUTH SCRAM-SHA-256 {SCRAM_FIRST}
            S: 504 5.5.4 Not this one
            C: AUTH PLAIN {PLAIN}
            S: 534 5.7.9 Too weak
            C: AUTH LOGIN
            S: 504 5.5.4 Nor this one
            C: QUIT
        """)
        self.assert_deferred(player, "Nor this one")

    def test_the_password_is_tried_once(self) -> None:
        """Every failure counts against an account."""
        opened("AUTH PLAIN LOGIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 535 5.7.8 Wrong
            C: QUIT
        """)

    def test_no_mechanism_in_common(self) -> None:
        for offered in ("AUTH", "AUTH GSSAPI NTLM\x1b[2J", "AUTH=PLAIN", "AUTH SCRAM-SHA-256-PLUS"):
            player = opened(offered).play("C: QUIT")
            self.assert_deferred(player, "454 4.7.8")
            self.assertIn("AUTH is", player.unusable.reply.text)

    def test_credentials_that_cannot_be_used(self) -> None:
        player = opened("AUTH SCRAM-SHA-256", credentials=Credentials("user", "pencil\x07"))
        self.assertEqual(player.said, "QUIT\r\n")
        self.assert_deferred(player, "cannot be used")

    def test_yes_without_a_proof(self) -> None:
        """RFC 5802 §5: a server that skips its part is not believed, at any point."""
        for turns in range(2):
            player = opened("AUTH SCRAM-SHA-256")
            for challenge in (SCRAM_CHALLENGE,)[:turns]:
                player.hear(f"334 {challenge}\r\n".encode())
            player.said = ""
            player.hear(b"235 2.7.0 Welcome\r\n")
            self.assertEqual(player.said, "QUIT\r\n")
            self.assert_deferred(player, "before the exchange was complete")

    def test_many_iterations_are_for_a_thread(self) -> None:
        self.patch(client, "_AT_ONCE", 4095)
        for ends in (False, True):
            player = opened("AUTH SCRAM-SHA-256").play(f"""
                C: AUTH SCRAM-SHA-256 {SCRAM_FIRST}
                S: 334 {SCRAM_CHALLENGE}
            """)
            [step] = player.steps
            assert isinstance(step, Derive)
            player.steps.clear()
            if ends:
                player.take(player.session.connection_lost("reset"))
            player.take(player.session.derived(step.respond()))
            if not ends:
                player.play(f"""
                    C: {SCRAM_PROOF}
                    S: 334 {SCRAM_VERIFIER}
                    C:
                    S: 235 2.7.0 Known
                    C: MAIL FROM:<a@client.example>
                """)
            self.assertEqual(player.said, "")

    def test_a_false_proof(self) -> None:
        """The exchange is cancelled, and nothing of the message said."""
        player = opened("AUTH SCRAM-SHA-256").play(f"""
            C: AUTH SCRAM-SHA-256 {SCRAM_FIRST}
            S: 334 {SCRAM_CHALLENGE}
            C: {SCRAM_PROOF}
            S: 334 {b64encode(b"v=" + b64encode(bytes(32))).decode()}
            C: *
            S: 501 5.7.0 As you like
            C: QUIT
        """)
        self.assert_deferred(player, "does not have the keys of the password")

    def test_challenges_that_are_none(self) -> None:
        for challenge in (
            "334 ???",
            "334 \u00e9",
            "334-YQ==\n S: 334 YQ==",
            "334 YQ",
            "334 YQ== x",
        ):
            player = opened("AUTH LOGIN").play(f"""
                C: AUTH LOGIN
                S: {challenge}
                C: *
                S: 501 5.7.0 As you like
                C: QUIT
            """)
            self.assert_deferred(player, "AUTH was broken off")
            self.assertEqual(player.session.deadline, 5.0)

    def test_a_challenge_too_many(self) -> None:
        player = opened("AUTH PLAIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 334
            C: *
        """)
        self.assert_deferred(player, "PLAIN has no challenge")

    def test_codes_that_are_no_answer(self) -> None:
        for reply in ("250 Ok", "220 Ready", "354 Go on", "235 "):
            player = opened("AUTH LOGIN").play(f"""
                C: AUTH LOGIN
                S: {reply}
                C: QUIT
            """)
            self.assert_deferred(player, "454 4.7.8")

    def test_the_end_of_the_connection(self) -> None:
        player = opened("AUTH PLAIN").play(f"C: AUTH PLAIN {PLAIN}")
        self.assertEqual(player.session.deadline, 300.0)
        player.take(player.session.connection_lost("reset"))
        self.assert_deferred(player, "before the reply to AUTH: reset")
        self.assertEqual(player.steps[-1], Close(abort=True))


class LimitTests(SynchronousTestCase):
    """RFC 4954 §4: 12,288 octets of challenge, and no more of anything else."""

    def test_the_longest_challenge(self) -> None:
        challenge = b"x" * (CHALLENGE_LIMIT // 4 * 3)
        player = opened("AUTH CRAM-MD5", at_a_time=1000)
        player.said = ""
        player.hear(b"334 " + b64encode(challenge) + b"\r\n")
        digest = hmac.new(b"pencil", challenge, "md5").hexdigest()
        self.assertEqual(player.said, b64encode(f"user {digest}".encode()).decode() + "\r\n")

    def test_a_longer_one(self) -> None:
        for end in (b"", b"\r\n"):
            player = opened("AUTH CRAM-MD5")
            player.hear(b"334 " + b"x" * (CHALLENGE_LIMIT + 1) + end)
            self.assertEqual(player.steps[-1], Close(abort=True))
            self.assertIn("does not end", player.unusable.reply.text)

    def test_only_while_a_challenge_is_due(self) -> None:
        """Other replies keep to 512 octets of text, and lines to 4,096."""
        player = opened("AUTH PLAIN")
        player.hear(b"535 5.7.8 " + b"x" * 8000 + b"\r\n")
        self.assertLess(len(player.unusable.reply.text), 700)
        player = opened("AUTH PLAIN")
        player.hear(b"235 Known\r\n")
        player.hear(b"250 " + b"x" * 5000)
        self.assertTrue(player.session.closed)

    def test_a_response_that_would_be_too_long(self) -> None:
        player = opened("AUTH LOGIN", credentials=Credentials("u" * RESPONSE_LIMIT, "x"))
        player.said = ""
        player.hear(b"334\r\n")
        self.assertEqual(player.said, "*\r\n")


class SecretTests(SynchronousTestCase):
    """What is said is marked, and what the server repeats of it is not passed on."""

    def test_lines_that_are_secret(self) -> None:
        session = ClientSession(helo="x", remote="mx", tls="encrypt", credentials=USER)

        def said(octets: bytes) -> tuple[bool, bytes]:
            session.receive(octets)
            return session.secret, session.output()

        self.assertEqual(said(b"220 mx\r\n"), (False, b"EHLO x\r\n"))
        self.assertEqual(said(b"250-mx\r\n250 STARTTLS\r\n"), (False, b"STARTTLS\r\n"))
        session.receive(b"220 Go\r\n")
        session.handshake_completed(FACTS)
        self.assertEqual((session.secret, session.output()), (False, b"EHLO x\r\n"))
        self.assertEqual(said(b"250-mx\r\n250 AUTH LOGIN\r\n"), (True, b"AUTH LOGIN\r\n"))
        self.assertEqual(said(b"334\r\n"), (True, b"dXNlcg==\r\n"))
        self.assertEqual(said(b"334\r\n"), (True, b"cGVuY2ls\r\n"))
        session.receive(b"235 Known\r\n")
        session.transact(message())
        self.assertEqual(
            (session.secret, session.output()), (False, b"MAIL FROM:<a@client.example>\r\n")
        )

    def test_the_connection_ends_before_it_was_said(self) -> None:
        session = ClientSession(
            helo="x", remote="mx", tls="encrypt", implicit_tls=True, credentials=USER
        )
        session.handshake_completed(FACTS)
        session.receive(b"220 mx\r\n")
        session.output()
        session.receive(b"250-mx\r\n250 AUTH PLAIN\r\n")
        self.assertTrue(session.secret)
        session.connection_lost("reset")
        self.assertEqual((session.secret, session.output()), (False, b""))

    def test_a_server_that_repeats_it(self) -> None:
        for text in ("5.7.8 pencil is wrong", f"Cannot read {PLAIN}", "no\r\n535 pencil"):
            player = opened("AUTH PLAIN")
            player.hear(f"535{'-' if '535' in text else ' '}{text}\r\n".encode())
            self.assertNotIn("pencil", str(player.steps))
            self.assertNotIn(PLAIN, str(player.steps))
            self.assertIn("535", str(player.unusable.reply))
            self.assertIn("repeats a secret", str(player.unusable.reply))

    def test_a_server_that_repeats_it_as_it_goes(self) -> None:
        for octets in (b"421 pencil\r\n", b"550 pencil " + b"x" * 13_000):
            player = opened("AUTH PLAIN")
            player.hear(octets)
            self.assertTrue(player.session.closed)
            self.assertNotIn("pencil", str(player.steps))

    def test_nothing_shows_the_password(self) -> None:
        player = opened("AUTH PLAIN")
        self.assertNotIn("pencil", repr(player.session) + repr(evolve(USER, username="x")))
