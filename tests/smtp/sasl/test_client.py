"""The SASL mechanisms of a client: the examples of their standards, and servers that cheat."""

from base64 import b64decode, b64encode

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.smtp.sasl.client import (
    CLIENT_MECHANISMS,
    TOKEN_MECHANISMS,
    ClientMechanism,
    Credentials,
    ScramClient,
    TokenCredentials,
    client_mechanism,
)
from twisted_mta.smtp.sasl.exchange import SASLError
from twisted_mta.smtp.sasl.saslprep import prepared
from twisted_mta.smtp.sasl.scram import scram_keys

USER = Credentials("user", "pencil")
NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = NONCE + "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = f"r={SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


class CredentialsTests(SynchronousTestCase):
    def test_the_representation_hides_the_password(self) -> None:
        self.assertEqual(repr(USER), "Credentials(username='user')")

    def test_empty_values_and_nul_are_refused(self) -> None:
        for username, password in (("", "x"), ("x", ""), ("a\0b", "x"), ("x", "a\0b")):
            with self.assertRaises(ValueError) as raised:
                Credentials(username, password)
            self.assertNotIn("a\0b", str(raised.exception))


class ExampleTests(SynchronousTestCase):
    """The exchanges that the standards print."""

    def mechanism(
        self, name: str, credentials: Credentials | TokenCredentials = USER
    ) -> ClientMechanism:
        made = client_mechanism(name, credentials, lambda: NONCE)
        assert made is not None
        return made

    def test_scram_sha_256_matches_its_example(self) -> None:
        """RFC 7677 §3."""
        scram = self.mechanism("SCRAM-SHA-256")
        self.assertEqual(scram.initial(), f"n,,n=user,r={NONCE}".encode())
        self.assertEqual(
            scram.respond(SERVER_FIRST),
            f"c=biws,r={SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode(),
        )
        self.assertFalse(scram.complete)
        self.assertEqual(scram.respond(SERVER_FINAL), b"")
        self.assertTrue(scram.complete)

    def test_scram_sha_1_matches_its_example(self) -> None:
        """RFC 5802 §5."""
        scram = ScramClient(USER, "fyko+d2lbbFgONRv9qkxdawL", "sha1")
        self.assertEqual(scram.initial(), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL")
        self.assertEqual(
            scram.respond(
                b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"
            ),
            b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        )
        self.assertEqual(scram.respond(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), b"")
        self.assertTrue(scram.complete)

    def test_cram_md5_matches_its_example(self) -> None:
        """RFC 2195 §2."""
        cram = self.mechanism("CRAM-MD5", Credentials("tim", "tanstaaftanstaaf"))
        self.assertIsNone(cram.initial())
        self.assertFalse(cram.complete)
        self.assertEqual(
            cram.respond(b"<1896.697170952@postoffice.reston.mci.net>"),
            b"tim b913a602c7eda7a495b4e6e7334d3890",
        )
        self.assertTrue(cram.complete)
        self.assertRaises(SASLError, cram.respond, b"<again@example>")

    def test_plain_has_no_authorization_identity_and_is_utf_8(self) -> None:
        """RFC 4616 §4."""
        plain = self.mechanism("PLAIN", Credentials("tim", "t\u00e4ns"))
        self.assertEqual(plain.initial(), b"\0tim\0t\xc3\xa4ns")
        self.assertTrue(plain.complete)
        self.assertRaises(SASLError, plain.respond, b"")

    def test_login_sends_user_name_and_password(self) -> None:
        login = self.mechanism("LOGIN")
        self.assertIsNone(login.initial())
        self.assertEqual(login.respond(b"Username:"), b"user")
        self.assertFalse(login.complete)
        self.assertEqual(login.respond(b"whatever"), b"pencil")
        self.assertTrue(login.complete)
        self.assertRaises(SASLError, login.respond, b"Password:")

    def test_oauthbearer_matches_its_example(self) -> None:
        """RFC 7628 §4.1, without host and port, which are not required (§3.1)."""
        token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
        bearer = self.mechanism("OAUTHBEARER", TokenCredentials("user@example.com", token))
        self.assertEqual(
            bearer.initial(), f"n,a=user@example.com,\1auth=Bearer {token}\1\1".encode()
        )
        self.assertTrue(bearer.complete)

    def test_a_refused_token_is_answered_and_counts_as_refused(self) -> None:
        """RFC 7628 §3.2.3, §4.3; XOAUTH2 wants an empty response."""
        for name, answer in (("OAUTHBEARER", b"\1"), ("XOAUTH2", b"")):
            mechanism = self.mechanism(name, TokenCredentials("user@example.com", "abc"))
            mechanism.initial()
            self.assertEqual(mechanism.respond(b'{"status":"invalid_token"}'), answer)
            self.assertFalse(mechanism.complete)
            self.assertRaises(SASLError, mechanism.respond, b"{}")

    def test_the_separators_of_a_user_name_are_escaped(self) -> None:
        bearer = self.mechanism("OAUTHBEARER", TokenCredentials("a=b,c", "abc"))
        self.assertEqual(bearer.initial(), b"n,a=a=3Db=2Cc,\1auth=Bearer abc\1\1")

    def test_xoauth2_has_user_and_token(self) -> None:
        xoauth2 = self.mechanism("XOAUTH2", TokenCredentials("user@example.com", "abc"))
        self.assertEqual(xoauth2.initial(), b"user=user@example.com\1auth=Bearer abc\1\1")

    def test_a_token_is_never_used_as_a_password_nor_a_password_as_a_token(self) -> None:
        tokens = TokenCredentials("user", "abc")
        for credentials, names in ((tokens, CLIENT_MECHANISMS), (USER, TOKEN_MECHANISMS)):
            made = [client_mechanism(name, credentials, lambda: NONCE) for name in names]
            self.assertEqual(made, [None] * len(names))

    def test_what_is_no_token_is_refused_without_showing_it(self) -> None:
        for username, token in (("", "x"), ("a\1b", "x"), ("x", ""), ("x", "a b"), ("x", "a\1b")):
            with self.assertRaises(ValueError) as raised:
                TokenCredentials(username, token)
            self.assertNotIn("a\1b", str(raised.exception))
        self.assertNotIn("abc", repr(TokenCredentials("user", "abc")))

    def test_there_is_no_scram_without_a_nonce(self) -> None:
        made = [client_mechanism(name, USER, None) is not None for name in CLIENT_MECHANISMS]
        self.assertEqual(made, [False, False, True, True, True])


class ScramTests(SynchronousTestCase):
    """Attacks by servers (RFC 5802 §5, §9)."""

    def scram(self, credentials: Credentials = USER) -> ScramClient:
        return ScramClient(credentials, NONCE, "sha256")

    def test_malformed_first_messages_and_too_few_or_many_iterations_are_refused(self) -> None:
        first = SERVER_FIRST.decode()
        for message, reason in (
            ("", "cannot be read"),
            ("e=other-error", "cannot be read"),
            (f"m=must-know,{first}", "cannot be read"),
            (f"{first}x", "cannot be read"),
            (first.replace("s=", "s=="), "cannot be read"),
            (first.replace("W22Z", "W2Z"), "base64"),
            (first.replace("i=4096", "i=0"), "cannot be read"),
            (first.replace("i=4096", "i=-4096"), "cannot be read"),
            (first.replace("i=4096", "i=1"), "1 iterations"),
            (first.replace("i=4096", "i=4095"), "4095 iterations"),
            (first.replace("i=4096", "i=999999999"), "999999999 iterations"),
            (first.replace("i=4096", "i=9999999999999"), "cannot be read"),
            (first.replace(NONCE, NONCE[:-1] + "x"), "nonce"),
            (first.replace(SERVER_NONCE, NONCE), "nonce"),
        ):
            with self.assertRaises(SASLError) as raised:
                self.scram().respond(message.encode())
            self.assertIn(reason, str(raised.exception), message)

    def test_a_final_message_without_the_right_signature_is_refused(self) -> None:
        for message, reason in (
            (b"", "cannot be read"),
            (b"v=", "cannot be read"),
            (b"v=A", "base64"),
            (b"v=" + b64encode(bytes(32)), "does not have the keys"),
            (b"v=" + b64encode(b64decode(SERVER_FINAL[2:])[:-1]), "does not have the keys"),
            (b"e=invalid-proof\x1b[2J", r"'invalid-proof\\x1b[2J'"),
        ):
            scram = self.scram()
            scram.respond(SERVER_FIRST)
            with self.assertRaises(SASLError) as raised:
                scram.respond(message)
            self.assertIn(reason, str(raised.exception))
            self.assertFalse(scram.complete)

    def test_extensions_are_ignored_and_signed(self) -> None:
        """RFC 5802 §5.1."""
        scram = self.scram()
        self.assertIn(b",p=", scram.respond(SERVER_FIRST + b",x=new"))

    def test_commas_and_equals_signs_in_names_are_escaped(self) -> None:
        scram = self.scram(Credentials("a=b,c", "x"))
        self.assertEqual(scram.initial(), f"n,,n=a=3Db=2Cc,r={NONCE}".encode())

    def test_the_keys_are_those_of_the_example(self) -> None:
        """RFC 5802 §3."""
        keys = scram_keys("sha1", "pencil", b64decode("QSXCR+Q6sek8bf92"), 4096)
        self.assertEqual(keys.stored.hex(), "e9d94660c39d65c38fbad91c358f14da0eef2bd6")
        self.assertEqual(keys.server.hex(), "0fe09258b3ac852ba502cc62ba903eaacdbf7d31")
        self.assertEqual(repr(keys), "ScramKeys()")


class PreparedTests(SynchronousTestCase):
    def test_prepared_matches_the_examples_of_the_standard(self) -> None:
        """RFC 4013 §3."""
        for text, expected in (
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
        ):
            self.assertEqual(prepared(text), expected)
        for text in ("\u0007", "\u06271"):
            self.assertRaises(SASLError, prepared, text)

    def test_other_spaces_become_spaces_and_empty_results_are_refused(self) -> None:
        self.assertEqual(prepared("a\u3000b"), "a b")
        self.assertEqual(prepared("\u0627\u0628"), "\u0627\u0628")
        self.assertRaises(SASLError, prepared, "\u00ad")
        self.assertRaises(SASLError, prepared, "\ue000")

    def test_long_text_is_prepared_up_to_1024_characters(self) -> None:
        """Beyond, text outside ASCII is refused; RFC 4616 §2 asks for 255 octets."""
        self.assertEqual(prepared(1023 * "a" + "\u00aa"), 1024 * "a")
        self.assertEqual(prepared(1025 * "a"), 1025 * "a")
        self.assertRaises(SASLError, prepared, 1024 * "a" + "\u00aa")
