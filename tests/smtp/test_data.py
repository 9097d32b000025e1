"""The framing of content, compared with a simple reader, at any split."""

import itertools
import os
from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.smtp.data import DataReader, NewlineNormalizer

# Mostly the octets that matter.
OCTETS = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"\0", b"a", b".\r\n"]),
    max_size=40,
).map(b"".join)
CUTS = st.lists(st.integers(0, 80), max_size=20)


def pieces(octets: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[start:end] for start, end in itertools.pairwise(places)]


def naively(octets: bytes) -> tuple[bytes, bytes] | None:
    """Return content and rest, read line by line; None where the content has not ended."""
    content = []
    while True:
        line, end, octets = octets.partition(b"\r\n")
        if not end:
            return None
        if line == b".":
            return b"".join(content), octets
        content.append(line.removeprefix(b".") + end)


def is_bare(content: bytes) -> bool:
    rest = content.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest or b"\0" in rest


class Reading(SynchronousTestCase):
    @settings(max_examples=500)
    @given(OCTETS, CUTS)
    @example(b".\r\n", [])
    @example(b"\r\n.\r\r\n.\r\n", [1, 2, 3, 4, 5, 6, 7, 8])
    def test_the_result_is_that_of_a_simple_reader_at_any_split(
        self, octets: bytes, cuts: list[int]
    ) -> None:
        reader = DataReader(look_for_long_lines=True)
        content, rest = b"", b""
        for piece in pieces(octets, cuts):
            if reader.finished:
                rest += piece
            else:
                read, rest = reader.read(piece)
                content += read
        expected = naively(octets)
        self.assertEqual(reader.finished, expected is not None)
        if expected is not None:
            self.assertEqual((content, rest), expected)
            self.assertEqual(reader.bare, is_bare(content))
        self.assertFalse(reader.long)

    def test_the_result_is_the_same_octet_by_octet_and_at_every_split(self) -> None:
        octets = b"a\r\n..\r\n.b\r\n\r\n.\rc\r\n.\n.\r\n..\r\r\n.\r\nREST"
        expected = naively(octets)
        for cuts in (range(len(octets)), *[(cut,) for cut in range(len(octets))]):
            reader = DataReader()
            content, rest = b"", b""
            for piece in pieces(octets, list(cuts)):
                if reader.finished:
                    rest += piece
                else:
                    read, rest = reader.read(piece)
                    content += read
            self.assertEqual((content, rest), expected)

    def test_a_dot_between_other_line_ends_looks_like_the_end_at_any_split(self) -> None:
        for octets, looks_ended in (
            (b"a\n.\n", True),
            (b"a\r.\r", True),
            (b"a\n.\r\n", True),
            (b"a\r\n.\n", True),
            (b"a\r\n.\r", True),
            (b"a\r\n.\r\n", False),  # the end
            (b"a\n.", False),
            (b"a.\n", False),
            (b"a\n..\n", False),
            (b"a\n.\nb", False),
            (b"a\n.\n\n", False),
        ):
            for cuts in ([], range(len(octets))):
                reader = DataReader()
                self.assertFalse(reader.looks_ended)
                for piece in pieces(octets, list(cuts)):
                    reader.read(piece)
                self.assertEqual(reader.looks_ended, looks_ended, octets)

    def test_at_most_four_octets_are_held_back(self) -> None:
        reader = DataReader()
        taken, returned = 0, 0
        for piece in (b"x" * 1000, b"\r", b"\n", b".", b"\r", b"y", b"\r\n.", b"\r\n"):
            taken += len(piece)
            returned += len(reader.read(piece)[0])
            if not reader.finished:
                self.assertLessEqual(taken - returned, 4)
        self.assertTrue(reader.finished)

    def test_long_lines_are_noticed_at_any_split(self) -> None:
        for length, long in ((998, False), (999, True)):
            for cuts in ([], list(range(1005)), [500], [997], [998], [999], [1000]):
                reader = DataReader(look_for_long_lines=True)
                for piece in pieces(b"ok\r\n" + b"x" * length + b"\r\n.\r\n", cuts):
                    reader.read(piece)
                self.assertEqual(reader.long, long, (length, cuts[:1]))

    def test_a_bare_cr_or_lf_ends_a_line(self) -> None:
        # Where newlines are normalized each becomes CR LF; elsewhere the message is refused.
        for end in (b"\r", b"\n"):
            for cuts in ([], list(range(2000))):
                reader = DataReader(look_for_long_lines=True)
                for piece in pieces((b"x" * 600 + end) * 3 + b"\r\n.\r\n", cuts):
                    reader.read(piece)
                self.assertEqual((reader.bare, reader.long), (True, False), (end, cuts[:1]))

    def test_looking_for_long_lines_costs_the_same_whatever_their_length(self) -> None:
        # A search for 999 octets in a row takes 80 times as long for lines just under the limit.
        def cost(line: bytes) -> int:
            reader = DataReader(look_for_long_lines=True)
            content = line * (65_536 // len(line))
            before = os.times().user
            for _ in range(30):
                reader.read(content)
            self.assertFalse(reader.long)
            return round((os.times().user - before) * 1000)

        self.assertLess(cost(b"x" * 998 + b"\r\n"), 10 * max(20, cost(b"x" * 76 + b"\r\n")))


def normalized(content: Sequence[bytes]) -> bytes:
    normalizer = NewlineNormalizer()
    return b"".join(map(normalizer.feed, content)) + normalizer.end()


class Normalizing(SynchronousTestCase):
    def test_each_bare_cr_and_lf_becomes_cr_lf_and_several_crs_before_lf_become_one(self) -> None:
        for written, kept in (
            (b"a\nb", b"a\r\nb"),
            (b"a\rb", b"a\r\nb"),
            (b"a\r\nb", b"a\r\nb"),
            (b"a\n\nb", b"a\r\n\r\nb"),
            (b"a\r\rb", b"a\r\n\r\nb"),
            (b"a\n\rb", b"a\r\n\r\nb"),
            # Written by programs that add a CR to each LF twice.
            (b"a\r\r\nb\r\r\r\nc", b"a\r\nb\r\nc"),
            (b"a\r\0\nb\0c", b"a\r\nbc"),
            (b"a\r", b"a\r\n"),
            (b"a\r\r", b"a\r\n\r\n"),
        ):
            for cuts in ([], list(range(len(written)))):
                self.assertEqual(normalized(pieces(written, cuts)), kept, written)

    def test_normalizing_a_run_of_crs_takes_linear_time(self) -> None:
        def cost(octets: int) -> float:
            before = os.times().user
            normalized([b"\r" * octets])
            normalized(pieces(b"\r" * octets + b"a", list(range(0, octets, 64))))
            return os.times().user - before

        self.assertLess(cost(400_000), 20 * max(0.02, cost(40_000)))

    @settings(max_examples=500)
    @given(OCTETS, CUTS)
    @example(b"\r\0\n", [1, 2])
    def test_the_result_is_the_same_at_any_split_and_has_no_bare_newline(
        self, octets: bytes, cuts: list[int]
    ) -> None:
        whole = normalized([octets])
        self.assertEqual(normalized(pieces(octets, cuts)), whole)
        self.assertFalse(is_bare(whole))
        self.assertEqual(whole.replace(b"\r\n", b""), octets.translate(None, b"\r\n\0"))
