"""The zone of a test, from the text of a master file."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.dns import NoSuchDomain
from twisted_mta.testing.resolver import FakeResolver

ZONE = """
    $ORIGIN example.org.
    @             3600 IN SOA ns.example.org. root.example.org. 1 2 3 4 5
    @             MX 10 mx
                  MX 20 backup.example.net.
                  TXT "v=spf1 " "mx -all"
    mx            A 192.0.2.1
                  AAAA 2001:db8::1
    www           CNAME mx
    _25._tcp.mx   TLSA 3 1 1 (
                  00112233445566778899aabbccddeeff
                  00112233445566778899aabbccddeeff )
    $ORIGIN .
    Backup.Example.NET       A 192.0.2.2   ; complete without its dot
    1.2.0.192.in-addr.arpa   PTR mx.example.org
"""


class ZoneText(SynchronousTestCase):
    def setUp(self) -> None:
        self.resolver = FakeResolver()
        self.resolver.add_zone(ZONE)

    def found(self, answer: Deferred[Any]) -> Any:
        return self.successResultOf(answer)

    def test_the_records_of_each_type_are_answers(self) -> None:
        resolver = self.resolver
        self.assertEqual(
            self.found(resolver.mail_exchangers("example.org")),
            [(10, "mx.example.org"), (20, "backup.example.net")],
        )
        self.assertEqual(
            self.found(resolver.addresses("www.example.org")), ["192.0.2.1", "2001:db8::1"]
        )
        self.assertEqual(self.found(resolver.addresses("backup.example.net")), ["192.0.2.2"])
        self.assertEqual(self.found(resolver.text("example.org")), [b"v=spf1 mx -all"])
        self.assertEqual(self.found(resolver.pointers("192.0.2.1")), ["mx.example.org"])
        [tlsa] = self.found(resolver.tlsa("_25._tcp.mx.example.org")).records
        self.assertEqual((tlsa.usage, tlsa.selector, tlsa.matching), (3, 1, 1))
        self.assertEqual(len(tlsa.data), 32)
        self.failureResultOf(resolver.addresses("other.example.org"), NoSuchDomain)

    def test_later_records_replace_those_of_their_name_and_type(self) -> None:
        self.resolver.add_zone("mx.example.org. A 192.0.2.9")
        self.assertEqual(self.found(self.resolver.addresses("mx.example.org")), ["192.0.2.9"])
        self.assertEqual(len(self.found(self.resolver.mail_exchangers("example.org"))), 2)

    def test_a_text_that_cannot_be_read_is_a_value_error(self) -> None:
        for text, found in (
            ("example.org. MX mx", "cannot be read"),
            ("example.org. SRV 1 2 3 x.", "type SRV"),
        ):
            error = self.assertRaises(ValueError, self.resolver.add_zone, text)
            self.assertIn(found, str(error))
