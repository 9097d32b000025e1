"""Scanning the header section of a content that arrives in chunks."""

import random  # noqa: TID251 - seeded, so every run draws the same
import time

from tests.tidy import TidyTestCase
from twisted_mta.message.header_scanner import HeaderScanner

HEADER = (
    b"Received: from a (b [192.0.2.1])\r\n"
    b"\tby c with ESMTP id 1\r\n"
    b"RECEIVED: from d\r\n"
    b"received \t: from e\r\n"
    b"Received-SPF: pass\r\n"
    b"X-Received: no\r\n"
    b"Subject: none of\r\n"
    b" Received: counts here\r\n"
)
CONTENT = HEADER + b"\r\nReceived: is the body\r\n\r\nReceived: and more\r\n"


def scan(*chunks: bytes) -> HeaderScanner:
    scanner = HeaderScanner()
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner


def facts(scanner: HeaderScanner) -> tuple[int, int, bool]:
    return scanner.hops, scanner.size, scanner.ended


class DeliveredTo(TidyTestCase):
    CONTENT = (
        b"Delivered-To: a@us.example\r\n"
        b"Received: x\r\n"
        b"X-Delivered-To: no@us.example\r\n"
        b"delivered-TO :\r\n\t<B@us.example>\r\n c\r\n"
        b"Delivered-Too: no@us.example\r\n"
        b"Delivered-To: a@us.example\r\n"
        b"Subject: x\r\n Delivered-To: no@us.example\r\n"
        b"Delivered-To: last@us.example\r\n\r\nDelivered-To: no@us.example\r\n"
    )
    VALUES = (" a@us.example", "\r\n\t<B@us.example>\r\n c", " last@us.example")

    def values(self, *chunks: bytes) -> tuple[str, ...]:
        scanner = scan(*chunks)
        self.assertEqual(scanner.hops, sum(b"Received" in each for each in [b"".join(chunks)]))
        return tuple(each.decode() for each in scanner.delivered_to)

    def test_delivered_to_is_read_wherever_the_content_is_cut(self) -> None:
        for cut in range(len(self.CONTENT)):
            self.assertEqual(self.values(self.CONTENT[:cut], self.CONTENT[cut:]), self.VALUES, cut)
        self.assertEqual(self.values(*(bytes([octet]) for octet in self.CONTENT)), self.VALUES)

    def test_delivered_to_is_read_at_the_end_of_a_message_without_a_body(self) -> None:
        for end in (b"", b"\r\n", b"\r\n\r\n"):
            self.assertEqual(self.values(b"Delivered-To: a" + end), (" a",))

    def test_delivered_to_beyond_1000_octets_or_500_fields_is_skipped(self) -> None:
        long = b"Delivered-To: " + b"x" * 2000 + b"\r\n"
        self.assertEqual(self.values(long, b"Delivered-To: a\r\n\r\n"), (" a",))
        many = b"".join(b"Delivered-To: %d\r\n" % number for number in range(5000))
        self.assertEqual(len(self.values(many, b"\r\n")), 500)

    def test_scanning_takes_time_in_proportion_to_the_length(self) -> None:
        for unit in (
            b"Delivered-To: x@us.example\r\n",
            b"Delivered-To:\r\n",
            b"Delivered-To: \r\n ",
            b"\r\nDelivered-To",
            b"Delivered-To ",
            b"TLS-Required: No\r\n",
            b"TLS-Required:\r\n ",
            b"\r\n ",
        ):
            times = []
            for size in (100_000, 400_000):
                content = (unit * (size // len(unit) + 1))[:size]
                scanner = HeaderScanner()
                before = time.process_time()
                for start in range(0, size, 1000):
                    scanner.feed(content[start : start + 1000])
                times.append(time.process_time() - before)
            self.assertLess(times[1], 12 * times[0] + 0.05, unit)


class TLSRequired(TidyTestCase):
    """RFC 8689 §3."""

    def test_the_field_is_read_wherever_the_content_is_cut(self) -> None:
        for field, optional in (
            (b"TLS-Required: No", True),
            (b"tls-required:no ", True),
            (b"TLS-Required:\r\n No", True),
            (b"TLS-Required: Yes", False),
            (b"TLS-Required: Not", False),
            (b"TLS-Required: No\r\n way", False),
            (b"TLS-Required:", False),
            (b"X-TLS-Required: No", False),
            (b"Subject: x\r\n TLS-Required: No", False),
            (b"TLS-Required: Yes\r\nTLS-Required: No", False),
            (b"To: b\r\n\r\nTLS-Required: No", False),
        ):
            for end in (b"", b"\r\n", b"\r\nSubject: x\r\n\r\nfine\r\n"):
                content = b"From: a\r\n" + field + end
                for cut in range(len(content) + 1):
                    found = scan(content[:cut], content[cut:]).tls_optional
                    self.assertEqual(found, optional, (content, cut))


class HeaderSection(TidyTestCase):
    def test_a_header_section_beyond_ascii_is_noticed_wherever_it_is_cut(self) -> None:
        for content, is_ascii in (
            ("Subject: schön\r\n\r\nx".encode(), False),
            ("Subject: x\r\n\r\nschön\r\n\r\n".encode(), True),
            ("Subject: x\r\n y\r\nTo: ü\r\n".encode(), False),
            ("\r\nschön".encode(), True),
            (b"", True),
        ):
            for cut in range(len(content) + 1):
                found = scan(content[:cut], content[cut:]).is_ascii
                self.assertEqual(found, is_ascii, (content, cut))

    def test_received_fields_of_the_header_section_alone_are_hops(self) -> None:
        self.assertEqual(facts(scan(CONTENT)), (3, len(HEADER), True))

    def test_hops_and_size_are_the_same_for_every_cut(self) -> None:
        for first in range(len(CONTENT)):
            for second in (first + 1, first + 2, first + 3, first + 40):
                chunks = CONTENT[:first], CONTENT[first:second], CONTENT[second:]
                self.assertEqual(facts(scan(*chunks)), (3, len(HEADER), True), chunks)
        octets = [CONTENT[at : at + 1] for at in range(len(CONTENT))]
        self.assertEqual(facts(scan(*octets)), (3, len(HEADER), True))

    def test_hops_and_size_are_the_same_for_random_chunks(self) -> None:
        draw = random.Random(20)
        long = b"X-Long: " + b"z" * 3000 + b"\r\n"
        content = long + HEADER + long + b"received" + b" " * 900 + b":\r\n" + b"\r\nbody"
        for _ in range(500):
            scanner, at = HeaderScanner(), 0
            while at < len(content):
                size = draw.choice((1, 2, 3, 10, 100, 1000))
                scanner.feed(content[at : at + size])
                at += size
            self.assertEqual(facts(scanner), (4, len(content) - 6, True))

    def test_every_octet_before_the_empty_line_is_header(self) -> None:
        scanner = HeaderScanner()
        self.assertEqual(facts(scanner), (0, 0, False))
        for octet in range(1, len(HEADER) + 1):
            scanner.feed(HEADER[octet - 1 : octet])
            self.assertEqual((scanner.size, scanner.ended), (octet, False))

    def test_a_content_may_begin_with_the_empty_line(self) -> None:
        self.assertEqual(facts(scan(b"\r\nReceived: body\r\n")), (0, 0, True))
        self.assertEqual(facts(scan(b"\r", b"\n", b"Received: body\r\n")), (0, 0, True))
        self.assertEqual(facts(scan(b"")), (0, 0, False))

    def test_an_endless_line_is_not_kept_in_memory(self) -> None:
        scanner = HeaderScanner()
        for _ in range(100):
            scanner.feed(b"received" * 1000)
        self.assertLess(len(scanner._carry), 2000)
        self.assertEqual(facts(scanner), (0, 800_000, False))
