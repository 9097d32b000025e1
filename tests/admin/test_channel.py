"""Bounds on what a client of the page or the control socket can use of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from tests.tidy import TidyTestCase
from twisted_mta.admin.channel import Bounds, Lane
from twisted_mta.admin.http import Outlet, Request, ResponderSite, Response, Stream

GET = b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
BOUNDS = Bounds(connections=5, per_peer=3, body=1000, idle=60, request=20, reading=30)


class Transport(StringTransport):
    """A transport whose other end may stop reading."""

    reads = True
    aborting = False

    def __init__(self, host: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", host, 4000))

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self.reads and self.producer is not None:
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def abortConnection(self) -> None:
        self.aborting = True

    def read(self) -> None:
        """Take all that was written, and go on."""
        self.reads = True
        self.producer.resumeProducing()

    @property
    def gone(self) -> bool:
        return self.disconnecting or self.aborting


class ChannelTestCase(TidyTestCase):
    longest = 0

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[str] = []
        self.site = ResponderSite(
            lambda request: self.answer(request),
            reactor=self.clock,
            longest=self.longest,
            bounds=BOUNDS,
        )

    def answer(self, request: Request) -> Response | Stream | Deferred[Response]:
        self.asked.append(request.path)
        return Response(body=b"yes")

    def connect(self, octets: bytes = b"", host: str = "192.0.2.1") -> Transport:
        protocol = self.site.buildProtocol(None)
        transport = Transport(host)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        protocol.dataReceived(octets)
        return transport

    def status(self, transport: StringTransport) -> int:
        return int(transport.value().split()[1])


class Pipelining(ChannelTestCase):
    def test_one_request_is_read_in_a_turn_of_the_reactor(self) -> None:
        transport = self.connect(b"".join(GET % number for number in range(5)))
        self.assertEqual(self.asked, ["/0"])
        self.clock.advance(0)
        self.assertEqual(self.asked, ["/0", "/1", "/2", "/3", "/4"])
        self.assertEqual(transport.value().count(b"\r\n\r\nyes"), 5)

    def test_the_next_request_waits_until_the_response_is_there(self) -> None:
        answers: list[Deferred[Response]] = []

        def later(request: Request) -> Deferred[Response]:
            answers.append(Deferred())
            return answers[-1]

        self.answer = later  # type: ignore[method-assign]
        self.connect(GET % 1 + GET % 2)
        self.clock.pump([0] * 3)
        self.assertEqual(len(answers), 1)
        answers[0].callback(Response(body=b"one"))
        self.clock.advance(0)
        self.assertEqual(len(answers), 2)

    def test_the_next_request_waits_until_the_response_is_read(self) -> None:
        transport = self.connect()
        transport.reads = False
        transport.protocol.dataReceived(GET % 1 + GET % 2)
        self.clock.advance(29)
        self.assertEqual((self.asked, transport.gone), (["/1"], False))
        transport.read()
        self.clock.advance(0)
        self.assertEqual((self.asked, transport.gone), (["/1", "/2"], False))

    def test_a_client_that_does_not_read_is_disconnected(self) -> None:
        for last in (b"", b"Connection: close\r\n"):
            transport = self.connect()
            transport.reads = False
            transport.protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n" + last + b"\r\n")
            self.clock.advance(31)
            self.assertTrue(transport.aborting)

    def test_a_streamed_response_has_the_fields_of_every_response(self) -> None:
        def begin(outlet: Outlet) -> Callable[[], object]:
            outlet.write(b"line\n")
            return lambda: None

        self.site = ResponderSite(
            lambda request: Stream(begin),
            reactor=self.clock,
            headers={"X-Frame-Options": "DENY"},
        )
        for method in (b"GET", b"HEAD"):
            transport = self.connect(method + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = transport.value().decode().lower()
            for line in ("cache-control: no-store", "server: twisted-mta", "x-frame-options: deny"):
                self.assertIn(f"\r\n{line}\r\n", head)

    def test_a_client_of_a_streamed_response_has_more_time_to_read(self) -> None:
        outlets: list[Outlet] = []

        def begin(outlet: Outlet) -> Callable[[], object]:
            outlets.append(outlet)
            return lambda: None

        self.answer = lambda request: Stream(begin)  # type: ignore[method-assign]
        transport = self.connect(GET % 1)
        transport.reads = False
        outlets[0].write(b"line\n")
        self.assertFalse(outlets[0].ready)
        self.clock.advance(500)
        self.assertFalse(transport.gone)
        self.clock.advance(101)
        self.assertTrue(transport.gone)


class Time(ChannelTestCase):
    def test_octets_of_a_request_do_not_extend_its_deadline(self) -> None:
        transport = self.connect(b"GET / HTTP/1.1\r\nHost: local")
        for _ in range(19):
            self.clock.advance(1)
            transport.protocol.dataReceived(b"h")
        self.assertFalse(transport.gone)
        self.clock.advance(1)
        self.assertEqual((self.status(transport), transport.gone), (408, True))
        transport.protocol.dataReceived(b"ost\r\n\r\n")
        self.assertEqual(self.asked, [])

    def test_the_deadline_of_a_request_includes_its_body(self) -> None:
        transport = self.connect(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        for _ in range(20):
            transport.protocol.dataReceived(b"x")
            self.clock.advance(1)
        self.assertEqual((self.status(transport), transport.gone), (408, True))

    def test_a_connection_may_be_idle_for_a_while(self) -> None:
        transport = self.connect(GET % 1)
        self.clock.advance(0)
        self.clock.advance(59)
        self.assertFalse(transport.gone)
        transport.protocol.dataReceived(GET % 2)
        self.assertEqual(self.asked, ["/1", "/2"])
        self.clock.advance(0)
        self.clock.advance(60)
        self.assertTrue(transport.gone)

    def test_responses_have_a_quarter_of_the_reactors_time(self) -> None:
        lane = Lane(self.clock)
        done: list[float] = []

        def work() -> None:
            done.append(round(self.clock.seconds(), 3))
            self.clock.rightNow += 0.010

        for _ in range(3):
            lane.enter(work)
        for _ in range(200):
            self.clock.advance(0.001)
        self.assertEqual(len(done), 3)
        for earlier, later in pairwise(done):
            self.assertGreaterEqual(later - earlier, 0.039)


class Connections(ChannelTestCase):
    def test_the_connection_that_waits_longest_is_closed_for_a_new_one(self) -> None:
        hosts = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.5"]
        before = [self.connect(b"GET", host) for host in hosts]
        last = self.connect(GET % 1, "192.0.2.4")
        self.assertEqual([each.gone for each in before], [True, False, False, False, False])
        self.assertEqual(self.status(last), 200)

    def test_a_peer_with_many_connections_loses_its_own_first(self) -> None:
        other = self.connect(b"GET", "192.0.2.2")
        before = [self.connect(b"GET") for _ in range(3)]
        self.connect(b"GET")
        self.assertEqual([each.gone for each in (other, *before)], [False, True, False, False])

    def test_a_connection_is_refused_where_none_of_the_others_waits(self) -> None:
        self.answer = lambda request: Deferred()  # type: ignore[method-assign]
        before = [self.connect(GET % 1, f"192.0.2.{number}") for number in range(5)]
        last = self.connect(GET % 1, "192.0.2.9")
        self.assertEqual([each.gone for each in before], [False] * 5)
        self.assertEqual((self.status(last), last.gone), (503, True))

    def test_closed_connections_do_not_count(self) -> None:
        for _ in range(20):
            transport = self.connect(GET % 1)
            self.assertEqual(self.status(transport), 200)
            transport.protocol.connectionLost()


class Bodies(ChannelTestCase):
    longest = 10

    def post(self, fields: bytes, body: bytes) -> Transport:
        return self.connect(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n\r\n" + body)

    def test_a_body_up_to_the_limit_is_taken(self) -> None:
        for fields, body in (
            (b"Content-Length: 10", b"x" * 10),
            (b"Transfer-Encoding: chunked", b"5\r\nxxxxx\r\n5\r\nxxxxx\r\n0\r\n\r\n"),
        ):
            self.assertEqual(self.status(self.post(fields, body)), 200)

    def test_a_body_that_is_a_little_too_long_is_read_past(self) -> None:
        transport = self.post(b"Content-Length: 11", b"x" * 11)
        self.assertEqual((self.status(transport), transport.gone), (413, False))

    def test_a_body_that_is_much_too_long_is_not_read(self) -> None:
        for fields, body in (
            (b"Content-Length: 1001", b""),
            (b"Content-Length: " + b"9" * 5000, b""),
            (b"Content-Length: 1001\r\nExpect: 100-continue", b""),
            (b"Transfer-Encoding: chunked", b"64\r\n" + b"x" * 100 + b"\r\n"),
        ):
            transport = self.post(fields, body)
            for _ in range(20):
                transport.protocol.dataReceived(b"64\r\n" + b"x" * 100 + b"\r\n")
            self.assertEqual((self.status(transport), transport.gone), (413, True), fields)
        self.assertEqual(self.asked, [])

    def test_requests_with_an_ambiguous_length_are_refused(self) -> None:
        # RFC 9112 §6.3
        for fields in (
            b"Content-Length: 4\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: 4",
            b"Content-Length: 4\r\nContent-Length: 5",
            b"Content-Length: 4, 4",
            b"Content-Length: +4",
            b"Content-Length: -1",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2000,
            b"Transfer-Encoding: chunked\r\n\r\nzz",
        ):
            transport = self.post(fields, b"0\r\n\r\n" + GET % 666)
            self.clock.pump([0] * 3)
            self.assertEqual((self.status(transport), transport.gone), (400, True), fields)
            transport.protocol.dataReceived(GET % 666)
            self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)
        self.assertEqual(self.asked, [])
