"""Reading the header section of a message while it streams by."""

import random  # noqa: TID251 - seeded, so every run draws the same
import time

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.message.header import HeaderScanner, field, fields

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
    return scanner.received, scanner.size, scanner.ended


class DeliveredTo(SynchronousTestCase):
    """What the fields of that name say: whole, once, and no more than that."""

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
    FOUND = (" a@us.example", "\r\n\t<B@us.example>\r\n c", " last@us.example")

    def found(self, *chunks: bytes) -> tuple[str, ...]:
        scanner = scan(*chunks)
        self.assertEqual(scanner.received, sum(b"Received" in each for each in [b"".join(chunks)]))
        return tuple(each.decode() for each in scanner.delivered_to)

    def test_wherever_it_is_cut(self) -> None:
        for cut in range(len(self.CONTENT)):
            self.assertEqual(self.found(self.CONTENT[:cut], self.CONTENT[cut:]), self.FOUND, cut)
        self.assertEqual(self.found(*(bytes([octet]) for octet in self.CONTENT)), self.FOUND)

    def test_at_the_end_of_a_message_without_a_body(self) -> None:
        for end in (b"", b"\r\n", b"\r\n\r\n"):
            self.assertEqual(self.found(b"Delivered-To: a" + end), (" a",))

    def test_what_is_too_long_or_too_much_is_left_out(self) -> None:
        long = b"Delivered-To: " + b"x" * 2000 + b"\r\n"
        self.assertEqual(self.found(long, b"Delivered-To: a\r\n\r\n"), (" a",))
        many = b"".join(b"Delivered-To: %d\r\n" % number for number in range(5000))
        self.assertEqual(len(self.found(many, b"\r\n")), 500)

    def test_its_cost_grows_as_its_length(self) -> None:
        for unit in (
            b"Delivered-To: x@us.example\r\n",
            b"Delivered-To:\r\n",
            b"Delivered-To: \r\n ",
            b"\r\nDelivered-To",
            b"Delivered-To ",
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


class Scanner(SynchronousTestCase):
    def test_whether_the_header_section_is_ascii_wherever_it_is_cut(self) -> None:
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

    def test_hops_are_counted_in_the_header_section_alone(self) -> None:
        self.assertEqual(facts(scan(CONTENT)), (3, len(HEADER), True))

    def test_no_split_makes_a_difference(self) -> None:
        for first in range(len(CONTENT)):
            for second in (first + 1, first + 2, first + 3, first + 40):
                chunks = CONTENT[:first], CONTENT[first:second], CONTENT[second:]
                self.assertEqual(facts(scan(*chunks)), (3, len(HEADER), True), chunks)
        octets = [CONTENT[at : at + 1] for at in range(len(CONTENT))]
        self.assertEqual(facts(scan(*octets)), (3, len(HEADER), True))

    def test_random_splits_make_no_difference(self) -> None:
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

    def test_until_the_empty_line_every_octet_is_header(self) -> None:
        scanner = HeaderScanner()
        self.assertEqual(facts(scanner), (0, 0, False))
        for octet in range(1, len(HEADER) + 1):
            scanner.feed(HEADER[octet - 1 : octet])
            self.assertEqual((scanner.size, scanner.ended), (octet, False))

    def test_a_message_may_have_no_header_section(self) -> None:
        self.assertEqual(facts(scan(b"\r\nReceived: body\r\n")), (0, 0, True))
        self.assertEqual(facts(scan(b"\r", b"\n", b"Received: body\r\n")), (0, 0, True))
        self.assertEqual(facts(scan(b"")), (0, 0, False))

    def test_little_is_kept_of_a_line_without_end(self) -> None:
        scanner = HeaderScanner()
        for _ in range(100):
            scanner.feed(b"received" * 1000)
        self.assertLess(len(scanner._carry), 2000)
        self.assertEqual(facts(scanner), (0, 800_000, False))


class Fields(SynchronousTestCase):
    def test_fields_come_in_order_and_unfolded(self) -> None:
        header = (
            b"Subject: one\r\n  two\r\n\tthree\r\nTo:bob\r\nsubject : again\r\n\r\nFrom: body\r\n"
        )
        self.assertEqual(
            list(fields(header)),
            [("Subject", "one  two\tthree"), ("To", "bob"), ("subject", "again")],
        )

    def test_a_field_is_found_in_any_case(self) -> None:
        header = b"message-ID: <a@b>\r\nMessage-Id: <c@d>\r\n"
        self.assertEqual(field(header, "Message-ID"), "<a@b>")
        self.assertIsNone(field(header, "Subject"))

    def test_what_is_no_field_is_left_out(self) -> None:
        header = (
            b"no field\nSubject: caf\xe9\n: empty\n\xff: eight\nX Y: space\nTo: bob\n\nFrom: eve"
        )
        self.assertEqual(list(fields(header)), [("Subject", "caf\ufffd"), ("To", "bob")])
        self.assertEqual(list(fields(b"")), [])
        self.assertEqual(list(fields(b" folded: first")), [])
