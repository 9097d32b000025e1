"""DNS queries and answers on the wire, and the cache of answers, with their limits."""

from __future__ import annotations

from collections.abc import Callable

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.tidy import TidyTestCase
from twisted_mta.dns.cache import Cache
from twisted_mta.dns.message import (
    AAAA,
    MOST_RECORDS,
    MX,
    NXDOMAIN,
    A,
    Answer,
    Malformed,
    Unrelated,
    encode_query,
    parse_answer,
    text_name,
    wire_name,
)

NAME = wire_name("example.net")
ID = 0x1234


def respond(*records: str, type: int = MX, rcode: int = 0, authority: str = "") -> bytes:
    """Return an answer made by dnspython."""
    response = dns.message.make_response(
        dns.message.from_wire(encode_query(ID, NAME, type, edns=True))
    )
    response.set_rcode(dns.rcode.Rcode(rcode))
    for section, texts in ((response.answer, records), (response.authority, [authority])):
        for text in filter(None, texts):
            name, ttl, _, kind, *rest = text.split()
            section.append(dns.rrset.from_text(name, int(ttl), "IN", kind, " ".join(rest)))
    return response.to_wire()


class Queries(TidyTestCase):
    def test_dnspython_parses_queries(self) -> None:
        for edns in (True, False):
            parsed = dns.message.from_wire(encode_query(ID, NAME, MX, edns=edns))
            self.assertEqual(parsed.id, ID)
            self.assertEqual(parsed.question[0].to_text(), "example.net. IN MX")
            self.assertEqual(parsed.edns, 0 if edns else -1)
            self.assertEqual(parsed.payload, 1232 if edns else 0)
            self.assertEqual(parsed.flags, dns.flags.RD | dns.flags.AD)

    def test_names_have_a_wire_form_and_a_text_form(self) -> None:
        for text in ("example.net", "a-b.xn--bcher-kva.example", "_25._tcp.mx.example", "x" * 63):
            self.assertEqual(text_name(wire_name(text)), text)
            self.assertEqual(wire_name(text), dns.name.from_text(f"{text}.").to_wire())
        self.assertEqual(wire_name("Example.NET"), NAME)
        self.assertEqual(text_name(b"\0"), "")
        # Labels that no host name has, in the text form of RFC 1035 §5.1.
        self.assertEqual(text_name(b"\x03a.b\x01c\0"), "a\\.b.c")
        self.assertEqual(text_name(b"\x02a\xff\0"), "a\\255")

    def test_invalid_domain_names_have_no_wire_form(self) -> None:
        for text in ("", ".", "a..b", ".a", "a.", "x" * 64, ".".join(["x" * 60] * 5), "b\xfccher."):
            self.assertRaises(ValueError, wire_name, text)
        self.assertEqual(len(wire_name(".".join(["x" * 62] * 4))), 253)


class Answers(TidyTestCase):
    def read(self, wire: bytes, type: int = MX) -> Answer:
        return parse_answer(wire, ID, NAME, type)

    def test_a_label_has_63_octets_at_most_and_a_domain_253(self) -> None:
        """RFC 1035 §2.3.4, in questions and in answers."""
        longest = ".".join([*["x" * 63] * 3, "x" * 61])
        self.assertEqual((len(longest), len(wire_name(longest))), (253, 255))
        self.assertEqual(len(wire_name("x" * 63)), 65)
        for text in (longest + "x", "x" * 64, f"a.{'x' * 64}.example"):
            self.assertRaises(ValueError, wire_name, text)
        answer = self.read(respond(f"example.net. 60 IN MX 10 {longest}."))
        self.assertEqual(answer.records, (b"\0\x0a" + wire_name(longest),))

    def test_names_in_records_are_decompressed_and_in_lower_case(self) -> None:
        answer = self.read(respond("example.net. 60 IN MX 10 MX1.example.net."))
        self.assertEqual(answer.records, (b"\0\x0a" + wire_name("mx1.example.net"),))
        self.assertEqual((answer.ttl, answer.has_opt, answer.usable), (60, True, True))

    def test_a_cname_chain_is_followed_in_any_order_with_its_least_ttl(self) -> None:
        answer = self.read(
            respond(
                "c.example. 50 IN A 192.0.2.1",
                "b.example. 20 IN CNAME c.example.",
                "example.net. 60 IN CNAME B.example.",
                type=A,
            ),
            A,
        )
        self.assertEqual((answer.records, answer.ttl), ((b"\xc0\0\2\1",), 20))

    def test_records_of_other_names_are_ignored(self) -> None:
        answer = self.read(respond("elsewhere.example. 60 IN MX 10 mx.example."))
        self.assertEqual((answer.records, answer.ttl), ((), None))

    def test_a_cname_chain_that_leaves_the_answer_or_is_a_circle(self) -> None:
        answer = self.read(respond("example.net. 60 IN CNAME b.example."))
        self.assertEqual(answer.alias, wire_name("b.example"))
        circle = respond("example.net. 1 IN CNAME b.example.", "b.example. 1 IN CNAME example.net.")
        self.assertEqual(self.read(circle).alias, NAME)

    def test_a_negative_answer_has_a_ttl_only_with_a_soa(self) -> None:
        # RFC 2308 §5
        soa = "net. 900 IN SOA a.example. b.example. 1 2 3 4 300"
        for rcode in (0, NXDOMAIN):
            self.assertEqual(self.read(respond(rcode=rcode, authority=soa)).ttl, 300)
            self.assertIsNone(self.read(respond(rcode=rcode)).ttl)
        referral = self.read(respond(authority="net. 900 IN NS ns.example."))
        self.assertTrue(referral.referral)
        self.assertFalse(referral.usable)

    def test_a_ttl_with_the_most_significant_bit_is_zero(self) -> None:
        # RFC 2181 §8
        wire = respond("example.net. 2147483647 IN MX 10 mx.example.")
        self.assertEqual(self.read(wire).ttl, 2147483647)
        self.assertEqual(self.read(wire.replace(b"\x7f\xff\xff\xff", b"\x80\0\0\0")).ttl, 0)

    def test_answers_to_other_queries_are_unrelated(self) -> None:
        wire = respond("example.net. 60 IN MX 10 mx.example.")
        others = [
            b"",
            b"x",
            bytes([wire[0] ^ 1]) + wire[1:],
            wire[:2] + b"\0" + wire[3:],  # a query
            wire.replace(b"\7example\3net", b"\7example\3org", 1),
            wire.replace(b"\0\x0f\0\1", b"\0\1\0\1", 1),
        ]
        for other in others:
            self.assertRaises(Unrelated, self.read, other)

    def test_an_address_of_a_wrong_length_is_malformed(self) -> None:
        for type, text, length in ((A, "A 192.0.2.1", 4), (AAAA, "AAAA 2001:db8::1", 16)):
            wire = respond(f"example.net. 60 IN {text}", type=type)
            self.assertEqual(len(parse_answer(wire, ID, NAME, type).records[0]), length)
            before = wire.rindex(length.to_bytes(2, "big"), 0, len(wire) - length + 1)
            for wrong in (length - 1, length + 1):
                octets = wire[before + 2 : before + 2 + length] + b"\0"
                other = wire[:before] + wrong.to_bytes(2, "big") + octets[:wrong]
                other += wire[before + 2 + length :]
                self.assertRaises(Malformed, parse_answer, other, ID, NAME, type)

    def test_a_truncated_message_is_malformed_at_every_length(self) -> None:
        wire = respond("example.net. 60 IN MX 10 mx.example.")
        for end in range(2, len(wire)):
            self.assertRaises(Malformed, self.read, wire[:end])

    def test_a_changed_octet_raises_no_other_exception(self) -> None:
        wire = respond(
            "example.net. 60 IN CNAME a.example.", "a.example. 60 IN MX 10 mx.a.example."
        )
        for at in range(2, len(wire)):
            for octet in (0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF):
                try:
                    self.read(wire[:at] + bytes([octet]) + wire[at + 1 :])
                except (Unrelated, Malformed):
                    continue

    def test_compression_pointers_are_bounded(self) -> None:
        head = respond()[: 12 + len(NAME) + 4]
        head = head[:6] + b"\0\2\0\0\0\0" + head[12:]  # two answers
        start = (
            len(head) + 11
        )  # of the rdata of the first record, after its name, type, class, TTL, length

        def pointer(target: int) -> bytes:
            return (0xC000 | target).to_bytes(2, "big")

        def record(owner: bytes, type: int, octets: bytes) -> bytes:
            return (
                owner
                + type.to_bytes(2, "big")
                + b"\0\1"
                + bytes(4)
                + bytes([len(octets) >> 8, len(octets) & 255])
                + octets
            )

        for jumps in (2, 1000, 6000):
            places = range(start, start + 2 * jumps, 2)
            chain = pointer(12) + b"".join(map(pointer, places[:-1]))
            wire = head + record(b"\0", 99, chain) + record(pointer(places[-1]), MX, b"\0\1\0")
            if jumps == 2:
                self.assertEqual(self.read(wire).records, (b"\0\1\0",))
            else:
                self.assertRaises(Malformed, self.read, wire)
        circle = record(b"\0", 99, b"") + record(pointer(len(head) + 11), MX, b"\0\1\0")
        self.assertRaises(Malformed, self.read, head + circle)

    def test_the_number_of_parsed_records_is_bounded(self) -> None:
        record = b"\xc0\x0c\0\x01\0\1\0\0\0\x3c\0\4\x7f\0\0"
        many = b"".join(record + bytes([number % 256]) for number in range(4000))
        head = respond(type=A)[: 12 + len(NAME) + 4]
        wire = head[:6] + (4000).to_bytes(2, "big") + bytes(4) + head[12:] + many
        self.assertEqual(len(self.read(wire, A).records), MOST_RECORDS)


class Caching(TidyTestCase):
    def setUp(self) -> None:
        self.cache = Cache(answers=3, octets=10_000)

    def put(self, name: str, answer: Answer, type: int = A) -> Callable[[float], Answer | None]:
        key = (wire_name(name), type)
        self.cache.put(key, answer, 100.0)
        return lambda now: self.cache.get(key, now)

    def test_answers_are_cached_for_their_ttl_within_a_limit(self) -> None:
        kept = self.put("a", Answer(0, (b"1234",), ttl=10))
        self.assertIsNotNone(kept(109.9))
        self.assertIsNone(kept(110.0))
        kept = self.put("a", Answer(0, (b"1234",), ttl=10**9))
        self.assertIsNotNone(kept(100.0 + 86_399))
        self.assertIsNone(kept(100.0 + 86_400))
        kept = self.put("a", Answer(NXDOMAIN, ttl=10**9))
        self.assertIsNotNone(kept(100.0 + 3 * 3600 - 1))
        self.assertIsNone(kept(100.0 + 3 * 3600))
        for ttl in (0, None):
            self.assertIsNone(self.put("a", Answer(0, (b"1234",), ttl=ttl))(100.0))

    def test_a_negative_answer_holds_for_its_type_only(self) -> None:
        self.put("a", Answer(NXDOMAIN, ttl=10), MX)
        self.assertIsNone(self.cache.get((wire_name("a"), A), 100.0))

    def test_the_least_recently_used_answer_is_dropped_first(self) -> None:
        kept = [self.put(name, Answer(0, (b"1234",), ttl=10)) for name in "abc"]
        kept[0](100.0)
        self.put("d", Answer(0, (b"1234",), ttl=10))
        self.assertEqual([each(100.0) is None for each in kept], [False, True, False])

    def test_the_size_of_the_cache_is_bounded(self) -> None:
        large = Answer(0, (b"x" * 4000,), ttl=10)
        kept = [self.put(name, large) for name in "abc"]
        self.assertEqual([each(100.0) is None for each in kept], [True, False, False])
        self.assertIsNone(self.put("d", Answer(0, (b"x" * 20_000,), ttl=10))(100.0))
        self.assertIsNotNone(kept[2](100.0))
        self.cache.clear()
        self.assertIsNone(kept[2](100.0))

    def test_a_cleared_cache_has_all_its_room_again(self) -> None:
        answers = [Answer(0, (b"x" * size,), ttl=10) for size in range(9_000, 10_000)]
        fits = [self.put("a", each)(100.0) is not None for each in answers]
        self.assertEqual((fits[0], fits[-1]), (True, False))
        largest = answers[fits.index(False) - 1]
        self.put("b", answers[0])
        self.cache.clear()
        self.assertIsNotNone(self.put("c", largest)(100.0))
