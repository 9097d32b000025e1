"""Hashes of bodies that stream by: the same however the body is cut, and in linear time."""

import hashlib
import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.processor_time import collect_nothing
from twisted_mta.policy.dkim.body_hashes import BodyHashes, body_hash
from twisted_mta.policy.dkim.canonicalization import Canonicalization, relaxed_body

KINDS: tuple[Canonicalization, ...] = ("simple", "relaxed")
PIECES = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b"a", b"bc", b"\r\n\r\n", b"  "]),
    max_size=14,
)


def canonical(body: bytes, canonicalization: Canonicalization) -> bytes:
    """Return a canonical body by the words of RFC 6376 §3.4.3 and §3.4.4, one after the other."""
    if canonicalization == "relaxed":
        body = re.sub(rb"[ \t]+", b" ", body)
        body = re.sub(rb" (?=\r\n|\Z)", b"", body)
    while body.endswith(b"\r\n"):
        body = body[:-2]
    return body + b"\r\n" if body or canonicalization == "simple" else b""


def splits(body: bytes) -> Iterator[Sequence[bytes]]:
    yield [body]
    yield [body[at : at + 1] for at in range(len(body))]
    for at in range(1, len(body)):
        yield [body[:at], body[at:]]


class Whole(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(PIECES)
    def test_a_whole_body_has_the_relaxed_form_of_one_in_pieces(self, words: list[bytes]) -> None:
        body = b"".join(words)
        self.assertEqual(relaxed_body(body), canonical(body, "relaxed"))


class Hashes(SynchronousTestCase):
    def assertCanonical(
        self, body: bytes, expected: bytes, canonicalization: Canonicalization
    ) -> None:
        for pieces in splits(body):
            self.assertEqual(
                body_hash(pieces, canonicalization), hashlib.sha256(expected).digest(), pieces
            )

    def test_the_example_of_the_standard(self) -> None:
        """RFC 6376 §3.4.5."""
        body = b" C \r\nD \t E\r\n\r\n\r\n"
        self.assertCanonical(body, b" C\r\nD E\r\n", "relaxed")
        self.assertCanonical(body, b" C \r\nD \t E\r\n", "simple")

    def test_an_empty_body_is_one_line_end_or_nothing(self) -> None:
        for body in (b"", b"\r\n", b"\r\n\r\n"):
            self.assertCanonical(body, b"\r\n", "simple")
            self.assertCanonical(body, b"", "relaxed")
        self.assertCanonical(b" \t\r\n  ", b"", "relaxed")

    def test_a_missing_line_end_is_added(self) -> None:
        self.assertCanonical(b"a ", b"a \r\n", "simple")
        self.assertCanonical(b"a ", b"a\r\n", "relaxed")

    def test_bare_line_ends_are_text(self) -> None:
        for kind in KINDS:
            self.assertCanonical(b"a\n\r\r\n\r", b"a\n\r\r\n\r\r\n", kind)

    def test_white_space_before_a_cut_line_end_is_removed(self) -> None:
        self.assertCanonical(b"a \t \r\n\t b", b"a\r\n b\r\n", "relaxed")

    def test_a_large_piece_is_hashed_like_small_ones(self) -> None:
        body = b"".join(b"line %d \t\r\n" % number for number in range(12_000))
        small = [body[at : at + 1000] for at in range(0, len(body), 1000)]
        for kind in KINDS:
            expected = hashlib.sha256(canonical(body, kind)).digest()
            self.assertEqual([body_hash(small, kind), body_hash([body], kind)], [expected] * 2)

    @settings(deadline=None)
    @given(PIECES)
    def test_every_body_is_hashed_as_the_standard_says_however_it_is_cut(
        self, pieces: list[bytes]
    ) -> None:
        for kind in KINDS:
            expected = canonical(b"".join(pieces), kind)
            self.assertEqual(body_hash(pieces, kind), hashlib.sha256(expected).digest())

    @settings(deadline=None)
    @given(PIECES, st.integers(0, 20))
    def test_a_limit_hashes_the_first_octets_of_the_canonical_body(
        self, pieces: list[bytes], limit: int
    ) -> None:
        for kind in KINDS:
            expected = canonical(b"".join(pieces), kind)
            hashes = BodyHashes()
            hashes.want(kind, limit)
            hashes.want(kind)
            for piece in pieces:
                hashes.feed(piece)
            found = hashes.result(kind, limit)
            if limit > len(expected):
                self.assertIsNone(found.uncovered)
            else:
                self.assertEqual(found.uncovered, len(expected) - limit)
                self.assertEqual(found.digest, hashlib.sha256(expected[:limit]).digest())
            self.assertEqual(hashes.result(kind).digest, hashlib.sha256(expected).digest())


class Cost(SynchronousTestCase):
    bodies = (b"\r\n", b" ", b"\t", b"\r", b"a ", b"a  ", b"x \r\n", b" \r\n", b"\n\r", b"\r\r\n")

    def seconds(self, unit: bytes, size: int, *, piece: int = 65_536) -> float:
        hashes = BodyHashes()
        for kind in KINDS:
            hashes.want(kind)
            hashes.want(kind, 1000)
        text = (unit * (piece // len(unit) + 1))[:piece]
        began = time.thread_time()
        for _ in range(size // piece):
            hashes.feed(text)
        for kind in KINDS:
            hashes.result(kind)
        return time.thread_time() - began

    def test_time_is_linear_whatever_the_body_is(self) -> None:
        for unit in self.bodies:
            small = min(self.seconds(unit, 1 << 18) for _ in range(3))
            large = min(self.seconds(unit, 1 << 20) for _ in range(3))
            self.assertLess(large, max(small, 0.005) * 8, unit)

    def test_each_piece_takes_milliseconds_even_after_megabytes_of_empty_lines(self) -> None:
        hashes = BodyHashes()
        for kind in KINDS:
            hashes.want(kind)
        for _ in range(80):
            hashes.feed(b"\r\n" * 32_768)
        collect_nothing(self)
        began = time.thread_time()
        hashes.feed(b"x")
        hashes.result("simple")
        self.assertLess(time.thread_time() - began, 0.02)

    def test_memory_does_not_grow_with_the_body(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for unit in (b"\r\n", b" ", b"\r"):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            self.seconds(unit, 1 << 22)
            _, peak = tracemalloc.get_traced_memory()
            self.assertLess(peak - before, 1 << 20, unit)
