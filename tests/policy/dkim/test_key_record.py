"""Key records: which keys are taken from the DNS."""

import base64
import contextlib

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.dkim.key_record import KeyRecord, KeyRecordError, record_text

from .keys import key, record

P = record(key()).decode().partition("p=")[2]
ED = record(key("ed25519")).decode().partition("p=")[2]


def parse(text: str) -> KeyRecord:
    return KeyRecord.parse(text.encode())


def rsa_of(bits: int) -> str:
    return record_text(rsa.generate_private_key(65537, bits).public_key())


class Records(SynchronousTestCase):
    def assertRefused(self, text: str, reason: str) -> None:
        with self.assertRaises(KeyRecordError) as caught:
            parse(text)
        self.assertIn(reason, str(caught.exception))

    def test_the_least_record_is_an_rsa_key_for_mail(self) -> None:
        read = parse(f"p={P}")
        self.assertEqual((read.type, read.bits), ("rsa", 2048))
        self.assertFalse(read.testing or read.strict)

    def test_an_ed25519_key_is_its_octets_alone(self) -> None:
        self.assertEqual(parse(f"v=DKIM1; k=ed25519; p={ED}").bits, 256)
        self.assertRefused(f"k=ed25519; p={P}", "octets in p=, expected 32")

    def test_an_rsa_key_may_stand_without_the_structure_around_it(self) -> None:
        bare = key().private.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
        self.assertEqual(parse(f"p={base64.b64encode(bare).decode()}").bits, 2048)

    def test_a_key_may_be_folded(self) -> None:
        self.assertEqual(parse(f"p={P[:30]} \r\n {P[30:]} ;").bits, 2048)

    def test_flags_are_read_and_unknown_ones_ignored(self) -> None:
        read = parse(f"t=x : y:s; p={P}; n=a note; g=*; z=")
        self.assertTrue(read.testing and read.strict)

    def test_other_versions_services_hashes_and_types_are_refused(self) -> None:
        self.assertRefused(f"v=DKIM2; p={P}", "v=DKIM1")
        self.assertRefused(f"p={P}; v=DKIM1", "at the beginning")
        self.assertRefused(f"s=tlsrpt; p={P}", "the service email")
        self.assertRefused(f"h=sha1; p={P}", "sha256 among the hashes")
        self.assertRefused(f"k=dsa; p={P}", "rsa or ed25519")
        self.assertEqual(parse(f"s=tlsrpt:email; h=sha1:sha256; p={P}").bits, 2048)

    def test_a_record_without_a_readable_key_is_refused(self) -> None:
        self.assertRefused("v=DKIM1", "no p=")
        self.assertRefused("v=DKIM1; p=", "revoked")
        self.assertRefused("v=DKIM1; p=!!", "not base64")
        self.assertRefused("v=DKIM1; p=YQ==", "cannot be read")
        self.assertRefused("v=spf1 -all", "expected v=DKIM1")
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        der = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.assertRefused(f"p={base64.b64encode(der).decode()}", "another type")

    def test_rsa_keys_have_1024_bits_at_least(self) -> None:
        self.assertEqual(parse(rsa_of(1024)).bits, 1024)
        # RFC 8301 §3.2: a key of 512 bits, which `cryptography` no longer makes.
        short = (
            "v=DKIM1; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WG"
            "eKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ=="
        )
        self.assertRefused(short, "found 512 bits, expected 1024")

    def test_keys_that_take_long_are_refused(self) -> None:
        numbers = key().private.public_key().public_numbers()  # type: ignore[union-attr]
        for n, e, reason in (
            ((1 << 9000) + 1, 65537, "9001 bits"),
            (numbers.n, (1 << 2040) + 1, "exponent"),
        ):
            self.assertRefused(f"p={base64.b64encode(pkcs1(n, e)).decode()}", reason)

    @settings(deadline=None)
    @given(
        st.text("vkpthsgn=;: \r\nDKIM1rsayemail*+/A", max_size=60).map(str.encode)
        | st.binary(max_size=20)
    )
    def test_no_text_is_an_error_of_another_kind(self, text: bytes) -> None:
        for each in (text, f"k=ed25519;p={ED};".encode() + text):
            with contextlib.suppress(KeyRecordError):
                KeyRecord.parse(each)

    @settings(deadline=None)
    @given(st.binary(max_size=200), st.integers(0, 300))
    def test_no_key_is_an_error_of_another_kind(self, octets: bytes, at: int) -> None:
        der = base64.b64decode(P)
        for changed in (octets, der[:at] + octets + der[at:], der[:at]):
            with contextlib.suppress(KeyRecordError):
                parse(f"p={base64.b64encode(changed).decode()}")


def pkcs1(n: int, e: int) -> bytes:
    """Return an RSAPublicKey in DER."""

    def integer(value: int) -> bytes:
        octets = value.to_bytes(value.bit_length() // 8 + 1, "big")
        return b"\x02" + length(len(octets)) + octets

    def length(count: int) -> bytes:
        if count < 128:
            return bytes([count])
        return b"\x82" + count.to_bytes(2, "big")

    content = integer(n) + integer(e)
    return b"\x30" + length(len(content)) + content
