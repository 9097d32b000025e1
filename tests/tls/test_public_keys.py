"""Public keys that strangers publish, in DNS and in certificates."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.tlsa import TLSA
from twisted_mta.policy.dkim.key_record import KeyRecord, KeyRecordError
from twisted_mta.tls.dane import usable
from twisted_mta.tls.public_keys import read_public_key

PRIME = int(
    "EEC1CEF4F28368F0AAFC6270107F84B4D6BFCF8A6A9AE95D9E8640E37F0C65ECEE3B72C70C1EF47F8419E170AEA4DAD119C0C85B857C821195B3DD9004C28243",
    16,
)
"""2 * q + 1, where q is a prime too: `cryptography` takes it."""


def short(tag: int, content: bytes) -> bytes:
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    return bytes([tag, 0x81, len(content)]) + content


def diffie_hellman(*identifier: int, middle: bytes = b"") -> bytes:
    """Return a key for Diffie-Hellman, with the object identifier of its kind."""
    numbers = short(2, PRIME.to_bytes(65, "big")) + short(2, b"\x02") + middle
    algorithm = short(0x30, short(6, bytes(identifier)) + short(0x30, numbers))
    return short(0x30, algorithm + short(3, b"\0" + short(2, b"\x04")))


PKCS_3 = diffie_hellman(0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 3, 1)
X9_42 = diffie_hellman(
    *(0x2A, 0x86, 0x48, 0xCE, 0x3E, 2, 1), middle=short(2, (PRIME // 2).to_bytes(64, "big"))
)


class PublicKeys(SynchronousTestCase):
    def test_keys_that_sign_are_read(self) -> None:
        for key in (
            ec.generate_private_key(ec.SECP256R1()).public_key(),
            ed25519.Ed25519PrivateKey.generate().public_key(),
            rsa.RSAPublicNumbers(65537, (1 << 2048) - 1).public_key(),
        ):
            octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.assertEqual(read_public_key(octets), key)

    def test_keys_for_diffie_hellman_are_not(self) -> None:
        """Their check takes seconds: one record in DNS would hold the reactor for so long."""
        for octets in (PKCS_3, X9_42):
            with self.assertRaisesRegex(ValueError, "found a key for Diffie-Hellman"):
                read_public_key(octets)

    def test_a_key_record_of_dkim_with_one_cannot_be_read(self) -> None:
        text = f"v=DKIM1; k=rsa; p={base64.b64encode(PKCS_3).decode()}"
        with self.assertRaisesRegex(KeyRecordError, "cannot be read"):
            KeyRecord.parse(text.encode())

    def test_a_tlsa_record_with_one_is_not_usable(self) -> None:
        self.assertEqual(usable([TLSA(usage, 1, 0, PKCS_3) for usage in (2, 3)]), ())
