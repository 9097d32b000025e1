"""Reports are posted to collectors that have proved their names (RFC 8460 §5.4)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred

from tests.reports.tls.collector_host import CollectorHost
from tests.server.authority import Authority, Issued
from tests.tidy import TidyTestCase
from tests.tls.mta_sts.policy_host import Step, response
from twisted_mta.reports.tls.posting import LARGEST_ANSWER, Poster
from twisted_mta.reports.tls.record import Collector, report_record
from twisted_mta.system.work import finished
from twisted_mta.testing.network import MemoryNetwork
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.tls.client import ClientContexts, ClientTLS
from twisted_mta.tls.https import HTTPSClient, HTTPSError

HOST = "reports.example"
CONTENT = b"\x1f\x8b" + bytes(range(256)) * 400  # more than one write


def collector(uri: str) -> Collector:
    record = report_record([b"v=TLSRPTv1; rua=" + uri.encode()])
    assert record is not None
    (found,) = record.collectors
    return found


class Posting(TidyTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.authority = Authority()
        directory = self.mktemp()
        os.mkdir(directory)
        tls = ClientTLS(verify=True, authorities=self.authority.issued.save(directory, "ca.pem"))
        contexts = ClientContexts()
        contexts.use(finished(contexts.load([tls])))
        self.resolver = FakeResolver(addresses={HOST: ["192.0.2.1"]})
        self.private = True
        client = HTTPSClient(
            reactor=self.network,
            resolver=self.resolver,
            contexts=contexts,
            tls=lambda: tls,
            largest=LARGEST_ANSWER,
        )
        self.poster = Poster(client, private=lambda: self.private)

    def host(self, *steps: Step, issued: Issued | None = None, port: int = 443) -> CollectorHost:
        issued = issued or self.authority.issue(HOST, names=[HOST], for_clients=False)
        host = CollectorHost(self.network, issued, *steps)
        self.network.listen("192.0.2.1", port, host)
        return host

    def post(self, uri: str = f"https://{HOST}/v1?x=%2C", seconds: Sequence[float] = ()) -> str:
        """Post; return the reason of a failure. Nothing is left open."""
        posting = self.poster.post(collector(uri), CONTENT, "application/tlsrpt+gzip")
        self.settle(posting, seconds)
        if not posting.called:
            self.fail("nothing was decided")
        failures = []
        posting.addErrback(lambda failure: failures.append(failure))
        self.network.settle()
        self.assertEqual(self.network.left_open(), [])
        if not failures:
            return ""
        failures[0].trap(HTTPSError)
        return str(failures[0].value)

    def settle(self, posting: Deferred[None], seconds: Sequence[float]) -> None:
        self.network.settle()
        for _ in range(20):  # the content goes out in turns of the reactor
            self.network.advance(0)
            self.network.settle()
        self.network.pump(seconds)
        self.network.settle()

    def test_a_collector_gets_the_report(self) -> None:
        for status in ("201 Created", "200 OK", "204 No Content"):
            host = self.host(response(b"", status=status, kind=None))
            self.assertEqual(self.post(), "", status)
            head, _, body = host.request.partition(b"\r\n\r\n")
            request, *fields = head.decode().splitlines()
            self.assertEqual(request, "POST /v1?x=%2C HTTP/1.1")
            self.assertIn(f"Host: {HOST}", fields)
            self.assertIn("Content-Type: application/tlsrpt+gzip", fields)
            self.assertIn(f"Content-Length: {len(CONTENT)}", fields)
            self.assertEqual(body, CONTENT)
            self.assertEqual(host.server_names, [HOST])

    def test_another_port(self) -> None:
        host = self.host(response(b"", status="201 Created"), port=8443)
        self.assertEqual(self.post(f"https://{HOST}:8443"), "")
        self.assertIn(f"Host: {HOST}:8443".encode(), host.request)
        self.assertTrue(host.request.startswith(b"POST / HTTP/1.1"))

    def test_other_answers_are_failures_and_redirects_are_not_followed(self) -> None:
        for status in ("302 Found", "404 Not Found", "500 Oops"):
            self.host(response(b"", status=status, more="Location: https://other.example/\r\n"))
            self.assertEqual(
                self.post(), f"{HOST}[192.0.2.1]:443 answers {status[:3]}, expected 201"
            )
        self.assertEqual({name for _, name in self.resolver.lookups}, {HOST})

    def test_a_host_that_does_not_prove_its_name_gets_no_octet(self) -> None:
        for issued in (
            self.authority.issue("x", names=["other.example"], for_clients=False),
            self.authority.issue("x", names=[HOST], days=(-9, -1), for_clients=False),
            Authority("Other").issue("x", names=[HOST], for_clients=False),
        ):
            host = self.host(response(), issued=issued)
            self.assertIn("its certificate", self.post())
            self.assertEqual(host.request, b"")

    def test_a_host_of_a_private_network_gets_no_connection(self) -> None:
        self.private = False
        for address in ("192.0.2.1", "127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00::1"):
            self.resolver = FakeResolver(addresses={HOST: [address]})
            self.poster._client._resolver = self.resolver
            self.assertEqual(self.post(), f"{HOST} has the address {address}, of no public host")

    def test_what_follows_the_head_of_the_answer_does_not_count(self) -> None:
        """Collectors close the connection, with or without close_notify, or send pages."""
        head = b"HTTP/1.0 201 Created\r\n\r\n"
        for steps in ((head, "close"), (head,), (head, b"x" * 70_000)):
            self.host(*steps)
            self.assertEqual(self.post(), "", steps[1:])

    def test_a_collector_has_a_minute_and_32_kib_for_the_head(self) -> None:
        self.host()
        self.assertEqual(self.post(seconds=[60.0]), "no answer within 60 s")
        self.host(*([b"x"] + [1.0, b"x"] * 70))
        self.assertEqual(self.post(seconds=[1.0] * 61), "no answer within 60 s")
        self.host(b"HTTP/1.1 201 Created\r\n" + b"x: y\r\n" * 10_000)
        self.assertIn("it sends more than 16384 octets", self.post())

    def test_a_host_that_is_not_there(self) -> None:
        self.assertIn("192.0.2.1", self.post())
        self.assertIn("nowhere.example", self.post("https://nowhere.example/"))
        self.resolver.fail(HOST)
        self.assertIn("SERVFAIL", self.post())

    def test_a_post_can_be_canceled(self) -> None:
        self.host()
        posting = self.poster.post(collector(f"https://{HOST}/"), CONTENT, "a/b")
        self.network.settle()
        posting.cancel()
        self.failureResultOf(posting, CancelledError)
        self.network.settle()
        self.assertEqual(self.network.left_open(), [])
        self.assertEqual(self.network.getDelayedCalls(), [])
