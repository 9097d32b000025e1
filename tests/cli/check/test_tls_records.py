"""Findings about DANE, MTA-STS and TLS-RPT of our domains, with a scripted name server."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

from attrs import evolve
from twisted.internet.error import ConnectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from tests.cli.check.checking import CheckTestCase, machine
from tests.cli.check.nameserver import NameServer
from tests.server.authority import Authority, Issued
from twisted_mta.cli.check.policy_fetches import fetched_policies
from twisted_mta.cli.check.tls_records import tls_records
from twisted_mta.config import Config, DNSSettings, MTASTSSettings
from twisted_mta.interfaces import Resolver
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.tls.mta_sts.own import own_policy
from twisted_mta.tls.mta_sts.policy import Policy
from twisted_mta.tls.own_records import mta_sts_line, shown_certificates, tls_report_line

TLSA, STS, RPT = "TLSA", "MTA-STS", "TLS-RPT"
PLACE = "_25._tcp.mail.example.net"


class TLSRecordsTestCase(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer(self)
        self.authority = Authority()
        self.issue("mail.example.net")
        self.dns.records |= {"example.net. MX": ["10 mail.example.net."]}
        self.policies: dict[str, Policy | str] = {}
        self.fetched: list[str] = []

    def issue(self, *names: str) -> Issued:
        issued = self.authority.issue("mail.example.net", names=names, for_clients=False)
        issued.save(self.directory, "chain.pem")
        return issued

    def settings(self, **values: Any) -> Config:
        sound: dict[str, Any] = {
            "local_domains": ["example.net"],
            "tls_certificate": self.path("chain.pem"),
            "tls_key": self.path("chain.pem"),
            "dns": DNSSettings(nameservers=[self.dns.host]),
        }
        return self.config("tcp:25", **{**sound, **values})

    def fetch(
        self, config: Config, domains: Sequence[str], resolver: Resolver
    ) -> Mapping[str, Policy | str]:
        self.fetched += domains
        return self.policies

    def of(self, kind: str, **values: Any) -> list[str]:
        found = tls_records(self.settings(**values), machine(), seconds=30.0, fetch=self.fetch)
        return [
            "\n".join((f"{each.severity}: {each}".replace(self.directory, "DIR"), *each.records))
            for each in found
            if each.where.endswith(kind)
        ]

    def only(self, kind: str, **values: Any) -> str:
        (found,) = self.of(kind, **values)
        return found

    def text(self, line: str) -> None:
        """Publish a line of a zone file."""
        name, _, _, text = line.split(" ", 3)
        self.dns.records[f"{name} TXT"] = [text]


class DANE(TLSRecordsTestCase):
    def publish(self, *records: str) -> None:
        self.dns.records[f"{PLACE}. TLSA"] = list(records)

    def record(self) -> str:
        (shown,) = shown_certificates(self.settings())
        return shown.tlsa.text

    def test_without_a_record_there_is_one_to_publish(self) -> None:
        self.assertEqual(
            self.only(TLSA),
            f"note: mail.example.net TLSA: {PLACE} is missing: other hosts do not verify our TLS by"
            f" DANE; publish, if the zone is signed\n{PLACE}. IN TLSA {self.record()}",
        )

    def test_a_record_that_fits_and_is_proved_passes(self) -> None:
        self.publish(self.record())
        self.dns.signed.append(f"{PLACE}. TLSA")
        self.assertRegex(
            self.only(TLSA),
            rf"^pass: mail.example.net TLSA: {PLACE}: 3 1 1 [0-9a-f]+\.\.\. fits DIR/chain.pem$",
        )

    def test_a_record_that_no_one_proves_is_a_warning(self) -> None:
        self.publish(self.record())
        self.assertIn("no name server here says that DNSSEC proves it", self.only(TLSA))

    def test_the_record_of_the_key_of_before_fails(self) -> None:
        self.publish(self.record())
        self.dns.signs_all = True
        self.issue("mail.example.net")
        found = self.only(TLSA)
        self.assertTrue(found.startswith("fail: "), found)
        self.assertIn("hosts that use DANE send no mail: our certificates fit none of our", found)
        self.assertIn(f"{PLACE}. IN TLSA {self.record()}", found)
        # During a rollover both are there.
        self.publish(self.dns.records[f"{PLACE}. TLSA"][0], self.record())
        self.assertIn("pass: ", self.only(TLSA))

    def test_a_record_that_mail_does_not_use_is_a_warning(self) -> None:
        self.publish(self.record().replace("3 1 1", "1 1 1"))
        self.assertIn("has no record that mail servers use (1 1 1", self.only(TLSA))

    def test_an_authority_needs_the_name_in_the_certificate(self) -> None:
        issued = self.issue("other.example")
        with open(self.path("chain.pem"), "ab") as chain:
            chain.write(self.authority.issued.pem)
        self.publish(f"2 0 0 {self.authority.issued.der.hex()}")
        self.assertIn("our certificate is not for mail.example.net", self.only(TLSA))
        self.assertIsNotNone(issued)

    def test_a_look_up_that_fails_says_nothing(self) -> None:
        self.dns.failing.append(f"{PLACE}. TLSA")
        self.assertIn("cannot be looked up now", self.only(TLSA))


class MTASTS(TLSRecordsTestCase):
    ENFORCED = Policy("enforce", 86_400, ("mail.example.net",))

    def announce(self, policy: Policy | str | None = None, config: Config | None = None) -> None:
        self.text(mta_sts_line(config or self.settings(), "example.net"))
        self.policies = {"example.net": policy or own_policy(self.settings())}

    def test_without_a_record_nothing_is_fetched(self) -> None:
        self.assertIn("note: example.net MTA-STS: _mta-sts.example.net is missing", self.only(STS))
        served = MTASTSSettings(publish="tcp:443")
        self.assertIn("fail: example.net MTA-STS: ", self.only(STS, mta_sts=served))
        self.assertEqual(self.fetched, [])

    def test_a_policy_that_fits_passes(self) -> None:
        self.announce(self.ENFORCED)
        record, policy = self.of(STS)
        self.assertIn("pass: example.net MTA-STS: _mta-sts.example.net has the id ", record)
        self.assertEqual(policy, "pass: example.net MTA-STS: the policy fits (mode enforce)")

    def test_a_record_that_cannot_be_read_fails(self) -> None:
        self.text('_mta-sts.example.net. IN TXT "v=STSv1; id=a-b"')
        found = self.only(STS)
        self.assertIn("fail: example.net MTA-STS: _mta-sts.example.net: found id=a-b", found)
        self.assertIn(mta_sts_line(self.settings(), "example.net"), found)

    def test_the_id_has_to_be_that_of_the_policy_that_we_serve(self) -> None:
        self.announce()
        served = MTASTSSettings(publish="tcp:443", mode="enforce")
        record, policy = self.of(STS, mta_sts=served)
        self.assertIn("is not that of the policy of the settings", record)
        self.assertIn("another policy is published than that of the settings", policy)

    def test_a_policy_that_cannot_be_fetched_fails(self) -> None:
        self.announce("mta-sts.example.net has no address")
        self.assertEqual(
            self.of(STS)[1],
            "fail: example.net MTA-STS: no policy can be fetched: mta-sts.example.net has no"
            " address; correct it",
        )

    def test_an_exchanger_that_the_policy_does_not_allow_gets_no_mail(self) -> None:
        self.dns.records["example.net. MX"] += ["20 backup.example."]
        self.announce(self.ENFORCED)
        found = self.of(STS)[1]
        self.assertTrue(found.startswith("fail: "), found)
        self.assertIn("send no mail: it does not allow the exchanger backup.example", found)
        self.announce(evolve(self.ENFORCED, mode="testing"))
        self.assertTrue(self.of(STS)[1].startswith("warning: "))
        self.announce(evolve(self.ENFORCED, mode="none"))
        self.assertTrue(self.of(STS)[1].startswith("pass: "))

    def test_our_certificate_has_to_have_our_name(self) -> None:
        self.issue("other.example")
        self.announce(self.ENFORCED)
        self.assertIn(
            "our certificate is not for mail.example.net, but for other.example", self.of(STS)[1]
        )


class Fetching(CheckTestCase):
    """Policies are fetched as other hosts do it."""

    class Handler(BaseHTTPRequestHandler):
        policy: ClassVar[bytes] = b"version: STSv1\r\nmode: none\r\nmax_age: 1\r\n"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(self.policy)))
            self.end_headers()
            self.wfile.write(self.policy)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.authority.issued.save(self.directory, "ca.pem")
        issued = self.authority.issue("x", names=["mta-sts.a.example"], for_clients=False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.save(self.directory, "host.pem"))
        server = HTTPServer(("127.0.0.1", 0), self.Handler)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.reactor = SelectReactor()
        for reader in tuple(self.reactor._internalReaders):
            self.addCleanup(reader.connectionLost, Failure(ConnectionDone()))

    def fetch(
        self, config: Config, domains: Sequence[str], resolver: Resolver
    ) -> Mapping[str, Policy | str]:
        return fetched_policies(config, domains, resolver, port=self.port, reactor=self.reactor)

    def test_each_policy_or_the_reason_is_returned(self) -> None:
        config = self.config(mta_sts=MTASTSSettings(authorities=self.path("ca.pem")))
        names = ("mta-sts.a.example", "mta-sts.b.example")
        resolver = FakeResolver(addresses={name: ["127.0.0.1"] for name in names})
        domains = ("a.example", "b.example", "c.example")
        found = self.fetch(config, domains, resolver)
        self.assertEqual(found["a.example"], Policy("none", 1))
        self.assertIn("its certificate is not for mta-sts.b.example", str(found["b.example"]))
        self.assertIn("mta-sts.c.example", str(found["c.example"]))

    def test_authorities_that_cannot_be_read_are_the_reason(self) -> None:
        os.unlink(self.path("ca.pem"))
        config = self.config(mta_sts=MTASTSSettings(authorities=self.path("ca.pem")))
        found = self.fetch(config, ["a.example"], FakeResolver())
        self.assertIn("ca.pem", str(found["a.example"]))


class Reports(TLSRecordsTestCase):
    def test_without_a_record_there_is_one_to_publish(self) -> None:
        self.assertEqual(
            self.only(RPT),
            "note: example.net TLS-RPT: _smtp._tls.example.net is missing: failures of TLS to us"
            " are not reported; publish\n"
            '_smtp._tls.example.net. IN TXT "v=TLSRPTv1; rua=mailto:postmaster@example.net"',
        )

    def test_the_record_that_is_to_be_published_passes(self) -> None:
        self.text(tls_report_line(self.settings(), "example.net"))
        self.assertEqual(
            self.only(RPT), "pass: example.net TLS-RPT: reports go to postmaster@example.net"
        )

    def test_what_is_wrong_is_named(self) -> None:
        line = "_smtp._tls.example.net. IN TXT"
        self.text(f'{line} "v=TLSRPTv1; rua=http://example.net/"')
        self.assertIn("fail: example.net TLS-RPT: _smtp._tls.example.net: rua: ", self.only(RPT))
        self.text(f'{line} "v=TLSRPTv1; rua=mailto:a@b.example,x"')
        self.assertIn("warning: example.net TLS-RPT: ", self.only(RPT))
        self.text(f'{line} "v=TLSRPTv1; rua=mailto:a@b.example"')
        self.dns.records["_smtp._tls.example.net. TXT"] *= 2
        self.dns.records["_smtp._tls.example.net. TXT"][1] = '"v=TLSRPTv1; rua=mailto:c@b.example"'
        self.assertIn("has 2 records, so that no one reports", self.only(RPT))
