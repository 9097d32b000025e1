"""AUTH in a client session (RFC 4954): credentials need TLS, and mail needs their acceptance."""

import hmac
from base64 import b64encode

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.mail.message import Message
from twisted_mta.mail.tls_policy import TLSLevel
from twisted_mta.smtp.client.auth import RESPONSE_LIMIT
from twisted_mta.smtp.client.reply_reader import CHALLENGE_LIMIT
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import Close, Derive, Ready
from twisted_mta.smtp.sasl import client
from twisted_mta.smtp.sasl.client import Credentials, TokenCredentials

from ..player import FACTS, NONCE, Player, message

USER = Credentials("user", "pencil")
TOKEN = TokenCredentials("user@example.com", "abc")
BEARER = b64encode(b"n,a=user@example.com,\1auth=Bearer abc\1\1").decode()
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
    credentials: Credentials | TokenCredentials = USER,
    messages: tuple[Message, ...] = (),
    at_a_time: int = 0,
) -> Player:
    """Return a session under TLS that has read the second reply to EHLO."""
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
    assert player.sent == "EHLO client.example\r\n", player.sent
    player.sent = ""
    player.receive(
        "".join(f"250-{each}\r\n" for each in ("mx.example", *extensions)).encode() + b"250 X\r\n"
    )
    return player


class MechanismTests(TidyTestCase):
    """The strongest mechanism in common is used, with its whole exchange."""

    def test_scram_sha_256_ends_with_the_proof_of_the_server(self) -> None:
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

    def test_the_strongest_mechanism_in_common_is_tried_first(self) -> None:
        for offered, sent in (
            ("LOGIN PLAIN CRAM-MD5 SCRAM-SHA-1", "AUTH SCRAM-SHA-1 "),
            ("LOGIN PLAIN CRAM-MD5", "AUTH CRAM-MD5\r\n"),
            ("login plain", f"AUTH PLAIN {PLAIN}\r\n"),
            ("LOGIN", "AUTH LOGIN\r\n"),
        ):
            player = opened(f"AUTH {offered}")
            self.assertEqual(player.sent[: len(sent)], sent)

    def test_plain_goes_with_the_command(self) -> None:
        opened("AUTH PLAIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 235 Known
            C: MAIL FROM:<a@client.example>
        """)

    def test_a_token_goes_by_a_mechanism_for_tokens_alone(self) -> None:
        player = opened("AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER", credentials=TOKEN).play(f"""
            C: AUTH OAUTHBEARER {BEARER}
            S: 235 2.7.0 Welcome
            C: MAIL FROM:<a@client.example>
        """)
        self.assertIn(Ready(), player.steps)
        player = opened("AUTH PLAIN LOGIN", credentials=TOKEN)
        self.assertIn("no mechanism that we can use: PLAIN LOGIN", player.unusable.reply.text)

    def test_a_refused_token_is_answered_before_the_refusal_ends_auth(self) -> None:
        """RFC 7628 §3.2.3."""
        player = opened("AUTH OAUTHBEARER", credentials=TOKEN).play(f"""
            C: AUTH OAUTHBEARER {BEARER}
            S: 334 eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0=
            C: AQ==
            S: 535 5.7.8 no
            C: QUIT
        """)
        self.assertEqual(str(player.unusable.reply), "535 5.7.8 no")
        self.assertTrue(player.unusable.credentials_refused and player.unusable.temporary)

    def test_success_after_a_refused_token_is_not_believed(self) -> None:
        player = opened("AUTH OAUTHBEARER", credentials=TOKEN).play(f"""
            C: AUTH OAUTHBEARER {BEARER}
            S: 334 e30=
            C: AQ==
            S: 235 2.7.0 Welcome
            C: QUIT
        """)
        self.assertIn("before the exchange was complete", player.unusable.reply.text)

    def test_an_initial_response_too_long_for_the_command_answers_a_challenge(self) -> None:
        """RFC 4954 §4: a success before it was sent is not believed."""
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

    def test_an_auth_command_has_at_most_512_octets(self) -> None:
        """RFC 5321 §4.5.3.1.4."""
        for length in range(340, 380):
            sent = opened("AUTH PLAIN", credentials=Credentials("user", "x" * length)).sent
            whole = len(b64encode(b"\0user\0" + b"x" * length)) + len("AUTH PLAIN \r\n")
            self.assertEqual(len(sent), whole if whole <= 512 else len("AUTH PLAIN\r\n"))

    def test_login_answers_two_challenges_of_any_text(self) -> None:
        opened("AUTH LOGIN").play("""
            C: AUTH LOGIN
            S: 334 VXNlcm5hbWU6
            C: dXNlcg==
            S: 334
            C: cGVuY2ls
            S: 235 Known
            C: MAIL FROM:<a@client.example>
        """)

    def test_auth_is_sent_once_for_a_connection(self) -> None:
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

    def test_auth_follows_lhlo_in_lmtp(self) -> None:
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


class NeverInClearTests(TidyTestCase):
    """Without TLS no credentials and no mail are sent, whatever the level of TLS."""

    levels: tuple[TLSLevel, ...] = ("none", "may", "encrypt")

    def assert_deferred(self, player: Player, reason: str) -> None:
        self.assertEqual(player.unusable.reply.code, 454)
        self.assertIn(reason, player.unusable.reply.text)
        self.assertIn("never sent in clear", player.unusable.reply.text)
        self.assertFalse(player.unusable.clear_retry)

    def test_mail_is_deferred_where_starttls_is_not_offered(self) -> None:
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

    def test_mail_is_deferred_where_starttls_is_refused(self) -> None:
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
            self.assertEqual(str(player.unusable.reply), "454 4.7.0 Not now")
            self.assertEqual(player.unusable.remote, "mx[192.0.2.1]:25")
            self.assertFalse(player.unusable.clear_retry)

    def test_after_a_failed_handshake_there_is_no_attempt_in_clear(self) -> None:
        """C8 of RFC 3207 §6: without credentials there is."""
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

    def test_mechanisms_offered_in_clear_are_forgotten(self) -> None:
        """RFC 3207 §4.2: AUTH counts only from the second reply to EHLO."""
        player = opened("SIZE").play("C: QUIT")
        self.assertIn("AUTH is not offered", player.unusable.reply.text)


class RefusalTests(TidyTestCase):
    """A refusal of our credentials is a matter for the operator, so the mail is deferred."""

    def assert_deferred(self, player: Player, reply: str) -> None:
        self.assertIn(reply, str(player.unusable.reply))
        self.assertTrue(player.unusable.reply.code < 500 or player.unusable.temporary)
        self.assertGreaterEqual(player.unusable.reply.code, 400)
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

    def test_a_permanent_refusal_of_the_credentials_defers_and_is_kept_as_it_was_said(self) -> None:
        """RFC 4954 §6: 535 and all other 5yz."""
        for reply in ("535 5.7.8 Wrong", "530 5.7.0 No", "538 5.7.11 No", "500 5.5.6 Too long"):
            player = self.refused(reply)
            self.assert_deferred(player, reply)
            self.assertEqual(str(player.unusable.reply), reply)
            self.assertTrue(player.unusable.credentials_refused)
            self.assertEqual(player.unusable.remote, "mx[192.0.2.1]:25")
            self.assertEqual(player.steps[-1], Close())

    def test_a_temporary_failure_is_not_a_refusal_of_the_credentials(self) -> None:
        """RFC 4954 §6: 454 and 432 are about the state of the server."""
        for reply in ("454 4.7.0 Database down", "432 4.7.12 Change it"):
            player = self.refused(reply)
            self.assert_deferred(player, reply)
            self.assertFalse(player.unusable.credentials_refused)
            self.assertEqual(player.unusable.remote, "mx[192.0.2.1]:25")

    def test_a_refusal_without_an_end_defers(self) -> None:
        """It is not about the message, so it is never permanent."""
        for octets in (b"535 5.7.8 " + b"x" * 13_000, b"535-5.7.8 no\r\n" * 100):
            player = opened("AUTH PLAIN")
            player.receive(octets)
            self.assert_deferred(player, "does not end")

    def test_a_refusal_counts_and_not_the_421_that_follows(self) -> None:
        player = opened("AUTH PLAIN")
        player.receive(b"535 5.7.8 Wrong\r\n421 4.7.0 Too many errors\r\n")
        self.assert_deferred(player, "535 5.7.8 Wrong")
        self.assertTrue(player.unusable.credentials_refused)
        self.assertEqual(player.steps[-1], Close(abort=True))

    def test_421_in_reply_to_auth_ends_the_session(self) -> None:
        player = opened("AUTH PLAIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 421 4.3.2 Going down
        """)
        self.assert_deferred(player, "421 4.3.2 Going down")
        self.assertEqual(player.steps[-1], Close())

    def test_after_504_and_534_the_next_mechanism_is_tried_and_none_twice(self) -> None:
        """RFC 4954 §4, §6: these refuse the mechanism, and not the credentials."""
        player = opened("AUTH PLAIN SCRAM-SHA-256 LOGIN").play(f"""
            C: AUTH SCRAM-SHA-256 {SCRAM_FIRST}
            S: 504 5.5.4 Not this one
            C: AUTH PLAIN {PLAIN}
            S: 534 5.7.9 Too weak
            C: AUTH LOGIN
            S: 504 5.5.4 Nor this one
            C: QUIT
        """)
        self.assert_deferred(player, "504 5.5.4 Nor this one")
        self.assertEqual(player.unusable.remote, "mx[192.0.2.1]:25")

    def test_a_refused_password_is_not_tried_again(self) -> None:
        """Every failure may count against the account."""
        opened("AUTH PLAIN LOGIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 535 5.7.8 Wrong
            C: QUIT
        """)

    def test_without_a_mechanism_in_common_mail_is_deferred(self) -> None:
        for offered in ("AUTH", "AUTH GSSAPI NTLM\x1b[2J", "AUTH=NTLM", "AUTH SCRAM-SHA-256-PLUS"):
            player = opened(offered).play("C: QUIT")
            self.assert_deferred(player, "454 4.7.8")
            self.assertIn("AUTH is", player.unusable.reply.text)

    def test_auth_announced_with_an_equals_sign_is_understood(self) -> None:
        """Servers write ``AUTH=`` for old clients, beside ``AUTH`` or alone."""
        for offered in (
            "AUTH=PLAIN",
            "auth=plain",
            "AUTH=LOGIN PLAIN",
            "AUTH PLAIN\r\n250-AUTH=LOGIN",
            "AUTH=LOGIN\r\n250-AUTH PLAIN",
            "AUTH LOGIN\r\n250-AUTH PLAIN",
            "AUTH\tLOGIN PLAIN",
            " AUTH  PLAIN ",
        ):
            player = opened(offered)
            self.assertTrue(player.sent.startswith("AUTH PLAIN "), offered)

    def test_credentials_that_a_mechanism_cannot_carry_are_not_sent(self) -> None:
        player = opened("AUTH SCRAM-SHA-256", credentials=Credentials("user", "pencil\x07"))
        self.assertEqual(player.sent, "QUIT\r\n")
        self.assert_deferred(player, "cannot be used")

    def test_success_without_the_proof_of_the_server_is_not_believed(self) -> None:
        """RFC 5802 §5."""
        for turns in range(2):
            player = opened("AUTH SCRAM-SHA-256")
            for challenge in (SCRAM_CHALLENGE,)[:turns]:
                player.receive(f"334 {challenge}\r\n".encode())
            player.sent = ""
            player.receive(b"235 2.7.0 Welcome\r\n")
            self.assertEqual(player.sent, "QUIT\r\n")
            self.assert_deferred(player, "before the exchange was complete")

    def test_many_iterations_become_a_derivation_for_a_thread(self) -> None:
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
            self.assertEqual(player.sent, "")

    def test_after_a_false_proof_of_the_server_the_exchange_is_cancelled(self) -> None:
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

    def test_after_a_malformed_challenge_the_exchange_is_cancelled(self) -> None:
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

    def test_after_a_challenge_too_many_the_exchange_is_cancelled(self) -> None:
        player = opened("AUTH PLAIN").play(f"""
            C: AUTH PLAIN {PLAIN}
            S: 334
            C: *
        """)
        self.assert_deferred(player, "PLAIN has no challenge")

    def test_codes_that_rfc_4954_does_not_know_defer_with_words_of_our_own(self) -> None:
        """A ``2yz`` kept as the outcome would mean that the message was delivered."""
        for reply in ("250 Ok", "220 Ready", "354 Go on", "235 "):
            player = opened("AUTH LOGIN").play(f"""
                C: AUTH LOGIN
                S: {reply}
                C: QUIT
            """)
            self.assert_deferred(player, "454 4.7.8")
            self.assertIsNone(player.unusable.remote)

    def test_a_connection_that_ends_during_auth_defers(self) -> None:
        player = opened("AUTH PLAIN").play(f"C: AUTH PLAIN {PLAIN}")
        self.assertEqual(player.session.deadline, 300.0)
        player.take(player.session.connection_lost("reset"))
        self.assert_deferred(player, "before the reply to AUTH: reset")
        self.assertEqual(player.steps[-1], Close(abort=True))


class LimitTests(TidyTestCase):
    """RFC 4954 §4: a challenge may have 12,288 octets; other replies keep their limits."""

    def test_a_challenge_of_12288_octets_is_answered(self) -> None:
        challenge = b"x" * (CHALLENGE_LIMIT // 4 * 3)
        player = opened("AUTH CRAM-MD5", at_a_time=1000)
        player.sent = ""
        player.receive(b"334 " + b64encode(challenge) + b"\r\n")
        digest = hmac.new(b"pencil", challenge, "md5").hexdigest()
        self.assertEqual(player.sent, b64encode(f"user {digest}".encode()).decode() + "\r\n")

    def test_a_longer_challenge_ends_the_session(self) -> None:
        for end in (b"", b"\r\n"):
            player = opened("AUTH CRAM-MD5")
            player.receive(b"334 " + b"x" * (CHALLENGE_LIMIT + 1) + end)
            self.assertEqual(player.steps[-1], Close(abort=True))
            self.assertIn("does not end", player.unusable.reply.text)

    def test_the_longer_limit_holds_only_while_a_challenge_is_due(self) -> None:
        """Other replies have 512 octets of text, and lines of at most 4,096."""
        player = opened("AUTH PLAIN")
        player.receive(b"535 5.7.8 " + b"x" * 8000 + b"\r\n")
        self.assertLess(len(player.unusable.reply.text), 700)
        player = opened("AUTH PLAIN")
        player.receive(b"235 Known\r\n")
        player.receive(b"250 " + b"x" * 5000)
        self.assertTrue(player.session.closed)

    def test_a_response_over_the_limit_cancels_the_exchange(self) -> None:
        player = opened("AUTH LOGIN", credentials=Credentials("u" * RESPONSE_LIMIT, "x"))
        player.sent = ""
        player.receive(b"334\r\n")
        self.assertEqual(player.sent, "*\r\n")


class SecretTests(TidyTestCase):
    """Lines of AUTH are marked as secret, and replies that repeat a secret are not shown."""

    def test_lines_of_auth_are_marked_as_secret_and_no_others(self) -> None:
        session = ClientSession(helo="x", remote="mx", tls="encrypt", credentials=USER)

        def sent(octets: bytes) -> tuple[bool, bytes]:
            session.receive(octets)
            return session.secret, session.output()

        self.assertEqual(sent(b"220 mx\r\n"), (False, b"EHLO x\r\n"))
        self.assertEqual(sent(b"250-mx\r\n250 STARTTLS\r\n"), (False, b"STARTTLS\r\n"))
        session.receive(b"220 Go\r\n")
        session.handshake_completed(FACTS)
        self.assertEqual((session.secret, session.output()), (False, b"EHLO x\r\n"))
        self.assertEqual(sent(b"250-mx\r\n250 AUTH LOGIN\r\n"), (True, b"AUTH LOGIN\r\n"))
        self.assertEqual(sent(b"334\r\n"), (True, b"dXNlcg==\r\n"))
        self.assertEqual(sent(b"334\r\n"), (True, b"cGVuY2ls\r\n"))
        session.receive(b"235 Known\r\n")
        session.transact(message())
        self.assertEqual(
            (session.secret, session.output()), (False, b"MAIL FROM:<a@client.example>\r\n")
        )

    def test_a_secret_is_dropped_where_the_connection_ends_before_it_is_sent(self) -> None:
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

    def test_a_refusal_that_repeats_a_secret_is_shown_without_its_text(self) -> None:
        for text in ("5.7.8 pencil is wrong", f"Cannot read {PLAIN}", "no\r\n535 pencil"):
            player = opened("AUTH PLAIN")
            player.receive(f"535{'-' if '535' in text else ' '}{text}\r\n".encode())
            self.assertNotIn("pencil", str(player.steps))
            self.assertNotIn(PLAIN, str(player.steps))
            self.assertIn("535", str(player.unusable.reply))
            self.assertIn("repeats a secret", str(player.unusable.reply))

    def test_a_last_reply_that_repeats_a_secret_is_shown_without_its_text(self) -> None:
        for octets in (b"421 pencil\r\n", b"550 pencil " + b"x" * 13_000):
            player = opened("AUTH PLAIN")
            player.receive(octets)
            self.assertTrue(player.session.closed)
            self.assertNotIn("pencil", str(player.steps))

    def test_no_representation_shows_the_password(self) -> None:
        player = opened("AUTH PLAIN")
        self.assertNotIn("pencil", repr(player.session) + repr(evolve(USER, username="x")))
