"""The author domain of a message."""

from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from tests.processor_time import collect_nothing
from twisted_mta.policy.dmarc.author import Author, author


def read(*lines: str) -> Author:
    return author("".join(f"{line}\r\n" for line in lines).encode())


def domain(value: str) -> str:
    found = read("Subject: x", f"From: {value}")
    return found.domain or found.fault or "none"


class OneDomain(SynchronousTestCase):
    def test_an_address_in_each_form(self) -> None:
        for value in (
            "a@example.com",
            "<a@example.com>",
            "Ann <a@EXAMPLE.com>",
            "=?utf-8?q?b=40evil.example?= <a@example.com>",
            '"b@evil.example" <a@example.com>',
            "a@example.com (b@evil.example)",
            '"a@evil.example"@example.com',
            "a@(x)example.com",
            "a@example . com",
            "a@example.com.",
            "Ann\r\n <a@example.com>",
        ):
            self.assertEqual(domain(value), "example.com", value)

    def test_several_addresses_in_it(self) -> None:
        self.assertEqual(domain("a@example.com, b@example.com"), "example.com")
        self.assertEqual(domain("Group: a@example.com, b@Example.com;"), "example.com")

    def test_common_faults_that_name_no_second_domain(self) -> None:
        self.assertEqual(domain("Example, Inc. <a@example.com>"), "example.com")
        self.assertEqual(domain("a@example.com <a@example.com>"), "example.com")

    def test_an_international_domain_is_in_a_labels(self) -> None:
        self.assertEqual(domain("a@bücher.example"), "xn--bcher-kva.example")
        self.assertEqual(domain("a@XN--BCHER-KVA.example"), "xn--bcher-kva.example")
        self.assertEqual(domain("a@bücher。example"), "xn--bcher-kva.example")

    def test_the_name_of_the_field_is_in_any_case_and_may_have_space_behind_it(self) -> None:
        self.assertEqual(read("FROM : a@example.com").domain, "example.com")


class NoDomain(SynchronousTestCase):
    def test_without_any_there_is_no_fault(self) -> None:
        for value in ("", "Undisclosed:;", "MAILER-DAEMON", "a@[192.0.2.1]", "<>"):
            self.assertEqual(domain(value), "none", value)
        self.assertEqual(read("Subject: x"), Author())

    def test_several_domains(self) -> None:
        for value in (
            "a@example.com, b@example.net",
            "a@example.com <b@example.net>",
            "a@example.com <b@[192.0.2.1]>",
            "<@example.net:a@example.com>",
            "G: a@example.com;, H: b@example.net;",
        ):
            self.assertEqual(domain(value), "several author domains", value)

    def test_several_fields(self) -> None:
        found = read("From: a@example.com", "From: a@example.com")
        self.assertEqual(found, Author(fault="several From fields"))

    def test_fields_that_cannot_be_read(self) -> None:
        for value in (
            "a@",
            "a@.example.com",
            "a@example..com",
            "a@exa\x00mple.com",
            "a@exa$mple.com",
            '"a@example.com',
            "(a@example.com",
            "a@example.com)",
            "a\\@example.com",
            "a@xn--\xff.example",
            "a@" + "x" * 64 + ".example",
            "a@example.com," * 1_000,
        ):
            self.assertEqual(domain(value), "an unreadable From field", value)

    def test_a_bare_cr_may_hide_a_field(self) -> None:
        found = author(b"Subject: x\rFrom: a@evil.example\r\nFrom: a@example.com\r\n")
        self.assertEqual(found, Author(fault="a bare CR in the header section"))


class Hostile(SynchronousTestCase):
    def test_no_field_takes_long(self) -> None:
        collect_nothing(self)
        for filler in ("@", "@ ", "a@b,", "(", '"', "\\", " ", ".", "@a.", "@[", "<", ":;", "é@é."):
            value = ("From: a@example.com " + filler * 9_000)[:8_100].encode()
            many = b"From: a@b\r\n" * 20_000
            for section in (value + b"\r\n", many):
                started = process_time()
                author(section)
                self.assertLess(process_time() - started, 0.05, filler)
