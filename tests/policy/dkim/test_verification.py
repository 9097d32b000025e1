"""The results of signatures: examples of the standards, those of dkimpy, and changed ones."""

import time
from collections.abc import Callable, Sequence
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.dns.failure import LookupFailed
from twisted_mta.policy.dkim.body_hashes import BodyHashes, body_hash
from twisted_mta.policy.dkim.signed_header import SignedHeader
from twisted_mta.policy.dkim.signing import sign_all
from twisted_mta.policy.dkim.verification import SignatureResult, Verification

from . import examples
from .judge import signature
from .keys import Records, key, record

NOW = 1_764_500_000
HEADER = b"""\
From: Ann <ann@example.net>\r
To: bob@example.com,\r
\t carol@example.com\r
Subject:   Hello\t \r
Date: Mon, 30 Nov 2026 10:00:00 +0000\r
"""
BODY = b"Hello  Bob, \r\n\r\n\tthis is it.\r\n\r\n\r\n"


def verified(
    header: bytes, pieces: Sequence[bytes], records: Records, now: float = NOW
) -> Sequence[SignatureResult]:
    """Return the results of a message."""
    bodies = BodyHashes()
    verification = Verification(SignedHeader(header), bodies, now)
    verification.look_up(records)
    for piece in pieces:
        bodies.feed(piece)
    done = Deferred.fromCoroutine(verification.results())
    found: list[Sequence[SignatureResult]] = []
    done.addCallback(found.append)
    (results,) = found
    return results


class VerificationTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.records = Records(key(), key("ed25519", selector="s2"))

    def by_dkimpy(self, body: bytes = BODY, **options: object) -> bytes:
        """Return the header with a signature that dkimpy made."""
        field = signature(HEADER + b"\r\n" + body, key(), **options)  # type: ignore[arg-type]
        return field + HEADER

    def result(self, header: bytes, body: bytes = BODY, now: float = NOW) -> SignatureResult:
        """Return the result of the only signature."""
        (result,) = verified(header, [body], self.records, now)
        return result

    def assertResult(
        self, result: str, reason: str, header: bytes, body: bytes = BODY, now: float = NOW
    ) -> None:
        found = self.result(header, body, now)
        self.assertEqual((found.result, reason in found.reason), (result, True), found)


class Examples(SynchronousTestCase):
    def setUp(self) -> None:
        self.records = Records()
        for name, text in examples.RECORDS.items():
            self.records.records[name] = [text]

    def results(self, header: str, body: bytes) -> list[str]:
        octets = header.replace("\n", "\r\n").encode()
        return [each.result for each in verified(octets, [body], self.records)]

    def test_the_example_of_rfc_6376_passes(self) -> None:
        header, body = examples.RFC_6376_HEADER, examples.RFC_6376_BODY
        self.assertEqual(self.results(header, body), ["pass"])
        self.assertEqual(self.results(header.replace("dinner", "lunch"), body), ["fail"])
        self.assertEqual(self.results(header, body + b"x"), ["fail"])

    def test_both_signatures_of_the_example_of_rfc_8463_pass(self) -> None:
        header, body = examples.RFC_8463_HEADER, examples.RFC_8463_BODY
        self.assertEqual(self.results(header, body), ["pass", "pass"])
        self.assertEqual(self.results("Subject: x\n" + header, body), ["fail", "fail"])
        self.assertEqual(self.results(header, b""), ["fail", "fail"])

    def test_their_properties(self) -> None:
        octets = examples.RFC_8463_HEADER.replace("\n", "\r\n").encode()
        _, result = verified(octets, [examples.RFC_8463_BODY], self.records)
        found = result.method_result()
        self.assertEqual((found.method, found.result, found.reason), ("dkim", "pass", ""))
        self.assertEqual(found.comment, "1024-bit key")
        self.assertEqual(
            found.properties,
            (
                ("header.d", "football.example.com"),
                ("header.i", "@football.example.com"),
                ("header.s", "test"),
                ("header.a", "rsa-sha256"),
                ("header.b", "F45dVWDf"),
            ),
        )


class DkimpySigns(VerificationTestCase):
    def test_its_signatures_pass_in_each_canonical_form(self) -> None:
        for form in product((b"simple", b"relaxed"), repeat=2):
            self.assertEqual(self.result(self.by_dkimpy(canonicalization=form)).result, "pass")

    def test_its_ed25519_signatures_pass(self) -> None:
        field = signature(HEADER + b"\r\n" + BODY, key("ed25519", selector="s2"))
        self.assertEqual(self.result(field + HEADER).result, "pass")

    def test_its_signatures_pass_wherever_the_body_is_cut(self) -> None:
        header = self.by_dkimpy()
        for at in range(len(BODY)):
            (found,) = verified(header, [BODY[:at], BODY[at:]], self.records)
            self.assertEqual(found.result, "pass", at)

    def test_a_body_length_that_covers_all_passes(self) -> None:
        self.assertEqual(self.result(self.by_dkimpy(length=True)).result, "pass")

    def test_octets_behind_the_length_are_a_matter_of_policy(self) -> None:
        header = self.by_dkimpy(length=True)
        self.assertResult("policy", "leaves 4 octets", header, BODY.rstrip() + b"\r\nxy\r\n")

    def test_a_body_shorter_than_its_length_fails(self) -> None:
        self.assertResult("fail", "shorter than l=", self.by_dkimpy(length=True), b"Hello\r\n")

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                (b"From: a\r\n", b"to:b\t\r\n  c\r\n", b"Subject: \xc3\xa9\r\n", b"X:  y\r\n")
            ),
            max_size=6,
        ),
        st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b".", b"\xff"]), max_size=12),
        st.sampled_from([*product((b"simple", b"relaxed"), repeat=2)]),
    )
    def test_what_it_signs_passes_whatever_it_is(
        self, fields: list[bytes], body: list[bytes], form: tuple[bytes, bytes]
    ) -> None:
        header = b"From: first\r\n" + b"".join(fields)
        text = b"".join(body) + b"\r\n"
        signer = key("ed25519", selector="s2")
        field = signature(header + b"\r\n" + text, signer, canonicalization=form)
        records = Records(signer)
        (found,) = verified(field + header, [*body, b"\r\n"], records)
        self.assertEqual(found.result, "pass", (form, header, text, found))


class ChangedMail(VerificationTestCase):
    def test_a_changed_body_fails(self) -> None:
        self.assertResult("fail", "body was changed", self.by_dkimpy(), BODY + b"x\r\n")

    def test_a_changed_or_added_signed_field_fails(self) -> None:
        header = self.by_dkimpy()
        self.assertResult("fail", "signed field", header.replace(b"Hello", b"Hallo"))
        self.assertResult("fail", "signed field", header + b"Subject: other\r\n")

    def test_an_unsigned_field_may_be_added(self) -> None:
        self.assertResult("pass", "", b"X-Spam: no\r\n" + self.by_dkimpy() + b"X: y\r\n")

    def test_a_changed_tag_fails(self) -> None:
        header = self.by_dkimpy().replace(b"v=1;", b"v=1; n=x;")
        self.assertResult("fail", "signed field", header)

    def test_each_signature_has_its_own_result(self) -> None:
        keys = key(), key("ed25519", selector="s2")
        fields = sign_all(HEADER, body_hash([BODY]), keys, time=NOW)
        header = fields.replace(b"s=s2", b"s=s3") + HEADER
        results = verified(header, [BODY], self.records)
        self.assertEqual([each.result for each in results], ["pass", "permerror"])

    def test_no_signature_has_no_result(self) -> None:
        self.assertEqual(verified(HEADER, [BODY], self.records), [])
        self.assertEqual(self.records.asked, [])


class Rules(VerificationTestCase):
    def changed(self, old: bytes, new: bytes) -> bytes:
        """Return the signed header with other tags; no signature of them is made."""
        header = self.by_dkimpy()
        self.assertIn(old, header)
        return header.replace(old, new, 1)

    def test_an_error_of_the_syntax_is_neutral(self) -> None:
        self.assertResult("neutral", "expected tag=value", self.changed(b"v=1;", b"v;"))

    def test_a_missing_tag_is_a_permanent_error(self) -> None:
        self.assertResult("permerror", "found no s=", self.changed(b"s=s1;", b""))

    def test_rsa_sha1_is_a_permanent_error(self) -> None:
        self.assertResult("permerror", "rsa-sha1", self.changed(b"rsa-sha256", b"rsa-sha1"))

    def test_an_expired_signature_is_a_permanent_error(self) -> None:
        header = self.changed(b"v=1;", b"v=1; x=%d;" % NOW).replace(b" t=", b" n=")
        self.assertResult("permerror", "expired", header, now=NOW + 1)
        self.assertResult("fail", "signed field", header, now=NOW)

    def test_a_field_that_is_no_tag_list_has_no_properties(self) -> None:
        found = self.result(b"DKIM-Signature: ;\r\n" + HEADER).method_result()
        self.assertEqual((found.result, found.properties), ("neutral", ()))

    def test_a_very_long_tag_is_no_property(self) -> None:
        for length, shown in ((320, True), (321, False)):
            identity = b"a" * (length - len(b"@example.net")) + b"@example.net"
            header = self.changed(b"i=@example.net;", b"i=" + identity + b";")
            properties = dict(self.result(header).method_result().properties)
            self.assertEqual(properties.get("header.i"), identity.decode() if shown else None)

    def test_ten_signatures_are_verified(self) -> None:
        header = self.by_dkimpy()
        field = header.removesuffix(HEADER)
        results = verified(field * 12 + HEADER, [BODY], self.records)
        self.assertEqual([each.result for each in results], ["pass"] * 10)
        self.assertEqual(self.records.asked, ["s1._domainkey.example.net"])

    def test_prefixes_tell_signatures_apart(self) -> None:
        """RFC 6008."""
        header = b"".join(
            b"DKIM-Signature: v=1; b=AAAAAAAAAA%b\r\n" % end for end in (b"B", b"C", b"D")
        )
        results = verified(header, [], self.records)
        self.assertEqual([each.prefix for each in results], ["A" * 10 + end for end in "BCD"])


class TheKey(VerificationTestCase):
    name = "s1._domainkey.example.net"

    def with_key(self, *texts: bytes) -> SignatureResult:
        self.records.records[self.name] = texts
        return self.result(self.by_dkimpy())

    def test_no_key_is_a_permanent_error(self) -> None:
        del self.records.records[self.name]
        self.assertResult("permerror", "no key at s1._domainkey.", self.by_dkimpy())
        self.assertEqual(self.with_key().result, "permerror")

    def test_no_answer_is_a_temporary_error(self) -> None:
        self.records.records[self.name] = LookupFailed(self.name, "TXT", "timeout")
        self.assertResult("temperror", "no answer from the DNS", self.by_dkimpy())

    def test_a_revoked_key_is_a_permanent_error(self) -> None:
        found = self.with_key(b"v=DKIM1; p=")
        self.assertEqual(found.result, "permerror")
        self.assertIn("revoked", found.reason)

    def test_a_key_of_another_type_is_a_permanent_error(self) -> None:
        found = self.with_key(record(key("ed25519")))
        self.assertEqual(found.result, "permerror")
        self.assertIn("found k=ed25519, expected rsa", found.reason)

    def test_another_key_fails(self) -> None:
        numbers = examples.RECORDS["brisbane._domainkey.example.com"]
        self.assertEqual(self.with_key(numbers).result, "fail")

    def test_the_record_that_fits_is_taken_among_several(self) -> None:
        other = b"v=spf1 -all"
        self.assertEqual(self.with_key(other, record(key("ed25519")), record(key())).result, "pass")
        self.assertEqual(self.with_key(*[other] * 10, record(key())).result, "permerror")

    def test_a_domain_that_tests_is_never_worse_than_unsigned(self) -> None:
        self.records.records[self.name] = [record(key()) + b"; t=y"]
        self.assertResult("neutral", "body was changed", self.by_dkimpy(), b"x")
        found = self.result(self.by_dkimpy())
        self.assertEqual(found.result, "pass")
        self.assertEqual(found.method_result().comment, "2048-bit key, testing")

    def test_a_strict_key_is_for_its_own_domain(self) -> None:
        below = self.by_dkimpy(identity=b"@eng.example.net")
        self.assertResult("pass", "", below)
        self.records.records[self.name] = [record(key()) + b"; t=s"]
        self.assertResult("permerror", "t=s", below)
        self.assertResult("pass", "", self.by_dkimpy(identity=b"ann@example.net"))


class Hostile(VerificationTestCase):
    @given(st.binary(max_size=80), st.integers(0, 400), st.integers(0, 100))
    @settings(deadline=None)
    def test_no_header_is_an_exception(self, octets: bytes, at: int, removed: int) -> None:
        header = sign_all(HEADER, b"", [key("ed25519", selector="s2")], time=NOW) + HEADER
        records = Records(key("ed25519", selector="s2"))
        changed = header[:at] + octets + header[at + removed :]
        for result in verified(changed, [BODY], records):
            self.assertNotEqual(result.result, "pass")

    def seconds(self, header: bytes) -> float:
        began = time.thread_time()
        verified(header, [BODY], self.records)
        return time.thread_time() - began

    def test_time_is_linear_whatever_the_header_is(self) -> None:
        tags = b"DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=s1; bh=YQ==; b=YQ==;"
        shapes: Sequence[Callable[[int], bytes]] = (
            lambda n: tags + b" h=From" + b":To" * (n // 3) + b"\r\n",
            lambda n: tags + b" h=From\r\nFrom:" + b" \t" * (n // 2) + b"\r\n",
            lambda n: tags + b" h=From\r\nFrom:" + b"\r\n " * (n // 3) + b"\r\n",
            lambda n: (tags + b" h=From:To\r\n") * 10 + b"To:\r\n" * (n // 5),
            lambda n: tags + b" h=From;" + b" " * n + b"\r\n",
            lambda n: b"DKIM-Signature:" + b";" * n + b"\r\n",
            lambda n: b"DKIM-Signature: b" + b" " * n + b"\r\n",
            lambda n: (b"DKIM-Signature: b=" + b"A" * 1000 + b"\r\n") * (n // 1000),
        )
        for number, shape in enumerate(shapes):
            small = min(self.seconds(shape(1 << 12)) for _ in range(3))
            large = min(self.seconds(shape(1 << 14)) for _ in range(3))
            self.assertLess(large, max(small, 0.002) * 8, number)
            largest = min(self.seconds(shape(1 << 15)) for _ in range(3))
            self.assertLess(largest, 0.1, number)
