"""What we publish about our own TLS: it fits what other hosts see of it."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from tests.server.authority import Issued, self_signed
from twisted_mta.config import Config, Listener, SNICertificate
from twisted_mta.mail.address import Mailbox
from twisted_mta.reports.tls.record import report_record
from twisted_mta.tls import dane
from twisted_mta.tls.mta_sts.policy import Policy, record_id
from twisted_mta.tls.own_records import own_records, shown_certificates, tlsa_lines


class OwnRecords(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.issued, self.file = self.saved("mx.pem")

    def saved(self, name: str) -> tuple[Issued, str]:
        issued = self_signed("mx.ours.example", names=["mx.ours.example"])
        return issued, issued.save(self.directory, name)

    def config(self, *listeners: Listener) -> Config:
        return Config(
            hostname="mx.ours.example",
            local_domains=("ours.example", "also.example", "localhost"),
            tls_certificate=self.file,
            tls_key=self.file,
            listeners=listeners or (Listener(endpoint="tcp:25"),),
        )

    def test_the_tlsa_record_fits_the_certificate(self) -> None:
        (shown,) = shown_certificates(self.config())
        key = self.issued.certificate.public_key()
        digest = Hash(SHA256())
        digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        expected = digest.finalize().hex().upper()
        self.assertEqual(shown.tlsa.text, f"3 1 1 {expected}")
        verdict = dane.verify([self.issued.der], dane.usable([shown.tlsa]), ["mx.ours.example"])
        self.assertEqual(verdict.problem, "")

    def test_where_no_listener_has_port_25_it_is_forwarded(self) -> None:
        config = self.config(Listener(endpoint="tcp:2525"), Listener(endpoint="tcp:2526"))
        (shown,) = shown_certificates(config)
        self.assertEqual(shown.port, 25)

    def test_each_listener_for_other_hosts_has_its_record(self) -> None:
        _, other = self.saved("other.pem")
        config = self.config(
            Listener(endpoint="tcp:25"),
            Listener(endpoint="tcp6:25"),  # the same port and certificate
            Listener(
                endpoint="tcp:2525:interface=127.0.0.1",
                sni=(SNICertificate(names=("*.ours.example",), certificate=other, key=other),),
            ),
            Listener(endpoint="tcp:2526", tls="none"),
            Listener(kind="submission", endpoint="tcp:587"),
            Listener(endpoint="systemd:domain=INET:index=0"),
        )
        shown = shown_certificates(config)
        self.assertEqual(
            [(each.port, each.file) for each in shown], [(25, self.file), (2525, other)]
        )
        lines = tlsa_lines(config, shown)
        self.assertEqual(
            [line.split(" ")[0] for line in lines],
            ["_25._tcp.mx.ours.example.", "_2525._tcp.mx.ours.example."],
        )

    def test_the_records_of_each_domain_are_read_as_they_are_meant(self) -> None:
        found = own_records(self.config())
        lines = found["records"]
        assert isinstance(lines, list)
        for domain in ("ours.example", "also.example"):
            (announced,) = [line for line in lines if line.startswith(f"_mta-sts.{domain}. ")]
            self.assertIsNotNone(record_id([self.text(announced)]))
            (asked,) = [line for line in lines if line.startswith(f"_smtp._tls.{domain}. ")]
            read = report_record([self.text(asked)])
            assert read is not None
            self.assertEqual(read.mailboxes, (Mailbox("postmaster", "ours.example"),))
            self.assertEqual(read.faults, ())
        self.assertNotIn("localhost", "".join(lines))
        policy = found["policy"]
        assert isinstance(policy, str)
        self.assertEqual(Policy.parse(policy.encode()).mode, "testing")
        self.assertIn("https://mta-sts.also.example/.well-known/mta-sts.txt", str(found["urls"]))

    def text(self, line: str) -> bytes:
        return line.partition('"')[2].removesuffix('"').encode()
