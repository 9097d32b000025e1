"""Patterns agree with ``re`` on what they have in common, and take linear time."""

from __future__ import annotations

import re
import time
from random import Random  # noqa: TID251

from tests.tidy import TidyTestCase
from twisted_mta.mail.linear_pattern import LinearPattern

ATOMS = ("a", "b", "B", ".", "[ab]", "[^a]", "[a-c]", r"\d", r"\W", r"\.", "(a|bc)", "(?:(?:b*a)?)")
REPEATS = ("", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?")


class Matching(TidyTestCase):
    def test_random_patterns_find_what_re_finds(self) -> None:
        random = Random(4)
        for _ in range(3000):
            pieces = [
                random.choice(ATOMS) + random.choice(REPEATS) for _ in range(random.randint(0, 4))
            ]
            pattern = "".join(pieces)
            if random.random() < 0.3:
                pattern += "|" + random.choice(ATOMS)
            if random.random() < 0.3:
                pattern = "^" + pattern
            if random.random() < 0.3:
                pattern += "$"
            ours, theirs = LinearPattern(pattern), re.compile(pattern, re.IGNORECASE)
            for _ in range(10):
                text = "".join(random.choice("abcC.1_ ") for _ in range(random.randint(0, 8)))
                found = theirs.search(text) is not None
                self.assertIs(ours.search(text), found, (pattern, text))

    def test_replies_of_providers(self) -> None:
        reply = "421 4.7.28 [192.0.2.1 15] Our system has detected an unusual rate; see example.com"
        for pattern, found in (
            (r"^421 4\.7\.2\d ", True),
            (r"unusual RATE", True),
            (r"rate of|blocked", False),
            (r"\[[0-9.]+ +\d+\]", True),
            (r"example\.com$", True),
            (r"^unusual", False),
        ):
            self.assertIs(LinearPattern(pattern).search(reply), found, pattern)

    def test_what_is_not_regular_or_wrong_is_an_error(self) -> None:
        for pattern, error in (
            (r"(a)\1", r"\\1"),
            ("(?=a)", r"\(\?"),
            (r"\bword", r"\\b"),
            ("(a", "not closed"),
            ("a)", "expected the end"),
            ("[a", "not closed"),
            ("*a", r"write \\\*"),
            ("a**", "after a repetition"),
            ("a{3,2}", "higher"),
            ("a{999}", "at most 200"),
            ("(a{20}){20}", "at most 200"),
            ("a" * 201, "at most 200"),
            ("[b-a]", "lower character first"),
            ("a\\", "at the end"),
            ("(((((){200}){200}){200}){200}){200}", "within repetitions"),
            ("(" * 2000, "expected|within"),
            ("(^a)", "at the ends alone|write"),
        ):
            with self.assertRaisesRegex(ValueError, error):
                LinearPattern(pattern)

    def test_patterns_that_take_re_years_take_milliseconds(self) -> None:
        for pattern in ("(a+)+z", "(a|a)*(a|aa)+$", ".*.*.*.*.*x", "([ab]+c?)+([ba]+d?)+e"):
            compiled = LinearPattern(pattern)
            for text in ("a" * 500, "ab" * 250, "aab" * 166):
                began = time.process_time()
                self.assertIs(compiled.search(text + "!"), False)
                self.assertLess(time.process_time() - began, 0.2)

    def test_hostile_text_for_a_large_pattern_takes_milliseconds(self) -> None:
        random = Random(1)
        compiled = LinearPattern("(a|b)*a" + "(a|b)" * 90)
        text = "".join(random.choice("ab") for _ in range(500))
        began = time.process_time()
        compiled.search("c" + text + "c")
        self.assertLess(time.process_time() - began, 0.2)
