"""Canonical forms of header fields."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.dkim.canonicalization import field_name, relaxed_field, split_fields
from twisted_mta.policy.dkim.signed_header import SignedHeader, unsigned_field

# RFC 6376 §3.4.5
EXAMPLE = b"A: X\r\nB : Y\t\r\n\tZ  \r\n"


class Fields(SynchronousTestCase):
    def test_a_field_has_all_its_lines(self) -> None:
        self.assertEqual(split_fields(EXAMPLE), [b"A: X\r\n", b"B : Y\t\r\n\tZ  \r\n"])

    def test_bare_line_ends_do_not_end_a_field(self) -> None:
        self.assertEqual(split_fields(b"A: X\nB: Y\rC\r\n"), [b"A: X\nB: Y\rC\r\n"])

    def test_a_header_without_the_last_line_end_loses_nothing(self) -> None:
        self.assertEqual(split_fields(b"A: X\r\nB: Y"), [b"A: X\r\n", b"B: Y"])

    def test_no_header_has_no_fields(self) -> None:
        self.assertEqual(split_fields(b""), [])

    def test_names_have_no_case_and_no_white_space(self) -> None:
        for field in (b"SuBJect \t: x\r\n", b"SUBJECT\r\n \r\n\t: x\r\n"):
            self.assertEqual(field_name(field), b"subject")
            self.assertEqual(relaxed_field(field), b"subject:x\r\n")

    def test_a_line_without_a_colon_has_no_name(self) -> None:
        self.assertEqual(field_name(b"nothing\r\n"), b"")


class Relaxed(SynchronousTestCase):
    def test_the_example_of_the_standard(self) -> None:
        self.assertEqual([*map(relaxed_field, split_fields(EXAMPLE))], [b"a:X\r\n", b"b:Y Z\r\n"])

    def test_an_empty_value_stays_empty(self) -> None:
        self.assertEqual(relaxed_field(b"X: \t \r\n \r\n"), b"x:\r\n")

    def test_long_runs_of_white_space_are_one_space(self) -> None:
        for count in range(1, 40):
            field = b"X:a" + b" \t"[: count % 3] + b" " * count + b"b\r\n"
            self.assertEqual(relaxed_field(field), b"x:a b\r\n")


class Selection(SynchronousTestCase):
    header = SignedHeader(b"To: 1\r\nFrom: 2\r\nto: 3\r\nTO: 4\r\n")

    def test_a_repeated_name_means_the_next_field_above(self) -> None:
        """RFC 6376 §5.4.2."""
        self.assertEqual(
            self.header.select([b"to", b"from", b"to"], "simple"),
            [b"TO: 4\r\n", b"From: 2\r\n", b"to: 3\r\n"],
        )

    def test_a_name_without_a_field_adds_nothing(self) -> None:
        self.assertEqual(self.header.select([b"from", b"from", b"cc"], "relaxed"), [b"from:2\r\n"])

    def test_the_signature_itself_is_never_selected(self) -> None:
        self.assertEqual(
            self.header.select([b"to", b"to"], "simple", without=3),
            [b"to: 3\r\n", b"To: 1\r\n"],
        )


class OwnField(SynchronousTestCase):
    def test_the_value_of_b_is_removed_with_the_white_space_around_it(self) -> None:
        for field, expected in (
            (b"D: a=1; b = x\r\n y ; c=2\r\n", b"D: a=1; b =; c=2"),
            (b"D: a=1; b=x\r\n", b"D: a=1; b="),
            (b"D: b=x; a=1\r\n", b"D: b=; a=1"),
            (b"D:b=x;bb=2;b2=3\r\n", b"D:b=;bb=2;b2=3"),
            (b"D: bh=x; h=from:b=y; b=z\r\n", b"D: bh=x; h=from:b=y; b="),
        ):
            self.assertEqual(unsigned_field(field), expected)

    def test_it_is_relaxed_like_other_fields(self) -> None:
        self.assertEqual(
            unsigned_field(relaxed_field(b"D:  a=1;\r\n\tb=x\r\n y\r\n ; c\r\n")), b"d:a=1; b=; c"
        )
