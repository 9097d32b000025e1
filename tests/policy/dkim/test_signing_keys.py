"""The keys that we sign with: which files are read, and which keys sign for a domain."""

from __future__ import annotations

import os

from tests.policy.dkim.key_files import pem, private_key, rsa_key, write_key
from tests.tidy import TidyTestCase
from twisted_mta.config import DKIMKey
from twisted_mta.policy.dkim.signing_keys import SigningKey, SigningKeys, load_keys
from twisted_mta.system.work import finished
from twisted_mta.tls.certificates import CertificateError


class KeyTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.path = os.path.abspath(os.path.join(self.directory, "key.pem"))

    def read(self, domain: str = "example.net", selector: str = "s1") -> SigningKey:
        return SigningKey.read(DKIMKey(domain=domain, selector=selector, key=self.path))

    def write(self, content: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(content)
        os.chmod(self.path, 0o600)

    def refusal(self) -> str:
        error = self.assertRaises(CertificateError, self.read)
        self.assertTrue(str(error).isprintable())
        return str(error).replace(self.path, "KEY")


class Reading(KeyTestCase):
    def test_an_rsa_key_is_read(self) -> None:
        write_key(self.path, "rsa-2048")
        key = self.read()
        self.assertEqual((key.algorithm, key.bits, key.warnings), ("rsa", 2048, ()))
        self.assertEqual(key.record_name, "s1._domainkey.example.net")

    def test_an_ed25519_key_is_read(self) -> None:
        write_key(self.path, "ed25519")
        key = self.read()
        self.assertEqual((key.algorithm, key.bits, key.warnings), ("ed25519", 256, ()))

    def test_a_key_is_not_shown(self) -> None:
        write_key(self.path, "ed25519")
        self.assertEqual(
            repr(self.read()).replace(self.path, "KEY"),
            "SigningKey(domain='example.net', selector='s1', file='KEY', warnings=())",
        )

    def test_a_file_that_is_not_there_is_named(self) -> None:
        self.assertEqual(self.refusal(), "KEY: cannot be read: No such file or directory")

    def test_a_file_without_a_key_is_refused(self) -> None:
        for content in (b"", b"\xff\0", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"):
            self.write(content)
            self.assertIn("KEY: holds no private key in PEM form; expected", self.refusal())

    def test_a_key_with_a_passphrase_is_refused(self) -> None:
        self.write(pem(private_key("ed25519"), b"secret"))
        self.assertEqual(self.refusal(), "KEY: the key has a passphrase; expected one without")

    def test_a_key_of_another_kind_is_refused(self) -> None:
        write_key(self.path, "p256")
        self.assertEqual(
            self.refusal(), "KEY: found a key of another kind; expected RSA or Ed25519"
        )

    def test_an_rsa_key_that_receivers_do_not_accept_is_refused(self) -> None:
        for bits, exponents in ((734, (607, 127)), (4484, (2203, 2281))):
            self.write(pem(rsa_key(*exponents)))
            self.assertEqual(
                self.refusal(), f"KEY: found an RSA key of {bits} bits; expected 2048", bits
            )

    def test_an_rsa_key_that_some_receivers_do_not_accept_is_warned_about(self) -> None:
        write_key(self.path, "rsa-1024")
        (warning,) = self.read().warnings
        self.assertEqual(
            warning.replace(self.path, "KEY"),
            "KEY: an RSA key of 1024 bits, which some receivers do not accept; expected 2048",
        )

    def test_a_file_that_others_may_write_is_refused(self) -> None:
        write_key(self.path, mode=0o622)
        self.assertIn("KEY: mode 0622: others than its owner may write it", self.refusal())

    def test_a_file_that_all_users_may_read_is_warned_about(self) -> None:
        write_key(self.path, mode=0o604)
        (warning,) = self.read().warnings
        self.assertIn("all users can read it (mode 0604); expected chmod 0600", warning)


class Loading(KeyTestCase):
    def test_all_keys_are_read_and_one_that_cannot_be_used_refuses_all(self) -> None:
        write_key(self.path)
        tables = [DKIMKey(domain="example.net", selector=each, key=self.path) for each in "ab"]
        self.assertEqual([key.selector for key in finished(load_keys(tables))], ["a", "b"])
        missing = DKIMKey(domain="example.net", selector="c", key=f"{self.path}.gone")
        self.assertRaises(CertificateError, finished, load_keys([*tables, missing]))


class Choice(KeyTestCase):
    def keys(self, *names: str) -> SigningKeys:
        """Return keys for ``selector@domain`` each."""
        write_key(self.path)
        pairs = [name.split("@") for name in names]
        return SigningKeys(self.read(domain, selector) for selector, domain in pairs)

    def of(self, keys: SigningKeys, domain: str) -> list[str]:
        return [f"{key.selector}@{key.domain}" for key in keys.of(domain)]

    def test_all_keys_of_a_domain_sign_for_it(self) -> None:
        keys = self.keys("a@example.net", "b@example.org", "c@example.net")
        self.assertEqual(self.of(keys, "example.net"), ["a@example.net", "c@example.net"])

    def test_the_closest_parent_signs_for_a_subdomain(self) -> None:
        keys = self.keys("a@example.net", "b@lists.example.net")
        for domain, signs in (
            ("news.example.net", "a@example.net"),
            ("x.lists.example.net", "b@lists.example.net"),
            ("lists.example.net", "b@lists.example.net"),
            ("example.net", "a@example.net"),
        ):
            self.assertEqual(self.of(keys, domain), [signs], domain)

    def test_no_key_signs_for_a_stranger(self) -> None:
        keys = self.keys("a@example.net")
        for domain in ("example.com", "net", "badexample.net", "[192.0.2.1]", ""):
            self.assertEqual(self.of(keys, domain), [], domain)


class Replacing(KeyTestCase):
    def test_another_key_in_the_same_file_is_said(self) -> None:
        write_key(self.path)
        keys = SigningKeys([self.read()])
        self.assertEqual(keys.use([self.read()]), [])
        write_key(self.path, "rsa-2048")
        (line,) = keys.use([self.read()])
        self.assertEqual(
            line.replace(self.path, "KEY"),
            "KEY: a new key (rsa, 2048 bits) for s1._domainkey.example.net",
        )
        self.assertEqual([key.algorithm for key in keys.of("example.net")], ["rsa"])

    def test_a_key_that_is_no_longer_given_does_not_sign(self) -> None:
        write_key(self.path)
        keys = SigningKeys([self.read()])
        self.assertEqual(keys.use([self.read(selector="s2")]), [])
        self.assertEqual([key.selector for key in keys.of("example.net")], ["s2"])
        self.assertEqual(keys.use([]), [])
        self.assertEqual(keys.of("example.net"), ())
