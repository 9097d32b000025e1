"""Policies are fetched from hosts that have proved their names, within bounds (RFC 8461 §3.3)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.server.authority import Authority, Issued, self_signed
from tests.tls.mta_sts.policy_host import POLICY, PolicyHost, Step, response
from twisted_mta.system.work import finished
from twisted_mta.testing.network import MemoryNetwork
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.tls.client import ClientContexts, ClientTLS
from twisted_mta.tls.https import HTTPSClient
from twisted_mta.tls.mta_sts.fetcher import Fetcher, FetchError
from twisted_mta.tls.mta_sts.policy import LARGEST, Policy

HOST = "mta-sts.a.example"


class FetcherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.authority = Authority()
        directory = self.mktemp()
        os.mkdir(directory)
        tls = ClientTLS(
            verify=True, authorities=self.authority.issued.save(directory, "authorities.pem")
        )
        contexts = ClientContexts()
        contexts.use(finished(contexts.load([tls])))
        self.resolver = FakeResolver(addresses={HOST: ["192.0.2.1"]})
        self.client = HTTPSClient(
            reactor=self.network,
            resolver=self.resolver,
            contexts=contexts,
            tls=lambda: tls,
            largest=LARGEST,
        )
        self.fetcher = Fetcher(self.client)
        self.good = self.issued(HOST)

    def issued(self, *names: str, **kinds: object) -> Issued:
        kinds.setdefault("for_clients", False)
        return self.authority.issue(HOST, names=names, **kinds)  # type: ignore[arg-type]

    def host(self, *steps: Step, issued: Issued | None = None, **kinds: int) -> PolicyHost:
        host = PolicyHost(self.network, issued or self.good, *steps, **kinds)
        self.network.listen("192.0.2.1", 443, host)
        return host

    def fetch(
        self, seconds: Sequence[float] = (), domain: str = "a.example"
    ) -> Policy | FetchError:
        """Fetch; return the policy or the error. No connection and no timer is left."""
        fetching = self.fetcher.fetch(domain)
        self.network.settle()
        self.network.pump(seconds)
        result = self.result(fetching)
        self.network.settle()
        self.assertEqual(self.network.left_open(), [])
        return result

    def result(self, fetching: Deferred[Policy]) -> Policy | FetchError:
        results: list[Policy | Failure] = []
        fetching.addBoth(results.append)
        self.assertTrue(results, "nothing was decided")
        [result] = results
        if isinstance(result, Failure):
            self.assertIsInstance(result.value, FetchError, result)
            self.assertTrue(str(result.value).isprintable())
            assert isinstance(result.value, FetchError)
            return result.value
        return result

    def refused(self, expected: str, seconds: Sequence[float] = ()) -> FetchError:
        error = self.fetch(seconds)
        assert isinstance(error, FetchError), error
        self.assertIn(expected, error.reason)
        return error

    # The good.

    def test_a_policy(self) -> None:
        host = self.host(response())
        self.assertEqual(self.fetch(), Policy.parse(POLICY))
        request, *fields = host.request.decode().splitlines()
        self.assertEqual(request, "GET /.well-known/mta-sts.txt HTTP/1.1")
        self.assertIn(f"Host: {HOST}", fields)
        self.assertEqual(host.server_names, [HOST])
        self.assertTrue(host.over)

    def test_a_wildcard_certificate_stands_for_one_label(self) -> None:
        self.host(response(), issued=self.issued("*.a.example"))
        self.assertIsInstance(self.fetch(), Policy)
        self.host(response(), issued=self.issued("*.b.example"))
        self.refused("not for mta-sts.a.example, but for *.b.example")
        self.host(response(), issued=self.issued("*.example"))
        self.refused("cannot be compared with mta-sts.a.example")

    def test_a_body_in_chunks(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b"".join(b"1\r\n%c\r\n" % octet for octet in POLICY) + b"0\r\n\r\n"
        self.host(head, 0.1, chunks[:20], 0.1, chunks[20:])
        self.assertEqual(self.fetch([0.1, 0.1]), Policy.parse(POLICY))

    def test_a_body_that_ends_with_the_connection(self) -> None:
        head = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
        self.host(head + POLICY, "close")
        self.assertEqual(self.fetch(), Policy.parse(POLICY))

    def test_parameters_of_the_media_type_are_ignored(self) -> None:
        self.host(response(kind="Text/Plain ; charset=utf-8; x=y"))
        self.assertIsInstance(self.fetch(), Policy)

    def test_the_largest_policy(self) -> None:
        body = POLICY + b"x: " + b"x" * (65_536 - len(POLICY) - 4) + b"\n"
        self.host(response(body))
        self.assertIsInstance(self.fetch(), Policy)

    def test_a_slow_policy(self) -> None:
        self.host(response()[:-1], 50.0, response()[-1:])
        self.assertIsInstance(self.fetch([50.0]), Policy)

    def test_the_next_address(self) -> None:
        resolver = FakeResolver(addresses={HOST: ["192.0.2.9", "2001:db8::9", "192.0.2.1"]})
        self.client._resolver = resolver
        self.network.swallow("2001:db8::9", 443)
        self.host(response())
        self.assertIsInstance(self.fetch([15.0]), Policy)

    # Servers that do not prove their names get no request.

    def unproven(self, issued: Issued, expected: str, **kinds: int) -> None:
        host = self.host(response(), issued=issued, **kinds)
        error = self.refused(expected)
        self.assertEqual(error.trouble, "sts-webpki-invalid")
        self.assertEqual(host.request, b"")

    def test_an_expired_certificate(self) -> None:
        self.unproven(self.issued(HOST, days=(-9, -1)), "has expired")

    def test_a_self_signed_certificate(self) -> None:
        self.unproven(self_signed(HOST, names=[HOST]), "is self-signed")

    def test_a_certificate_of_another_authority(self) -> None:
        other = Authority("Other CA").issue(HOST, names=[HOST], for_clients=False)
        self.unproven(other, "leads to no trusted authority")

    def test_a_certificate_for_another_name(self) -> None:
        self.unproven(self.issued("a.example", "mx.a.example"), "but for a.example")

    def test_a_certificate_with_a_common_name_alone(self) -> None:
        self.unproven(self.issued(), "cannot be compared with mta-sts.a.example")

    def test_a_certificate_for_clients(self) -> None:
        self.unproven(self.issued(HOST, for_clients=True), "is not for servers")

    def test_an_old_version_of_tls(self) -> None:
        host = self.host(response(), maximum=SSL.TLS1_1_VERSION)
        self.refused(HOST)
        self.assertEqual(host.request, b"")

    # Answers that are no policy.

    def test_redirects_are_not_followed(self) -> None:
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            location = f"Location: https://{HOST}/other\r\n"
            self.host(response(status=status, more=location))
            self.refused(f"answers {status[:3]}, expected 200")
        self.assertEqual(len(self.network.connections), 4)

    def test_other_codes(self) -> None:
        for status in ("404 Not Found", "204 No Content", "206 Partial Content", "503 Busy"):
            self.host(response(status=status))
            self.assertEqual(
                self.refused(f"answers {status[:3]}").trouble, "sts-policy-fetch-error"
            )

    def test_other_media_types(self) -> None:
        for kind in ("text/html", "text/plainer", "application/octet-stream", "", None):
            self.host(response(kind=kind))
            self.assertEqual(self.refused("expected text/plain").trouble, "sts-policy-invalid")
        self.host(response(more="Content-Type: text/html\r\n"))
        self.refused("sends text/html and text/plain")

    def test_a_body_that_is_no_policy(self) -> None:
        self.host(response(b"<html></html>"))
        self.assertEqual(self.refused("the line <html>").trouble, "sts-policy-invalid")

    def test_a_body_that_is_too_long(self) -> None:
        for body in (POLICY + b"\n" * 65_536, b"x" * (1 << 20)):
            host = self.host(response(body))
            self.refused("more than 65536 octets")
            self.assertTrue(host.over)

    def test_endless_header_fields(self) -> None:
        self.host(b"HTTP/1.1 200 OK\r\n" + b"X-Long: x\r\n" * 50_000)
        self.refused("more than 65536 octets")

    def test_what_is_no_http(self) -> None:
        self.host(b"220 mx.example ESMTP\r\n", "close")
        self.refused(HOST)

    def test_a_connection_that_ends_early(self) -> None:
        for end in ("close", "abort"):
            self.host(response()[:-10], end)
            self.refused(HOST)
            self.host(response()[:30], end)
            self.refused(HOST)
            self.host(end)
            self.refused(HOST)

    def test_a_broken_connection_is_no_end_of_a_body(self) -> None:
        head = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n"
        self.host(head + POLICY, 1.0, "abort")
        self.refused(HOST, [1.0])

    # What takes too long.

    def test_a_server_that_sends_an_octet_now_and_then(self) -> None:
        drops: list[Step] = [piece for octet in response() for piece in (bytes([octet]), 10.0)]
        host = self.host(*drops)
        self.refused("no answer within 60 s", [10.0] * 6)
        self.assertTrue(host.over)

    def test_a_server_that_does_not_answer(self) -> None:
        host = self.host()
        self.refused("no answer within 60 s", [60.0])
        self.assertTrue(host.over)

    def test_a_server_without_a_handshake(self) -> None:
        silent = PolicyHost(self.network, self.good)
        silent.connectionMade = lambda: None  # type: ignore[method-assign]
        self.network.listen("192.0.2.1", 443, silent)
        self.refused("no answer within 60 s", [60.0])

    def test_addresses_that_do_not_answer(self) -> None:
        self.network.swallow("192.0.2.1", 443)
        self.refused("192.0.2.1", [15.0])

    def test_a_lookup_that_does_not_answer(self) -> None:
        self.resolver.hold(HOST)
        self.refused("no answer within 60 s", [60.0])

    # No host.

    def test_no_such_host(self) -> None:
        error = self.fetch(domain="b.example")
        assert isinstance(error, FetchError)
        self.assertIn("mta-sts.b.example", error.reason)

    def test_a_host_without_an_address(self) -> None:
        self.client._resolver = FakeResolver(addresses={HOST: []})
        self.refused("has no address")

    def test_a_failed_lookup(self) -> None:
        self.resolver.fail(HOST)
        self.refused("SERVFAIL")

    def test_a_refused_connection(self) -> None:
        self.refused("192.0.2.1")

    def test_a_domain_whose_host_has_no_name(self) -> None:
        error = self.fetch(domain=".".join(["x" * 60] * 4) + ".abcd")
        assert isinstance(error, FetchError)
        self.assertIn("too long", error.reason)

    def test_a_fetch_can_be_canceled(self) -> None:
        host = self.host()
        fetching = self.fetcher.fetch("a.example")
        self.network.settle()
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.network.settle()
        self.assertTrue(host.over)
        self.assertEqual(self.network.left_open(), [])
