"""The results of ARC chains that dkimpy has sealed, and of broken ones."""

import time
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.policy.dkim.keys import Records
from twisted_mta.dns.failure import LookupFailed
from twisted_mta.policy.arc.validation import ChainResult, ChainValidation
from twisted_mta.policy.dkim.body_hashes import BodyHashes
from twisted_mta.policy.dkim.signed_header import SignedHeader

from .chains import BODY, HEADER, LISTS, NOW, RELAY, chain, sealed


def validated(header: bytes, body: bytes, records: Records) -> ChainResult:
    """Return the result of a chain."""
    bodies = BodyHashes()
    validation = ChainValidation(SignedHeader(header), bodies, NOW)
    if validation.known is None:
        validation.look_up(records)
    bodies.feed(body)
    found: list[ChainResult] = []
    Deferred.fromCoroutine(validation.result()).addCallback(found.append)
    (result,) = found
    return result


class ChainTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.records = Records(LISTS, RELAY)

    def result(self, header: bytes, body: bytes = BODY) -> ChainResult:
        return validated(header, body, self.records)

    def assertFails(self, reason: str, header: bytes, body: bytes = BODY) -> None:
        found = self.result(header, body)
        self.assertEqual((found.result, found.oldest_pass), ("fail", None))
        self.assertIn(reason, found.reason)


class Chains(ChainTestCase):
    def test_mail_without_a_chain_has_none(self) -> None:
        self.assertEqual(self.result(HEADER), ChainResult("none"))
        self.assertEqual(self.records.asked, [])

    def test_one_set_passes(self) -> None:
        self.assertEqual(self.result(chain(1)), ChainResult("pass", "", ("lists.example",), 0))

    def test_a_chain_of_several_passes(self) -> None:
        found = self.result(chain(3))
        sealers = ("lists.example", "relay.example", "lists.example")
        self.assertEqual(found, ChainResult("pass", "", sealers, 0))

    def test_each_key_is_looked_up_once(self) -> None:
        self.result(chain(3))
        self.assertEqual(
            sorted(self.records.asked), ["a._domainkey.lists.example", "c._domainkey.relay.example"]
        )

    def test_the_oldest_signature_that_passes_is_known(self) -> None:
        """A list adds a footer, so that only newer sets know the message as it is."""
        footer = BODY.rstrip() + b"\r\n-- \r\nfooter\r\n"
        second = sealed(chain(1), footer, RELAY, "pass")
        third = sealed(second, footer, LISTS, "pass")
        self.assertEqual(self.result(second, footer).oldest_pass, 2)
        self.assertEqual(self.result(third, footer).oldest_pass, 2)

    def test_dkimpy_agrees(self) -> None:
        import dkim

        def look_up(name: bytes, timeout: int = 5) -> bytes | None:
            found = self.records.records.get(name.decode().removesuffix("."), [])
            assert isinstance(found, Sequence)
            return found[0] if found else None

        for header, body in (
            (chain(1), BODY),
            (chain(3), BODY),
            (chain(3), b"x\r\n"),
            (chain(2).replace(b"cv=none", b"cv=pass"), BODY),
            (chain(2).replace(b"Hello", b"Hallo"), BODY),
            (HEADER, BODY),
        ):
            cv, _, _ = dkim.ARC(header + b"\r\n" + body).verify(dnsfunc=look_up)
            self.assertEqual(self.result(header, body).result, cv.decode())


class BrokenChains(ChainTestCase):
    def changed(self, length: int, old: bytes, new: bytes) -> bytes:
        header = chain(length)
        self.assertIn(old, header)
        return header.replace(old, new)

    def test_a_changed_body_or_field_fails(self) -> None:
        self.assertFails("signature of instance 2: the body", chain(2), b"x\r\n")
        header = self.changed(2, b"Hello", b"Hallo")
        self.assertFails("signature of instance 2: a signed field", header)

    def test_a_changed_older_set_fails(self) -> None:
        header = chain(2)
        old = b"ARC-Authentication-Results: i=1; mx.example"
        self.assertIn(old, header)
        changed = header.replace(old, old + b"s")
        self.assertFails("seal of instance 1: a sealed field", changed)

    def test_a_chain_that_has_ended_fails(self) -> None:
        self.assertFails("instance 1: found cv='fail'", self.changed(1, b"cv=none", b"cv=fail"))
        self.assertFails("instance 2: found cv='none'", self.changed(2, b"cv=pass", b"cv=none"))
        self.assertFails("instance 1: found cv='pass'", self.changed(2, b"cv=none", b"cv=pass"))
        self.assertFails("found no cv=", self.changed(1, b"cv=none", b"cw=none"))

    def test_sets_are_complete_and_without_a_gap(self) -> None:
        first, second = chain(1), chain(2)
        added = second.removesuffix(first)
        self.assertFails("not complete", added + HEADER)
        for name in (b"ARC-Seal", b"ARC-Message-Signature", b"ARC-Authentication-Results"):
            self.assertFails("not complete", first.replace(name, b"X", 1))
            self.assertFails("not complete", HEADER + name + b": i=1; cv=none\r\n")

    def test_an_instance_occurs_once(self) -> None:
        first = chain(1)
        self.assertFails("two ARC sets of instance 1", first.removesuffix(HEADER) + first)

    def test_instances_are_from_1_to_50(self) -> None:
        for number in (b"0", b"51", b"x", b"-1", b"001", b""):
            for field in (
                b"ARC-Seal: i=%b; cv=none\r\n",
                b"ARC-Authentication-Results: i=%b; a\r\n",
            ):
                self.assertFails("no instance", field % number + HEADER)
        many = b"".join(b"ARC-Seal: i=%d; cv=none\r\n" % number for number in range(1, 52))
        self.assertFails("more than 50", many + HEADER)

    def test_a_seal_names_no_fields(self) -> None:
        self.assertFails("has h=", self.changed(1, b"cv=none;", b"cv=none; h=from;"))

    def test_a_message_signature_does_not_sign_seals(self) -> None:
        self.assertFails("ARC-Seal is signed", self.changed(1, b"h=from", b"h=arc-seal:from"))

    def test_fields_that_cannot_be_read_fail(self) -> None:
        self.assertFails("expected tag=value", b"ARC-Seal: i\r\n" + HEADER)
        self.assertFails("found a='rsa-sha1'", self.changed(1, b"rsa-sha256", b"rsa-sha1"))
        for tag in (b"a=rsa-sha256;", b"d=lists.example;", b"s=a;", b"b="):
            seal, rest = chain(1).split(b"ARC-Message-Signature", 1)
            header = seal.replace(b" " + tag, b" n=" + tag) + b"ARC-Message-Signature" + rest
            self.assertFails(f"found no {tag[:1].decode()}=", header)

    def test_octets_that_no_signature_covers_fail(self) -> None:
        self.assertFails("signature of instance 1: ", self.changed(1, b" bh=", b" l=1; bh="))

    def test_an_expired_signature_of_the_message_fails(self) -> None:
        for expires, reason in ((NOW - 1, "it has expired"), (NOW, "a signed field")):
            header = self.changed(1, b"t=%d;" % NOW, b"x=%d;" % expires)
            self.assertFails(f"signature of instance 1: {reason}", header)

    def test_a_missing_key_fails(self) -> None:
        del self.records.records["a._domainkey.lists.example"]
        self.assertFails("no key at a._domainkey.lists.example", chain(2))

    def test_a_key_that_cannot_be_looked_up_is_a_temporary_error(self) -> None:
        name = "a._domainkey.lists.example"
        self.records.records[name] = LookupFailed(name, "TXT", "timeout")
        found = self.result(chain(2))
        self.assertEqual(found.result, "temperror")
        self.assertEqual(found.sealers, ("relay.example", "lists.example"))

    def test_what_fails_for_good_is_no_temporary_error(self) -> None:
        name = "a._domainkey.lists.example"
        self.records.records[name] = LookupFailed(name, "TXT", "timeout")
        self.assertFails("signature of instance 2", chain(2), b"x")

    @given(st.binary(max_size=60), st.integers(0, 1500), st.integers(0, 80))
    @settings(deadline=None, max_examples=50)
    def test_no_header_is_an_exception(self, octets: bytes, at: int, removed: int) -> None:
        header = chain(2)
        self.result(header[:at] + octets + header[at + removed :])


class Cost(ChainTestCase):
    def seconds(self, header: bytes) -> float:
        began = time.thread_time()
        self.result(header)
        return time.thread_time() - began

    def test_the_longest_chain_takes_milliseconds(self) -> None:
        header = chain(50)
        found = self.result(header)
        self.assertEqual((found.result, found.oldest_pass), ("pass", 41))
        self.assertLess(min(self.seconds(header) for _ in range(3)), 0.1)

    def test_time_is_linear_whatever_the_header_is(self) -> None:
        shapes: Sequence[Callable[[int], bytes]] = (
            lambda n: b"ARC-Authentication-Results: i" + b" " * n + b"\r\n",
            lambda n: b"ARC-Authentication-Results: " + b"(" * n + b"\r\n",
            lambda n: b"ARC-Authentication-Results: " + b"()" * (n // 2) + b"\r\n",
            lambda n: b"ARC-Seal: i=1;" + b"a=;" * (n // 3) + b"\r\n",
            lambda n: b"ARC-Seal: i=1;\r\n" * (n // 16),
        )
        for number, shape in enumerate(shapes):
            small = min(self.seconds(shape(1 << 12)) for _ in range(3))
            large = min(self.seconds(shape(1 << 14)) for _ in range(3))
            self.assertLess(large, max(small, 0.002) * 8, number)
