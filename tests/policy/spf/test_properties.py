"""Whatever records, names and answers are made of: a check has a result, in linear time."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.readers.spf import READERS
from tests.fuzz.scaling import HELD, Shape, measured
from twisted_mta.policy.spf.evaluation import Checker, Claim
from twisted_mta.policy.spf.macros import domain, expanded_name, expanded_text, is_domain_spec
from twisted_mta.policy.spf.record import Malformed, parse
from twisted_mta.policy.spf.result import Result
from twisted_mta.testing.resolver import FakeResolver

WORDS = ("none", "neutral", "pass", "fail", "softfail", "temperror", "permerror")
DOMAINS = ("a.example", "b.example", "c.example", "_x.a.example")
ADDRESSES = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "::ffff:192.0.2.1")

LETTERS = "slodiphcrtvSLODIPHCRTVx"
MACROS = st.builds(
    "%{{{}{}{}{}}}".format,
    st.sampled_from(LETTERS),
    st.sampled_from(("", "0", "1", "2", "99", "0001")),
    st.sampled_from(("", "r", "R")),
    st.text(".-+,/_=", max_size=3),
)
PIECES = st.one_of(
    MACROS,
    st.sampled_from(
        (*DOMAINS, "example", ".", "..", "-", "%%", "%_", "%-", "%", "{", "}", "x" * 64)
    ),
)
SPECS = st.one_of(st.sampled_from(DOMAINS), st.lists(PIECES, max_size=4).map("".join))
LENGTHS = st.sampled_from(("", "", "/24", "//64", "/0//0", "/33", "//129", "/", "/01"))
TERMS = st.one_of(
    st.builds(
        "{}{}:{}{}".format,
        st.sampled_from(("", "", "+", "-", "~", "?", "!")),
        st.sampled_from(("a", "mx", "ptr", "include", "exists", "A", "all", "moo")),
        SPECS,
        LENGTHS,
    ),
    st.builds("{}{}".format, st.sampled_from(("a", "mx", "ptr", "-all", "~all", "all")), LENGTHS),
    st.builds("{}={}".format, st.sampled_from(("redirect", "exp", "x", "1")), SPECS),
    st.sampled_from(("ip4:192.0.2.1", "ip4:192.0.2.0/24", "-ip6:2001:db8::/32", "ip4:1", "ip6::")),
)
RECORDS = st.builds("v=spf1 {}".format, st.lists(TERMS, max_size=6).map(" ".join))
TEXTS = st.one_of(RECORDS, RECORDS, st.text(max_size=20), st.lists(PIECES, max_size=5).map("".join))
NAMES = st.one_of(st.sampled_from(DOMAINS), st.sampled_from(("", ".", "a..b", "\u202e", "x" * 64)))


class Anything(SynchronousTestCase):
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        texts=st.dictionaries(st.sampled_from(DOMAINS), st.lists(TEXTS, max_size=2), max_size=4),
        exchangers=st.dictionaries(
            st.sampled_from(DOMAINS), st.lists(st.tuples(st.integers(0, 9), NAMES), max_size=12)
        ),
        addresses=st.dictionaries(
            st.sampled_from(DOMAINS), st.lists(st.sampled_from(ADDRESSES[:3]), max_size=3)
        ),
        pointers=st.lists(NAMES, max_size=12),
        failing=st.sampled_from(("", *DOMAINS)),
        local_part=st.text(max_size=12),
        helo=st.text(max_size=12),
        address=st.sampled_from(ADDRESSES),
        name=NAMES,
    )
    def test_a_check_has_a_result_that_can_be_shown(
        self,
        texts: dict[str, list[str]],
        exchangers: dict[str, list[tuple[int, str]]],
        addresses: dict[str, list[str]],
        pointers: list[str],
        failing: str,
        local_part: str,
        helo: str,
        address: str,
        name: str,
    ) -> None:
        resolver = FakeResolver(
            exchangers,
            addresses,
            {
                each: [text.encode("utf-8", "replace") for text in found]
                for each, found in texts.items()
            },
            dict.fromkeys(ADDRESSES[:3], pointers),
        )
        resolver.fail(failing)
        clock = Clock()
        checker = Checker(resolver=resolver, clock=clock, wall_time=lambda: 0.0, hostname="")
        claim = Claim(address=address, domain=name, local_part=local_part, helo=helo)
        checking = Deferred.fromCoroutine(checker.check(claim))
        clock.advance(0)
        result: Result = self.successResultOf(checking)
        self.assertIn(result.result, WORDS)
        self.assertTrue(all(0x20 <= ord(each) < 0x7F for each in f"{result}{result.explanation}"))
        self.assertLess(len(f"{result}{result.explanation}"), 1000)
        # Ten terms, each with ten names and a record; the client's ten names; and an explanation.
        self.assertLess(len(resolver.lookups), 1 + 10 * 11 + 11 + 1)
        self.assertEqual(clock.getDelayedCalls(), [])

    @settings(max_examples=100)
    @given(
        st.one_of(
            st.binary(max_size=60), st.text(max_size=60).map(str.encode), RECORDS.map(str.encode)
        )
    )
    def test_a_record_is_read_or_refused(self, octets: bytes) -> None:
        try:
            record = parse(b"v=spf1 " + octets)
        except Malformed as malformed:
            self.assertTrue(str(malformed).isprintable())
        else:
            for mechanism in record.mechanisms:
                self.assertTrue(not mechanism.target or is_domain_spec(mechanism.target))

    @settings(max_examples=100)
    @given(st.lists(MACROS, max_size=8).map("".join), st.text(max_size=300))
    def test_an_expanded_name_is_a_domain_name_or_none(self, spec: str, value: str) -> None:
        values = dict.fromkeys("slodiphcrtvx", value)
        name = expanded_name(spec, values)
        if name is not None:
            self.assertLessEqual(len(name), 253)
            self.assertEqual(domain(name), name)
        self.assertLessEqual(len(expanded_text(spec, values, 400) or ""), 400)


class Time(SynchronousTestCase):
    """A record of four times the octets takes four times as long at most."""

    def test_reading_evaluating_and_expanding_is_linear(self) -> None:
        for reader in READERS:
            for start, end in reader.frames:
                for word in reader.words:
                    shape = Shape(start, end, (word,))
                    found = measured(reader, shape)
                    self.assertFalse(found.steep, f"{reader.name} {shape}: {found}")
                    self.assertLess(found.longest, HELD, f"{reader.name} {shape}: {found}")
