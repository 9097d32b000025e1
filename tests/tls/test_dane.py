"""The chain of a server against its TLSA records (RFC 6698, 7671, 7672)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from tests.server.authority import Authority, Issued, costly_key, self_signed
from twisted_mta.mail.tlsa import TLSA
from twisted_mta.system.real_world import wall_time
from twisted_mta.tls.dane import Malformed, Verdict, public_key_info, usable, verify

MX = "mx.example"


def key_of(issued: Issued) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate."""
    key = issued.key.public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def record(usage: int, selector: int, matching: int, issued: Issued) -> TLSA:
    """Return the TLSA record that a certificate fits."""
    octets = key_of(issued) if selector else issued.der
    if matching:
        octets = (hashlib.sha256 if matching == 1 else hashlib.sha512)(octets).digest()
    return TLSA(usage, selector, matching, octets)


def issue(by: Authority, *names: str, days: tuple[int, int] = (-1, 30)) -> Issued:
    return by.issue("server", names=names, days=days, for_clients=False)


class DANETestCase(SynchronousTestCase):
    def verdict(
        self, chain: Sequence[Issued], *records: TLSA, names: Sequence[str] = (MX,)
    ) -> Verdict:
        return verify([each.der for each in chain], usable(records), names)

    def assert_fits(
        self, chain: Sequence[Issued], *records: TLSA, names: Sequence[str] = (MX,)
    ) -> None:
        self.assertEqual(self.verdict(chain, *records, names=names).problem, "")

    def assert_problem(
        self, text: str, chain: Sequence[Issued], *records: TLSA, names: Sequence[str] = (MX,)
    ) -> None:
        verdict = self.verdict(chain, *records, names=names)
        self.assertIsNone(verdict.record)
        self.assertIn(text, verdict.problem)


class EndEntity(DANETestCase):
    """Usage 3: the certificate or key of the server itself (RFC 7671 §5.1)."""

    def test_every_selector_and_matching_type(self) -> None:
        server, other = self_signed(MX), self_signed(MX)
        for selector in (0, 1):
            for matching in (0, 1, 2):
                right = record(3, selector, matching, server)
                self.assertEqual(self.verdict([server], right).record, right)
                self.assert_problem("fit none of its TLSA records", [other], right)

    def test_neither_name_nor_dates_count(self) -> None:
        server = issue(Authority(), "other.example", days=(-30, -1))
        self.assert_fits([server], record(3, 1, 1, server))

    def test_a_certificate_without_a_name_is_good_enough(self) -> None:
        server = self_signed("", names=())
        self.assert_fits([server], record(3, 0, 1, server))

    def test_while_keys_roll_over_any_record_is_enough(self) -> None:
        """RFC 7671 §8.1: the records of the present and the next key stand side by side."""
        now, then = self_signed(MX), self_signed(MX)
        for server in (now, then):
            self.assert_fits([server], record(3, 1, 1, now), record(3, 1, 1, then))

    def test_another_certificate_of_the_chain_does_not_count(self) -> None:
        authority = Authority()
        server = issue(authority, MX)
        self.assert_problem(
            "fit none", [server, authority.issued], record(3, 1, 1, authority.issued)
        )


class TrustAnchor(DANETestCase):
    """Usage 2: an authority above the certificate of the server (RFC 7671 §5.2)."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.server = issue(self.authority, MX)
        self.chain = [self.server, self.authority.issued]

    def test_every_selector_and_matching_type(self) -> None:
        other = Authority("Other CA")
        for selector in (0, 1):
            for matching in (0, 1, 2):
                self.assert_fits(self.chain, record(2, selector, matching, self.authority.issued))
                verdict = self.verdict(self.chain, record(2, selector, matching, other.issued))
                self.assertIsNone(verdict.record, (selector, matching))

    def test_an_authority_that_the_server_does_not_send_cannot_be_known_by_its_digest(self) -> None:
        """RFC 7671 §5.2.2."""
        for selector in (0, 1):
            anchor = record(2, selector, 1, self.authority.issued)
            self.assert_problem("fit none", [self.server], anchor)

    def test_a_whole_certificate_or_key_in_the_record_need_not_be_sent(self) -> None:
        """RFC 7671 §5.2.3."""
        for selector in (0, 1):
            self.assert_fits([self.server], record(2, selector, 0, self.authority.issued))

    def test_an_intermediate_authority_is_enough(self) -> None:
        """The authority above it is neither known nor trusted."""
        root = Authority("Root CA")
        middle = Issued(root.subordinate(self.authority), self.authority.issued.key)
        chain = [self.server, middle]
        self.assert_fits(chain, record(2, 0, 1, middle))
        self.assert_fits(chain, record(2, 1, 1, middle))
        self.assert_fits([*chain, root.issued], record(2, 0, 1, root.issued))

    def test_an_authority_that_did_not_sign_is_no_anchor(self) -> None:
        """An attacker may send any certificate along, also that of the authority."""
        forged = issue(Authority(), MX)
        self.assert_problem(
            "its chain leads to no certificate of its TLSA records",
            [forged, self.authority.issued],
            record(2, 0, 1, self.authority.issued),
        )

    def test_the_certificate_of_the_server_is_no_authority(self) -> None:
        self.assert_problem("fit none", [self.server], record(2, 0, 1, self.server))

    def test_a_certificate_of_no_authority_signs_nothing(self) -> None:
        """The server's own certificate signs another one."""
        stolen = issue(Authority(), "evil.example")
        forged = _signed_by(stolen, MX)
        self.assert_problem("its chain leads to no", [forged, stolen], record(2, 0, 1, stolen))

    def test_dates_count(self) -> None:
        anchor = record(2, 0, 1, self.authority.issued)
        for days, text in (((-30, -1), "has expired"), ((2, 30), "not valid yet")):
            server = issue(self.authority, MX, days=days)
            self.assert_problem(text, [server, self.authority.issued], anchor)

    def test_the_purpose_counts(self) -> None:
        server = self.authority.issue(MX, names=[MX], for_clients=True)
        chain = [server, self.authority.issued]
        self.assert_problem("not for servers", chain, record(2, 0, 1, self.authority.issued))
        self.assert_fits(chain, record(3, 0, 1, server))


class Names(DANETestCase):
    """RFC 7672 §3.2.2, §3.2.3: names with usage 2."""

    def setUp(self) -> None:
        self.authority = Authority()
        self.anchor = record(2, 0, 1, self.authority.issued)

    def chain(self, *names: str, common_name: str = "server") -> list[Issued]:
        server = self.authority.issue(common_name, names=names, for_clients=False)
        return [server, self.authority.issued]

    def test_the_host_or_the_domain_of_the_mail(self) -> None:
        names = ("mx.provider.example", "example.com")
        for name in ("mx.provider.example", "EXAMPLE.com"):
            self.assert_fits(self.chain(name), self.anchor, names=names)
        self.assert_problem(
            "not for mx.provider.example or example.com, but for www.example.com",
            self.chain("www.example.com"),
            self.anchor,
            names=names,
        )

    def test_a_wildcard_is_a_whole_first_label(self) -> None:
        self.assert_fits(
            self.chain("*.provider.example"), self.anchor, names=["mx.provider.example"]
        )
        for name in ("m*.provider.example", "*.example", "mx.*.example", "*"):
            self.assert_problem(
                "not for mx.provider.example",
                self.chain(name),
                self.anchor,
                names=["mx.provider.example"],
            )

    def test_the_common_name_counts_where_there_is_no_dns_name(self) -> None:
        self.assert_fits(self.chain(common_name=MX), self.anchor)
        self.assert_fits(self.chain("192.0.2.1", common_name=MX), self.anchor)
        self.assert_problem(
            "but for other.example", self.chain("other.example", common_name=MX), self.anchor
        )
        self.assert_problem("but for no name", self.chain(common_name=""), self.anchor)

    def test_a_huge_certificate_is_not_read(self) -> None:
        names = [f"{number}.example" for number in range(2000)]
        self.assert_problem("and no more than", self.chain(*names), self.anchor)


class Usable(SynchronousTestCase):
    def test_usages_0_and_1_are_not_usable(self) -> None:
        """RFC 7672 §3.1.3."""
        server = self_signed(MX)
        for usage in (0, 1, 4, 255):
            self.assertEqual(usable([record(usage, 1, 1, server)]), ())

    def test_what_is_unknown_or_malformed_is_not_usable(self) -> None:
        """RFC 6698 §4.1."""
        for wrong in (
            TLSA(3, 2, 1, bytes(32)),
            TLSA(3, 1, 3, bytes(48)),
            TLSA(3, 1, 1, bytes(31)),
            TLSA(3, 1, 2, bytes(32)),
            TLSA(3, 1, 1, b""),
            TLSA(3, 0, 0, b"no certificate"),
            TLSA(2, 1, 0, b"no key"),
        ):
            self.assertEqual(usable([wrong]), (), wrong)

    def test_only_the_strongest_digest_counts(self) -> None:
        """RFC 7671 §9: an attacker may have broken the weaker one; full values count besides."""
        server, other = self_signed(MX), self_signed(MX)
        full, weak = record(3, 1, 0, server), record(3, 1, 1, server)
        strong, anchor = record(3, 1, 2, other), record(2, 1, 1, other)
        self.assertEqual(usable([weak, strong]), (strong,))
        self.assertEqual(usable([full, weak, strong]), (full, strong))
        self.assertEqual(usable([weak, anchor]), (weak, anchor))
        self.assertEqual(usable([weak, record(3, 0, 2, server)]), (weak, record(3, 0, 2, server)))
        self.assertNotEqual(verify([server.der], usable([weak, strong]), [MX]).problem, "")

    def test_of_keys_in_records_a_few_short_ones_are_usable(self) -> None:
        """Each costs a check of a signature for each certificate of a chain."""
        several = [record(2, 1, 0, self_signed(MX)) for _ in range(20)]
        self.assertEqual(usable(several), tuple(several[:3]))
        for bits, count in ((4096, 1), (4104, 0)):
            key = rsa.RSAPublicNumbers(65537, (1 << bits) - 1).public_key()
            octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.assertEqual(len(usable([TLSA(2, 1, 0, octets)])), count)

    def test_a_malformed_record_hides_no_other(self) -> None:
        good = record(3, 1, 1, self_signed(MX))
        self.assertEqual(usable([TLSA(3, 1, 2, b"short"), good]), (good,))


class Records(SynchronousTestCase):
    def test_rdata_is_read(self) -> None:
        """RFC 6698 §2.1."""
        self.assertEqual(TLSA.parse(b"\3\1\1" + bytes(32)), TLSA(3, 1, 1, bytes(32)))
        self.assertEqual(str(TLSA(3, 1, 1, bytes(32))), "3 1 1 0000000000000000...")
        self.assertIsNone(TLSA.parse(b"\3\1\1"))


class Hostile(SynchronousTestCase):
    def test_what_is_no_certificate_fits_nothing(self) -> None:
        server = self_signed(MX)
        records = [record(3, 1, 1, server), record(2, 1, 0, server)]
        for length in range(len(server.der)):
            self.assertIsNone(verify([server.der[:length]], records, [MX]).record)
        for place in range(len(server.der)):
            wrong = bytearray(server.der)
            wrong[place] ^= 0xFF
            verify([bytes(wrong)], records, [MX])  # raises nothing
        self.assertEqual(verify([], records, [MX]).problem, "it has no certificate")
        self.assertRaises(Malformed, public_key_info, b"\x30\x80\x30\x80")

    def test_the_key_is_taken_as_it_stands(self) -> None:
        for server in (self_signed(MX), issue(Authority(), MX)):
            self.assertEqual(public_key_info(server.der), key_of(server))

    def test_keys_that_take_too_long_are_not_used(self) -> None:
        authority = Authority()
        authority.issued = Issued(authority.issued.certificate, costly_key())
        key = record(2, 1, 0, authority.issued)
        self.assertEqual(
            usable([key, record(2, 1, 1, authority.issued)]), (record(2, 1, 1, authority.issued),)
        )
        other = Authority()
        costly = other.issue("server", names=[MX], for_clients=False, key=costly_key())
        verdict = verify([costly.der, other.issued.der], [record(2, 0, 1, other.issued)], [MX])
        self.assertRegex(verdict.problem, r"its chain has a key with an exponent of 20\d\d bits")

    def test_a_long_chain_is_looked_at_in_part(self) -> None:
        authority = Authority()
        server = issue(authority, MX)
        chain = [server.der, *([Authority().issued.der] * 300), authority.issued.der]
        began = wall_time()
        self.assertNotEqual(verify(chain, [record(2, 0, 1, authority.issued)], [MX]).problem, "")
        self.assertLess(wall_time() - began, 0.5)


def _signed_by(issuer: Issued, name: str) -> Issued:
    authority = Authority.__new__(Authority)
    authority.common_name, authority.issued = "", issuer
    return authority.issue(name, names=[name], for_clients=False)
