"""Tests of `twisted_mta.mail.leading_dot`."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.leading_dot import leading_dot


class LeadingDotTests(SynchronousTestCase):
    def test_a_line_with_a_dot_is_found_at_each_place(self) -> None:
        for at in (*range(4), *range(8180, 8200), 20_000):
            with self.subTest(at=at):
                octets = b"x" * at + b"\r\n." + b"x" * 10
                self.assertEqual(at, leading_dot(octets))

    def test_the_first_of_several_is_found(self) -> None:
        for first in (10, 8190, 9000):
            with self.subTest(first=first):
                octets = b".x." + b"x" * (first - 3) + b"\r\n..\r\n." + b"x" * 9000 + b"\r\n."
                self.assertEqual(first, leading_dot(octets))

    def test_dots_elsewhere_begin_no_line(self) -> None:
        self.assertEqual(-1, leading_dot(b""))
        self.assertEqual(-1, leading_dot(b"."))
        self.assertEqual(-1, leading_dot((b"a.b\r\nc.d\n.e\r." * 2000) + b"\r\n"))

    def test_it_finds_what_a_plain_search_finds(self) -> None:
        for before in (0, 8186, 8189, 8192):
            for octets in map(bytes, product(b"\r\n.x", repeat=6)):
                content = b"x" * before + octets
                self.assertEqual(content.find(b"\r\n."), leading_dot(content))
