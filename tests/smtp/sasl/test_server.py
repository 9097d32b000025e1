"""The SASL mechanisms of a server: each malformed message gets its reply, and no exception."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.extension.auth import AUTH
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.sasl.evidence import (
    Certificate,
    CramProof,
    Evidence,
    Foreign,
    Password,
    ScramLookup,
    ScramProof,
    ScramSalt,
    Token,
)
from twisted_mta.smtp.sasl.exchange import SASLError
from twisted_mta.smtp.sasl.scram import scram_keys
from twisted_mta.smtp.sasl.server import MECHANISMS, Challenger, Circumstances
from twisted_mta.smtp.server.auth import Granted, Verdict
from twisted_mta.smtp.server.machine import State
from twisted_mta.smtp.server.replies import NOT_AUTHENTICATED
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import AuthSettings, SessionSettings
from twisted_mta.smtp.server.step import Authenticate

FACTS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, peer_verified=True)
SALT = ScramSalt(b"0123456789abcdef", 4096)
NONCE, OURS = "rOprNGfwEbeRWgbNEkqO", "3rfcNHYJY1ZVvWVs7j"
EXPORTER, END_POINT = b"exporter", b"end point"


def binding(name: str) -> bytes | None:
    return {"tls-exporter": EXPORTER, "tls-server-end-point": END_POINT}.get(name)


def judge(evidence: Evidence) -> Verdict:
    """Judge as for the one user ``user`` with the password ``pencil`` and the token ``abc.def``."""
    match evidence:
        case ScramLookup():
            return SALT
        case Password(username, password, authzid):
            good = (username, password, authzid) == ("user", "pencil", "")
        case CramProof(username) | ScramProof(username):
            good = username == "user" and evidence.check_password(b"pencil")
        case Certificate(username):
            good = username in ("", "user")
        case Token(username, token):
            good = (username in ("", "user")) and token == "abc.def"
        case _:
            good = False
    return Granted("user") if good else NOT_AUTHENTICATED


class MechanismTestCase(SynchronousTestCase):
    """Talks to a session under TLS that offers every mechanism."""

    def setUp(self) -> None:
        self.begin()

    def begin(self, *, plus: bool = True, facts: TLSFacts | None = FACTS) -> None:
        auth = AuthSettings(
            mechanisms=MECHANISMS, nonce=lambda: OURS, in_clear=True, max_failures=10_000
        )
        settings = SessionSettings(
            hostname="mx.example", extensions=(AUTH,), auth=auth, max_errors=10_000
        )
        self.session = Session(settings, peer=Peer("192.0.2.1"))
        if facts is not None:
            self.session.tls_established(facts, binding if plus else None)
        self.say(b"EHLO client.example")

    def say(self, line: bytes) -> str:
        self.session.receive(line + b"\r\n")
        while (step := self.session.step()) is not None:
            if isinstance(step, Authenticate):
                self.session.answer_auth(judge(step.evidence))
        return self.session.output().decode()

    def exchange(self, mechanism: str, *responses: bytes | None) -> str:
        """Begin AUTH and respond to each challenge; None: no initial response."""
        initial, *others = responses
        argument = "" if initial is None else f" {b64encode(initial).decode() or '='}"
        reply = self.say(f"AUTH {mechanism}{argument}".encode())
        for each in others:
            self.assertEqual(reply[:4], "334 ", (mechanism, responses))
            reply = self.say(b64encode(each or b""))
        return reply

    def assert_granted(self, mechanism: str, *responses: bytes | None) -> None:
        self.assertEqual(self.exchange(mechanism, *responses)[:9], "235 2.7.0", responses)
        self.assertEqual(self.session.identity, "user")
        self.begin()

    def assert_refused(
        self, mechanism: str, *responses: bytes | None, code: str = "535 5.7.8"
    ) -> None:
        failures = self.session.auth.failures
        reply = self.exchange(mechanism, *responses)
        if reply[:4] == "334 " and mechanism in ("OAUTHBEARER", "XOAUTH2"):
            reply = self.say(b"AQ==")  # RFC 7628 §3.2.3: the reason of the refusal is read
        self.assertEqual(reply[:9], code, (mechanism, responses))
        self.assertEqual(self.session.auth.failures, failures + (code == "535 5.7.8"))
        self.assertIsNone(self.session.identity)
        self.assertEqual(self.say(b"NOOP")[:3], "250", "the session goes on")


def cram(username: bytes, password: bytes) -> bytes:
    challenge = f"<{OURS}@mx.example>".encode()
    return username + b" " + hmac.new(password, challenge, "md5").hexdigest().encode()


class Messages(MechanismTestCase):
    """The mechanisms of one message, and LOGIN and CRAM-MD5."""

    def test_well_formed_messages_are_granted(self) -> None:
        for mechanism, *responses in (
            ("PLAIN", b"\0user\0pencil"),
            ("PLAIN", b"user\0user\0pencil"),
            ("PLAIN", None, b"\0user\0pencil"),
            ("LOGIN", None, b"user", b"pencil"),
            ("LOGIN", b"user", b"pencil"),
            ("CRAM-MD5", None, cram(b"user", b"pencil")),
            ("CRAM-MD5", None, cram(b"user", b"pencil").upper().replace(b"USER", b"user")),
            ("EXTERNAL", b""),
            ("EXTERNAL", b"user"),
            ("EXTERNAL", None, b""),
            ("OAUTHBEARER", b"n,,\1auth=Bearer abc.def\1\1"),
            ("OAUTHBEARER", b"y,a=user,\1host=mx.example\1port=587\1AUTH=bearer  abc.def\1\1"),
            ("XOAUTH2", b"user=user\1auth=Bearer abc.def\1\1"),
        ):
            self.assert_granted(mechanism, *responses)

    def test_malformed_messages_of_plain_are_refused(self) -> None:
        for message in (
            b"",
            b"user",
            b"user\0pencil",
            b"\0user\0pencil\0",
            b"\0user\0pencil\0x",
            b"\0\0user\0pencil",
            b"\0\0pencil",
            b"\0user\0",
            b"user\0\0pencil",
            b"eve\0user\0pencil",
            b"\0user\0pencils",
            b"\0user\n\0pencil",
            b"\0us\x7fer\0pencil",
            b"\0us\xffer\0pencil",
            b"\0user\0pen\xffcil",
            b"\xff\0user\0pencil",
            b"\0" + b"u" * 256 + b"\0pencil",
            b"\0us\xd9\xa0er\0pencil",  # an Arabic digit between Latin letters, a bad direction
            b"\0us\xe2\x80\xaeer\0pencil",  # a control of direction
        ):
            self.assert_refused("PLAIN", message)
            if message:
                self.assert_refused("PLAIN", None, message)

    def test_a_name_may_have_255_characters(self) -> None:
        self.assertEqual(self.exchange("PLAIN", b"\0" + b"u" * 255 + b"\0x")[:3], "535")
        self.session.receive(b"AUTH PLAIN " + b64encode(b"\0" + b"u" * 255 + b"\0x") + b"\r\n")
        step = self.session.step()
        assert isinstance(step, Authenticate), "it is judged"
        self.session.answer_auth(NOT_AUTHENTICATED)

    def test_malformed_responses_of_login_are_refused(self) -> None:
        for name in (b"", b"us\0er", b"\xff", b"u" * 256, b"us\rer"):
            self.assert_refused("LOGIN", None, name)
            self.assert_refused("LOGIN", name)
        for password in (b"", b"pen\0cil", b"\xff", b"wrong"):
            self.assert_refused("LOGIN", None, b"user", password)

    def test_malformed_responses_of_cram_md5_are_refused(self) -> None:
        good = cram(b"user", b"pencil")
        self.assert_refused("CRAM-MD5", good)  # the server begins
        self.assert_refused("CRAM-MD5", b"")
        for response in (
            b"",
            b"user",
            b"user ",
            good[5:],
            b" " + good[5:],
            good[:-1],
            good + b"0",
            good + b" ",
            good.replace(b" ", b"\0"),
            b"us\0er " + good[5:],
            b"\xff " + good[5:],
            b"eve " + good[5:],
            b"user " + b"\xff" * 32,
            cram(b"user", b"wrong"),
        ):
            self.assert_refused("CRAM-MD5", None, response)

    def test_malformed_names_of_external_are_refused(self) -> None:
        for name in (b"eve", b"us\0er", b"\0", b"\xff", b"u" * 256):
            self.assert_refused("EXTERNAL", name)
        self.begin(facts=evolve(FACTS, peer_verified=False))
        self.assert_refused("EXTERNAL", b"user", code="504 5.5.4")

    def test_external_is_refused_without_a_verified_certificate(self) -> None:
        for tls in (None, evolve(FACTS, peer_verified=False)):
            circumstances = Circumstances(hostname="mx.example", nonce=lambda: OURS, tls=tls)
            mechanism = MECHANISMS["EXTERNAL"](circumstances)
            self.assertRaises(SASLError, mechanism.begin, b"")

    def test_malformed_messages_of_oauthbearer_are_refused(self) -> None:
        for message in (
            b"",
            b"\1",
            b"n,,",
            b"n,,\1\1",
            b"n,,\1auth=Bearer abc.def\1",
            b"n,,\1auth=Bearer abc.def\1\1\1",
            b"n,,\1auth=Bearer abc.def\1\1x",
            b"x" + b"n,,\1auth=Bearer abc.def\1\1",
            b"n,,auth=Bearer abc.def\1\1",
            b"n,\1auth=Bearer abc.def\1\1",
            b"p=tls-exporter,,\1auth=Bearer abc.def\1\1",
            b"n,user,\1auth=Bearer abc.def\1\1",
            b"n,a=eve,\1auth=Bearer abc.def\1\1",
            b"n,a=us=er,\1auth=Bearer abc.def\1\1",
            b"n,a=us=00er,\1auth=Bearer abc.def\1\1",
            b"n,a=us\0er,\1auth=Bearer abc.def\1\1",
            b"n,a=\xff,\1auth=Bearer abc.def\1\1",
            b"n,,\1host=mx.example\1\1",
            b"n,,\1auth=Bearer abc.def\1auth=Bearer abc.def\1\1",
            b"n,,\1auth=Bearer abc.def\1Auth=Bearer xyz\1\1",
            b"n,,\1auth=Basic abc.def\1\1",
            b"n,,\1auth=Bearer\1\1",
            b"n,,\1auth=Bearer \1\1",
            b"n,,\1auth=Bearerabc.def\1\1",
            b"n,,\1auth=Bearer abc.def x\1\1",
            b"n,,\1auth=Bearer abc.def\n\1\1",
            b"n,,\1auth=Bearer abc=def\1\1",
            b"n,,\1auth=Bearer abc\0def\1\1",
            b"n,,\1auth=Bearer \xff\1\1",
            b"n,,\1auth=Bearer abc.de\1\1",
        ):
            self.assert_refused("OAUTHBEARER", message)

    def test_malformed_messages_of_xoauth2_are_refused(self) -> None:
        for message in (
            b"",
            b"\1\1",
            b"user=user",
            b"user=\1auth=Bearer abc.def\1\1",
            b"auth=Bearer abc.def\1\1",
            b"user=user\1auth=Bearer abc.def\1",
            b"user=user\1auth=Bearer abc.def\1\1x",
            b"user=user\1auth=Bearer abc.def\1x=y\1\1",
            b"auth=Bearer abc.def\1user=user\1\1",
            b"user=us\0er\1auth=Bearer abc.def\1\1",
            b"user=\xff\1auth=Bearer abc.def\1\1",
            b"user=" + b"u" * 256 + b"\1auth=Bearer abc.def\1\1",
            b"user=eve\1auth=Bearer abc.def\1\1",
            b"user=user\1auth=\1\1",
            b"user=user\1auth=abc.def\1\1",
            b"user=user\1auth=Bearer abc.def garbage\1\1",
        ):
            self.assert_refused("XOAUTH2", message)


class Scram(MechanismTestCase):
    """SCRAM (RFC 5802, RFC 7677): one message after the other, and each of them broken."""

    def final(
        self,
        *,
        header: bytes = b"n,,",
        bare: bytes = f"n=user,r={NONCE}".encode(),
        bound: bytes = b"",
        nonce: str = NONCE + OURS,
        extension: bytes = b"",
        algorithm: str = "sha256",
        password: str = "pencil",
    ) -> bytes:
        """Return the client-final-message of a client that does everything else right."""
        keys = scram_keys(algorithm, password, SALT.salt, SALT.iterations)
        first = f"r={NONCE}{OURS},s={b64encode(SALT.salt).decode()},i={SALT.iterations}".encode()
        without = b"c=" + b64encode(header + bound) + f",r={nonce}".encode() + extension
        mask = hmac.digest(keys.stored, b",".join((bare, first, without)), algorithm)
        proof = bytes(one ^ other for one, other in zip(keys.client, mask, strict=True))
        return without + b",p=" + b64encode(proof)

    FIRST = f"n,,n=user,r={NONCE}".encode()

    def test_well_formed_exchanges_are_granted_and_prove_that_we_know_the_password(self) -> None:
        for mechanism, first, final in (
            ("SCRAM-SHA-256", self.FIRST, self.final()),
            ("SCRAM-SHA-1", self.FIRST, self.final(algorithm="sha1")),
            (
                "SCRAM-SHA-256",
                f"n,a=user,n=user,r={NONCE},x=y".encode(),
                self.final(
                    header=b"n,a=user,", bare=f"n=user,r={NONCE},x=y".encode(), extension=b",z=1"
                ),
            ),
            (
                "SCRAM-SHA-256-PLUS",
                f"p=tls-exporter,,n=user,r={NONCE}".encode(),
                self.final(header=b"p=tls-exporter,,", bound=EXPORTER),
            ),
            (
                "SCRAM-SHA-256-PLUS",
                f"p=tls-server-end-point,,n=user,r={NONCE}".encode(),
                self.final(header=b"p=tls-server-end-point,,", bound=END_POINT),
            ),
        ):
            challenge = self.exchange(mechanism, first, final)
            self.assertEqual(b64decode(challenge[4:])[:2], b"v=")
            self.assertEqual(self.say(b"")[:9], "235 2.7.0", first)
            self.begin()

    def test_commas_and_equals_signs_in_names_are_unescaped(self) -> None:
        mechanism = MECHANISMS["SCRAM-SHA-1"](
            Circumstances(hostname="mx.example", nonce=lambda: OURS)
        )
        lookup = mechanism.begin(b"y,,n=us=2Cer=3D=2C,r=x")
        self.assertEqual(lookup, ScramLookup("us,er=,", "sha1"))

    def test_an_exchange_that_waits_for_a_proof_can_be_cancelled(self) -> None:
        self.assertEqual(self.exchange("SCRAM-SHA-1", b"n,,n=us=2Cer=3D,r=x")[:4], "334 ")
        self.assertEqual(self.say(b"*")[:9], "501 5.7.0")

    def test_malformed_first_messages_are_refused(self) -> None:
        nonce = f"r={NONCE}".encode()
        for message in (
            b"",
            b"n",
            b"n,,",
            b"n,,n=user",
            b"n,,n=user,",
            b"n,,n=user,r=",
            b"n,,n=user,r=a b",
            b"n,,n=user,r=a\0b",
            b"n,,n=user,r=\xff",
            b"n,,n=user,r=" + b"x" * 257,
            b"n,,n=user," + nonce + b"\0",
            b"n,,n=," + nonce,
            b"n,,n=us=er," + nonce,
            b"n,,n=us=2cer," + nonce,
            b"n,,n=us=00er," + nonce,
            b"n,,n=us\0er," + nonce,
            b"n,,n=us\xffer," + nonce,
            b"n,,n=" + b"u" * 256 + b"," + nonce,
            b"n,,m=ext,n=user," + nonce,  # RFC 5802 §5.1: reserved, and to be refused
            b"n,," + nonce + b",n=user",
            b"n,n=user," + nonce,
            b"n,user,n=user," + nonce,
            b"n,a=,n=user," + nonce,
            b"n,a=us=er,n=user," + nonce,
            b"n,a=us\0er,n=user," + nonce,
            b"N,,n=user," + nonce,
            b"x,,n=user," + nonce,
            b"p=,,n=user," + nonce,
            b"p=tls exporter,,n=user," + nonce,
        ):
            self.assert_refused("SCRAM-SHA-256", message)
        longest = b"n,,n=" + b"u" * 255 + b",r=" + b"x" * 256
        self.assertEqual(self.exchange("SCRAM-SHA-256", longest)[:4], "334 ")

    def test_channel_binding_has_to_fit_the_mechanism_and_the_connection(self) -> None:
        first = f",,n=user,r={NONCE}".encode()
        self.assert_refused("SCRAM-SHA-256", b"p=tls-exporter" + first)
        self.assert_refused("SCRAM-SHA-256", b"y" + first)  # RFC 5802 §6: the list was changed
        for flag in (b"n", b"y", b"p=tls-unique", b"p=tls-exporte", b"p=TLS-EXPORTER"):
            self.assert_refused("SCRAM-SHA-256-PLUS", flag + first)
        self.begin(plus=False)
        self.assert_refused("SCRAM-SHA-256-PLUS", b"p=tls-exporter" + first, code="504 5.5.4")
        challenge = self.exchange("SCRAM-SHA-256", b"y" + first, self.final(header=b"y,,"))
        self.assertEqual(challenge[:4], "334 ", "the client could, and we do not offer it")

    def test_malformed_final_messages_are_refused(self) -> None:
        good = self.final()
        without, _, proof = good.rpartition(b",p=")
        nonce = without.partition(b",r=")[2]
        for message in (
            b"",
            without,
            without + b",p=",
            without + b",p=?",
            without + b",p=A",
            without + b",p=AA",
            without + b",p=AAAA",
            good + b"\0",
            good + b",x=y",
            good + b" ",
            b"x" + good,
            b"r=" + nonce + b",p=" + proof,
            b"c=,r=" + nonce + b",p=" + proof,
            b"c=b,r=" + nonce + b",p=" + proof,
            b"c=biws=,r=" + nonce + b",p=" + proof,
            b"c=biws" + b",p=" + proof,
            without.replace(b"c=", b"C=") + b",p=" + proof,
        ):
            self.assert_refused("SCRAM-SHA-256", self.FIRST, message)

    def test_the_right_proof_for_other_facts_is_refused(self) -> None:
        for final in (
            self.final(nonce=NONCE),
            self.final(nonce=OURS),
            self.final(nonce=NONCE + OURS + "x"),
            self.final(nonce="x" + NONCE + OURS),
            self.final(nonce=(NONCE + OURS).swapcase()),
            self.final(header=b"y,,"),
            self.final(header=b"n,a=user,"),
            self.final(bound=EXPORTER),
            self.final(header=b"p=tls-exporter,,", bound=EXPORTER),
            self.final(password="wrong"),
            self.final(bare=f"n=eve,r={NONCE}".encode()),
            self.final(algorithm="sha1"),
        ):
            self.assert_refused("SCRAM-SHA-256", self.FIRST, final)
        plus = f"p=tls-exporter,,n=user,r={NONCE}".encode()
        for final in (
            self.final(header=b"p=tls-exporter,,"),
            self.final(header=b"p=tls-exporter,,", bound=END_POINT),
            self.final(header=b"p=tls-server-end-point,,", bound=EXPORTER),
            self.final(header=b"n,,", bound=EXPORTER),
            self.final(header=b"n,,"),
        ):
            self.assert_refused("SCRAM-SHA-256-PLUS", plus, final)

    def test_a_response_to_the_last_challenge_has_to_be_empty(self) -> None:
        for response, code in (
            (b"", "235 2.7.0"),
            (b"=", "235 2.7.0"),
            (b"AA==", "535 5.7.8"),
            (b"?", "535 5.7.8"),
            (b"*", "501 5.7.0"),
        ):
            self.begin()
            self.assertEqual(self.exchange("SCRAM-SHA-256", self.FIRST, self.final())[:4], "334 ")
            self.assertEqual(self.say(response)[:9], code)


class Lines(MechanismTestCase):
    """What is no base64, or cancels, at each place of each mechanism."""

    def test_a_line_that_is_not_base64_ends_the_exchange_and_is_no_failure(self) -> None:
        for mechanism in MECHANISMS:
            for line in (
                b"?",
                b"A",
                b"AA",
                b"AAA",
                b"AA=",
                b"AAAA=",
                b"AA==AA==",
                b"AA== ",
                b" AAAA",
                b"AA\0A",
                b"AA-_",
                b"AAA\xff",
                b"====",
                b"*A",
                b"**",
            ):
                self.assertEqual(self.say(f"AUTH {mechanism}".encode())[:4], "334 ")
                self.assertEqual(self.say(line)[:9], "501 5.5.2", (mechanism, line))
                if b" " not in line and line.isascii() and b"\0" not in line:
                    reply = self.say(f"AUTH {mechanism} ".encode() + line)
                    self.assertEqual(reply[:9], "501 5.5.2", (mechanism, line))
        self.assertEqual(self.session.auth.failures, 0)

    def test_a_star_cancels_and_is_no_failure(self) -> None:
        for mechanism in MECHANISMS:
            self.assertEqual(self.say(f"AUTH {mechanism}".encode())[:4], "334 ")
            self.assertEqual(self.say(b"*")[:9], "501 5.7.0")
        self.assertEqual(self.session.auth.failures, 0)

    def test_the_longest_response_has_12288_octets(self) -> None:
        """RFC 4954 §4."""
        for mechanism in ("PLAIN", "LOGIN", "SCRAM-SHA-256", "OAUTHBEARER"):
            self.say(f"AUTH {mechanism}".encode())
            self.assertIn(self.say(b"A" * 12_288)[:3], ("535", "334"))
            if self.session.state is State.AUTH:
                self.say(b"*")
            self.say(f"AUTH {mechanism}".encode())
            self.assertEqual(self.say(b"A" * 12_292)[:9], "500 5.5.6", mechanism)

    def test_an_empty_response_is_judged_by_the_mechanism(self) -> None:
        for mechanism in MECHANISMS:
            self.begin()
            self.say(f"AUTH {mechanism}".encode())
            reply = self.say(b"")
            expected = "235" if mechanism == "EXTERNAL" else "535"
            self.assertEqual(reply[:3], expected, mechanism)


class AnyChallenger:
    """A challenger as `twisted.mail` takes them, with a user name of any kind."""

    def __init__(self, username: object, error: Exception | None = None) -> None:
        if username is not None:
            self.username = username
        self.error = error
        self.responses: list[bytes] = []

    def getChallenge(self) -> bytes:
        return b"challenge %d" % len(self.responses)

    def setResponse(self, response: bytes) -> None:
        if self.error is not None:
            raise self.error
        self.responses.append(response)

    def moreChallenges(self) -> bool:
        return len(self.responses) < 2


class Challengers(SynchronousTestCase):
    """Mechanisms of an application (`twisted.mail`), whose challenger becomes the credentials."""

    def begun(self, challenger: AnyChallenger) -> Challenger:
        circumstances = Circumstances(hostname="mx.example", nonce=lambda: OURS)
        return Challenger(circumstances, challenger)

    def test_each_response_is_handed_on_and_the_last_one_completes_the_credentials(self) -> None:
        challenger = AnyChallenger(b"user")
        mechanism = self.begun(challenger)
        self.assertEqual(mechanism.begin(None), b"challenge 0")
        self.assertEqual(mechanism.respond(b"one"), b"challenge 1")
        self.assertEqual(mechanism.respond(b"two"), Foreign("user", challenger))
        self.assertEqual(challenger.responses, [b"one", b"two"])
        self.assertEqual(self.begun(AnyChallenger(b"user")).begin(b"one"), b"challenge 1")

    def test_the_user_name_is_text_of_at_most_255_characters_whatever_its_kind(self) -> None:
        for username, text in (
            (b"user", "user"),
            ("user", "user"),
            (b"\xff", "\ufffd"),
            (None, ""),
            (b"", ""),
            (7, "7"),
            ("u" * 256, "u" * 255),
        ):
            challenger = AnyChallenger(username)
            mechanism = self.begun(challenger)
            mechanism.begin(b"one")
            self.assertEqual(mechanism.respond(b"two"), Foreign(text, challenger))

    def test_a_response_that_the_challenger_cannot_read_ends_the_exchange(self) -> None:
        for error in (ValueError("secret"), IndexError("secret"), UnicodeError("secret")):
            mechanism = self.begun(AnyChallenger(b"user", error))
            refusal = self.assertRaises(SASLError, mechanism.begin, b"one")
            self.assertNotIn("secret", str(refusal))

    def test_there_is_neither_a_salt_nor_a_last_word(self) -> None:
        mechanism = self.begun(AnyChallenger(b"user"))
        self.assertRaises(SASLError, mechanism.salted, SALT)
        self.assertIsNone(mechanism.last_word(True))
