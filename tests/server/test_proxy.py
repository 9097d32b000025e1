"""The PROXY protocol: the header, its timeout, and the session of the named client."""

import contextlib
import struct
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.server.certificate import server_context
from tests.server.dialogue import DialogueTestCase
from tests.server.loopback import Client, ClientTLS, LoopbackTestCase, listener, received
from tests.tidy import TidyTestCase
from tests.waiting import turn, until
from twisted_mta.config import ConfigError, Listener
from twisted_mta.server.addresses import ProxiedAddress
from twisted_mta.server.factory import ImplicitTLSFactory, ListenerFactory
from twisted_mta.server.protocol import ESMTPProtocol
from twisted_mta.server.proxy import ProxyFactory
from twisted_mta.server.proxy_header import ProxyError, crc32c, read_header
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.testing.client import SMTPClientEnd

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BALANCERS = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
LOOPBACK = ip_network("127.0.0.0/8")

V4 = ProxiedAddress("203.0.113.9", 4711, "198.51.100.25", 25)
V6 = ProxiedAddress("2001:db8::9", 4711, "2001:db8::25", 25)
LINE_4 = b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 25\r\n"
LINE_6 = b"PROXY TCP6 2001:db8::9 2001:DB8:0:0:0:0:0:25 4711 25\r\n"


def addresses(proxied: ProxiedAddress) -> bytes:
    return (
        ip_address(proxied.host).packed
        + ip_address(proxied.destination).packed
        + struct.pack("!HH", proxied.port, proxied.destination_port)
    )


def block(command: int, family: int, content: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(content)) + content


def tlv(type: int, value: bytes) -> bytes:
    return struct.pack("!BH", type, len(value)) + value


def summed(family: int, content: bytes, behind: bytes = b"") -> bytes:
    """Return a binary header with a checksum after its addresses."""
    header = block(0x21, family, content + tlv(3, b"\0\0\0\0") + behind)
    place = 16 + len(content) + 3
    return header[:place] + struct.pack("!I", crc32c(header)) + header[place + 4 :]


BLOCK_4 = block(0x21, 0x11, addresses(V4))
BLOCK_6 = block(0x21, 0x21, addresses(V6))

HEADERS = (
    (LINE_4, V4),
    (LINE_6, V6),
    (b"PROXY TCP4 0.0.0.1 255.255.255.255 0 65535\r\n", None),
    (b"PROXY TCP6 " + b" ".join([b"ffff" + b":ffff" * 7] * 2) + b" 65535 65535\r\n", None),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:198.51.100.25 4711 25\r\n", V4),
    (BLOCK_4, V4),
    (BLOCK_6, V6),
    (
        block(
            0x21,
            0x21,
            b"".join(
                b"\0" * 10 + b"\xff\xff" + ip_address(each).packed
                for each in (V4.host, V4.destination)
            )
            + struct.pack("!HH", 4711, 25),
        ),
        V4,
    ),
    (block(0x21, 0x11, addresses(V4) + tlv(4, b"") + tlv(0xEE, b"x" * 300)), V4),
    (block(0x21, 0x11, addresses(V4) + tlv(0xEA, b"x" * (4096 - 15))), V4),
    (summed(0x11, addresses(V4)), V4),
    (summed(0x21, addresses(V6), tlv(2, b"mx.example")), V6),
)

FOR_ITSELF = (
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN \r\n",
    b"PROXY UNKNOWN 203.0.113.9 198.51.100.25 4711 25\r\n",
    b"PROXY UNKNOWN " + b"\xff" * 91 + b"\r\n",
    b"PROXY TCP4 0.0.0.0 198.51.100.25 4711 25\r\n",
    b"PROXY TCP6 :: 2001:db8::25 4711 25\r\n",
    block(0x20, 0x00),
    block(0x20, 0x11, addresses(V4)),
    block(0x20, 0xFF, b"whatever"),
    block(0x21, 0x00),
    block(0x21, 0x00, b"whatever"),
    block(0x21, 0x10, b"whatever"),
    block(0x21, 0x01),
    block(0x21, 0x12, addresses(V4)),
    block(0x21, 0x22, addresses(V6)),
    block(0x21, 0x31, b"/run/client".ljust(108, b"\0") + b"/run/mta".ljust(108, b"\0")),
    block(0x21, 0x32, b"\0" * 216),
    block(0x21, 0x11, b"\0" * 12),
    summed(0x31, b"\0" * 216),
)

NOT_HEADERS = (
    b"EHLO client.example\r\n",
    b"QUIT\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/1.1\r\n",
    b"PROXY\r\n",
    b"PROXYTCP4 ",
    b"proxy TCP4 203.0.113.9 198.51.100.25 4711 25\r\n",
    b"PROXY  TCP4 203.0.113.9 198.51.100.25 4711 25\r\n",
    b"PROXY TCP4  203.0.113.9 198.51.100.25 4711 25\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 25 \r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 25 26\r\n",
    b"PROXY TCP4 203.0.113.09 198.51.100.25 4711 25\r\n",
    b"PROXY TCP4 203.0.113.256 198.51.100.25 4711 25\r\n",
    b"PROXY TCP4 203.0.113 198.51.100.25 4711 25\r\n",
    b"PROXY TCP4 2001:db8::9 2001:db8::25 4711 25\r\n",
    b"PROXY TCP6 203.0.113.9 198.51.100.25 4711 25\r\n",
    b"PROXY TCP6 2001:db8::9 198.51.100.25 4711 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::25 4711 25\r\n",
    b"PROXY TCP6 2001::db8::9 2001:db8::25 4711 25\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 65536 25\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 65536\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 04711 25\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 025\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 -1 25\r\n",
    b"PROXY UDP4 203.0.113.9 198.51.100.25 4711 25\r\n",
    b"PROXY UNKNOWNx\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 25\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 25\r\r\n",
    b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 25\rx\r\n",
    b"PROXY UNKNOWN \r \r\n",
    b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * 93,
    SIGNATURE[:-1] + b"\r",
    block(0x11, 0x11, addresses(V4)),
    block(0x22, 0x11, addresses(V4)),
    block(0x2F, 0x11, addresses(V4)),
    block(0x31, 0x11, addresses(V4)),
    block(0x21, 0x41, addresses(V4)),
    block(0x21, 0x13, addresses(V4)),
    block(0x21, 0x03, addresses(V4)),
    block(0x21, 0xF0, addresses(V4)),
    block(0x21, 0x11, addresses(V4)[:-1]),
    block(0x21, 0x21, addresses(V4)),
    block(0x21, 0x31, b"\0" * 215),
    block(0x21, 0x12, b"\0" * 11),
    (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 4097)),
    (SIGNATURE + struct.pack("!BBH", 0x20, 0x00, 65535)),
    block(0x21, 0x11, addresses(V4) + b"\x04\0"),
    block(0x21, 0x11, addresses(V4) + b"\x04\0\x01"),
    block(0x21, 0x11, addresses(V4) + tlv(3, b"\0" * 4)),
    block(0x21, 0x11, addresses(V4) + tlv(3, b"\0" * 3)),
    block(0x21, 0x31, b"\0" * 216 + tlv(3, b"\0" * 4)),
)


class Headers(TidyTestCase):
    """`read_header`, without a connection."""

    def test_a_header_names_client_and_destination(self) -> None:
        for octets, proxied in HEADERS:
            header = read_header(octets)
            assert header is not None, octets
            self.assertEqual(header[1], b"")
            if proxied is not None:
                self.assertEqual(header[0], proxied)
            self.assertIsInstance(header[0], ProxiedAddress)

    def test_a_header_may_name_no_client(self) -> None:
        for octets in FOR_ITSELF:
            self.assertEqual(read_header(octets), (None, b""), octets)

    def test_a_header_is_read_at_its_last_octet_and_the_rest_is_returned(self) -> None:
        for octets in (*(octets for octets, _ in HEADERS), *FOR_ITSELF):
            whole = read_header(octets)
            assert whole is not None
            for cut in range(len(octets)):
                self.assertIsNone(read_header(octets[:cut]), octets[:cut])
            for rest in (b"\0", b"\r\n", LINE_4, b"EHLO x\r\n" * 1000):
                self.assertEqual(read_header(octets + rest), (whole[0], rest))

    def test_malformed_headers_are_errors_at_every_split(self) -> None:
        for octets in NOT_HEADERS:
            self.assertRaises(ProxyError, read_header, octets)
            # However it is split: no part of it is taken for a header, and none waits for more
            # octets than a header may have.
            for cut in range(len(octets)):
                try:
                    self.assertIsNone(read_header(octets[:cut]), octets[:cut])
                except ProxyError:
                    break

    def test_no_more_octets_are_awaited_than_a_header_may_have(self) -> None:
        for start, most in ((b"PROXY UNKNOWN ", 107), (SIGNATURE + b"\x21\x11\x10\0", 16 + 4096)):
            octets = start.ljust(most - 1, b"x")
            self.assertIsNone(read_header(octets))
            with contextlib.suppress(ProxyError):
                self.assertIsNotNone(read_header(octets + b"x"))

    def test_a_wrong_checksum_is_an_error(self) -> None:
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)  # the check value of catalogues of CRCs
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)  # RFC 3720 B.4
        header = summed(0x11, addresses(V4), tlv(4, b"padding"))
        for place in (*range(16, 28), *range(31, len(header) - 10), len(header) - 1):
            for bit in range(8):
                spoilt = bytearray(header)
                spoilt[place] ^= 1 << bit
                self.assertRaises(ProxyError, read_header, bytes(spoilt))


class Settings(TidyTestCase):
    def test_no_balancer_is_believed_by_default(self) -> None:
        plain = Listener(endpoint="tcp:25")
        self.assertEqual((plain.proxy_protocol_from, plain.xclient_from), ((), ()))
        self.assertEqual(plain.proxy_protocol_timeout, 10.0)

    def test_a_header_in_front_of_a_tls_endpoint_is_a_configuration_error(self) -> None:
        error = self.assertRaises(
            ConfigError, Listener, endpoint="ssl:465", proxy_protocol_from=[LOOPBACK]
        )
        self.assertIn(
            "the PROXY protocol precedes TLS; expected tcp: with implicit_tls", str(error)
        )
        Listener(endpoint="tcp:465", implicit_tls=True, proxy_protocol_from=[LOOPBACK])
        Listener(endpoint="ssl:465", xclient_from=[LOOPBACK])

    def test_proxy_protocol_from_takes_networks_alone(self) -> None:
        for name in ("proxy_protocol_from", "xclient_from"):
            for value in ("10.0.0.0/8", ["10.0.0.1/8"], ["balancer.example"]):
                self.assertRaises(ConfigError, Listener, endpoint="tcp:25", **{name: value})


class Dialogues(DialogueTestCase):
    """Connections in memory; balancers are in 10.0.0.0/8."""

    def setUp(self) -> None:
        super().setUp()
        self.logged = logged_lines(self)

    def behind(self, factory: ListenerFactory) -> ProxyFactory:
        return ProxyFactory(factory, BALANCERS, clock=self.network)

    def dial(self, host: str = "10.0.0.1", *, implicit_tls: bool = False) -> SMTPClientEnd:
        def wrap(factory: ListenerFactory) -> ProxyFactory:
            return self.behind(ImplicitTLSFactory(factory) if implicit_tls else factory)  # type: ignore[arg-type]

        return self.connect(host=host, wrap=wrap)

    def session(self) -> Session:
        (*_, protocol) = self.factory._connections
        return protocol.session

    def test_the_greeting_follows_the_header_at_every_split(self) -> None:
        for octets in (LINE_4, BLOCK_6, b"PROXY UNKNOWN\r\n", summed(0x11, addresses(V4))):
            for cut in range(1, len(octets)):
                client = self.dial()
                self.say(client, octets[:cut])
                self.assertEqual(client.unread, b"")
                self.say(client, octets[cut:])
                self.assertEqual(self.hear(client), ["220 "])
                client.abort()
                self.network.advance(0)

    def test_a_header_may_come_octet_by_octet(self) -> None:
        for octets, _ in HEADERS:
            client = self.dial()
            for octet in octets:
                self.assertEqual(client.unread, b"")
                self.say(client, bytes([octet]))
            self.assertEqual(self.hear(client), ["220 "])
            self.say(client, b"QUIT\r\n")
            self.assertEqual(self.hear(client), ["221 2.0.0"])
        self.assertEqual(self.factory.violations, 0)

    def test_the_session_knows_the_client(self) -> None:
        for octets, host, ours in (
            (LINE_4, V4.host, V4.destination),
            (BLOCK_6, V6.host, V6.destination),
        ):
            self.say(self.dial(), octets)
            self.assertEqual(self.session().peer, Peer(host, 4711))
            self.assertEqual(self.session().local_address, ours)

    def test_a_balancer_that_connects_for_itself_is_the_client(self) -> None:
        for octets in FOR_ITSELF:
            self.say(self.dial(host="10.0.0.77"), octets)
            self.assertEqual(self.session().peer.address, "10.0.0.77", octets)
            self.assertEqual(self.session().local_address, "127.0.0.1", octets)

    def test_other_peers_are_greeted_at_once_and_their_header_is_a_syntax_error(self) -> None:
        for host in ("192.0.2.7", "2001:db8:2::1", "::ffff:192.0.2.7"):
            client = self.dial(host)
            self.assertEqual(self.hear(client), ["220 "])
            self.say(client, LINE_4)
            self.assertEqual(self.hear(client), ["500 5.5.2"])
            self.assertNotEqual(self.session().peer.address, V4.host)

    def test_a_balancer_is_recognized_by_every_form_of_its_address(self) -> None:
        for host in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::5"):
            client = self.dial(host)
            self.assertEqual(client.unread, b"")
            self.say(client, LINE_4)
            self.assertEqual(self.hear(client), ["220 "])

    def test_a_unix_socket_is_in_no_network_of_balancers(self) -> None:
        protocol = self.behind(self.factory).buildProtocol(UNIXAddress("/run/balancer"))
        self.assertIsInstance(protocol, ESMTPProtocol)

    def test_limits_per_peer_count_clients_and_not_balancers(self) -> None:
        self.serve(max_connections_per_peer=2)
        replies = []
        for number in (1, 1, 1, 2, 2, 2):
            client = self.dial()
            self.say(client, b"PROXY TCP4 203.0.113.%d 198.51.100.25 1 25\r\n" % number)
            replies += self.hear(client)
        self.assertEqual(replies, ["220 ", "220 ", "421 4.7.0"] * 2)

    def test_a_malformed_header_is_aborted_without_a_reply_and_logged_once(self) -> None:
        for octets in NOT_HEADERS:
            client = self.dial()
            self.say(client, octets)
            self.assertTrue(client.over, octets)
            self.assertEqual(client.unread, b"")
            (line,) = self.logged
            self.assertTrue(line.startswith("connection from 10.0.0.1 closed: "), line)
            self.logged.clear()
        self.assertEqual(self.factory._connections, {})

    def test_octets_after_an_abort_are_ignored(self) -> None:
        client = self.dial()
        protocol = self.server_end(client).protocol
        protocol.dataReceived(b"x")
        protocol.dataReceived(LINE_4)
        self.network.advance(0)
        self.assertTrue(client.over)
        self.assertEqual(len(self.logged), 1)

    def test_a_header_that_is_too_slow_is_aborted(self) -> None:
        client = self.dial()
        for octet in LINE_4[:9]:
            self.say(client, bytes([octet]))
            self.network.advance(1)
        self.assertFalse(client.over)
        self.network.advance(1)
        self.assertTrue(client.over)
        self.assertEqual(client.unread, b"")
        (line,) = self.logged
        self.assertIn("10.0.0.1 closed: no header of the PROXY protocol in time", line)

    def test_the_timeout_of_the_header_ends_with_it(self) -> None:
        client = self.dial()
        self.say(client, LINE_4)
        self.network.advance(60)
        self.assertEqual(self.hear(client), ["220 "])
        self.assertFalse(client.over)

    def test_a_connection_that_is_lost_before_its_header_leaves_no_timer(self) -> None:
        for octets, lines in ((b"", 0), (LINE_4[:7], 1)):
            client = self.dial()
            self.say(client, octets)
            client.abort()
            self.network.advance(0)
            self.assertEqual(self.network.getDelayedCalls(), [])
            self.assertEqual(len(self.logged), lines)

    def test_octets_behind_the_header_are_octets_before_the_greeting(self) -> None:
        for header in (LINE_4, BLOCK_4, b"PROXY UNKNOWN\r\n"):
            for behind in (b"E", b"EHLO client.example\r\nMAIL FROM:<>\r\n", LINE_4):
                client = self.dial()
                self.say(client, header + behind)
                self.assertEqual(self.hear(client), ["554 5.5.0"])
                self.assertTrue(client.over)
        self.assertEqual(self.factory.violations, 9)
        self.assertEqual(self.delivery.calls, [])

    def test_under_implicit_tls_the_handshake_may_follow_the_header_at_once(
        self,
    ) -> None:
        for at_once in (False, True):
            client = self.dial(implicit_tls=True)
            client.transport.write(LINE_4)
            if not at_once:
                self.network.advance(0)
                self.assertEqual(client.unread, b"")
            self.start_tls(client)
            self.assertEqual(self.hear(client), ["220 "])
            self.assertEqual(self.session().peer, Peer(V4.host, 4711))
            self.assertEqual(self.session().local_address, V4.destination)
            assert self.session().tls is not None
        self.assertEqual(self.factory.violations, 0)

    def test_without_a_certificate_an_implicit_tls_connection_is_closed(
        self,
    ) -> None:
        tls = server_context()
        self.serve(tls=tls)

        class NotReady:
            ready = False
            creator = tls.creator
            facts = tls.facts

        self.factory.tls = NotReady()  # type: ignore[assignment]
        client = self.dial(implicit_tls=True)
        self.say(client, LINE_4)
        self.assertTrue(client.over)
        self.assertEqual(client.unread, b"")

    def test_starttls_and_mail_work_behind_a_header(self) -> None:
        client = self.dial()
        self.say(client, BLOCK_4)
        self.say(client, b"EHLO client.example\r\n")
        self.say(client, b"STARTTLS\r\n")
        self.assertEqual(self.hear(client)[-1], "220 2.0.0")
        self.start_tls(client)
        self.begin_content(client)
        self.say(client, b"x\r\n.\r\n")
        self.assertEqual(self.hear(client), ["250 2.0.0"])
        self.assertEqual(self.session().peer, Peer(V4.host, 4711))

    def test_closing_the_port_aborts_connections_without_a_header(self) -> None:
        factory = self.behind(self.factory)
        factory.doStart()
        client = self.connect(host="10.0.0.1", wrap=lambda _: factory)
        self.say(client, LINE_4[:9])
        factory.doStop()
        self.network.advance(0)
        self.assertTrue(client.over)
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.assertEqual(self.logged, [])

    def test_any_factory_may_be_wrapped(self) -> None:
        calls: list[Any] = []

        class Other(Protocol):
            def dataReceived(self, data: bytes) -> None:
                calls.append(data)

        class Others(ServerFactory):
            noisy = False
            started = 0

            def startFactory(self) -> None:
                self.started += 1

            def stopFactory(self) -> None:
                self.started -= 1

            def buildProtocol(self, addr: Any) -> Protocol:
                calls.append(addr)
                return Other()

        others = Others()
        factory = ProxyFactory(others, BALANCERS, clock=Clock())
        factory.doStart()
        self.assertEqual(others.started, 1)
        client = self.connect(host="10.0.0.1", wrap=lambda _: factory)
        self.say(client, LINE_4 + b"first")
        self.say(client, b"then")
        self.assertEqual(calls, [V4, b"first", b"then"])
        self.assertEqual((V4.type, V4.host, V4.port), ("TCP", "203.0.113.9", 4711))
        factory.doStop()
        self.assertEqual(others.started, 0)


SENT = ["250", "250", "354", "250"]


class OverTCP(LoopbackTestCase):
    """A whole MTA; every client connects from the loopback interface."""

    def proxied(self, **settings: Any) -> Listener:
        return listener(**{"proxy_protocol_from": [LOOPBACK], **settings})

    async def begin(self, port: int, header: bytes = LINE_4) -> Client:
        client = await self.dial(port)
        client.transport.write(header)
        greeting = await client.reply()
        self.assertTrue(greeting.startswith("220 "), greeting)
        return client

    async def test_the_trace_field_and_the_log_have_the_client(self) -> None:
        agent = self.agent(self.proxied())
        for header, shown in ((LINE_4, "203.0.113.9"), (BLOCK_6, "2001:db8::9")):
            client = await self.begin(self.port(agent), header)
            await client.say("EHLO client.example")
            self.assertEqual(await client.mail("bob@mx.example"), SENT)
            literal = f"[IPv6:{shown}]" if ":" in shown else f"[{shown}]"
            self.assertIn(f"from client.example ({literal})", received(agent.messages[-1]))
            self.assertEqual(
                len([each for each in self.log if f" client={shown} helo=" in each]), 1
            )

    async def test_relaying_is_decided_by_the_clients_address(self) -> None:
        agent = self.agent(self.proxied(), relay_from=[ip_network("203.0.113.0/24")])
        for header, code in (
            (LINE_4, "250"),
            (BLOCK_4, "250"),
            (LINE_6, "550"),
            (b"PROXY UNKNOWN\r\n", "550"),
            (block(0x20, 0x11, addresses(V4)), "550"),
            (block(0x21, 0x31, b"\0" * 216), "550"),
            (b"PROXY TCP4 0.0.0.0 203.0.113.25 1 25\r\n", "550"),
        ):
            client = await self.begin(self.port(agent), header)
            await client.say("EHLO client.example")
            codes = await client.mail("a@elsewhere.example")
            self.assertEqual(codes[1], code, header)

    async def test_a_header_without_a_client_leaves_the_balancer_as_the_client(self) -> None:
        agent = self.agent(self.proxied(), relay_from=[LOOPBACK])
        for header, code in ((b"PROXY UNKNOWN\r\n", "250"), (LINE_4, "550")):
            client = await self.begin(self.port(agent), header)
            await client.say("EHLO client.example")
            self.assertEqual((await client.mail("a@elsewhere.example"))[1], code)

    async def test_our_address_is_the_destination_in_the_header(self) -> None:
        agent = self.agent(self.proxied())
        for header, ours in ((LINE_4, "[198.51.100.25]"), (BLOCK_6, "[IPv6:2001:db8::25]")):
            client = await self.begin(self.port(agent), header)
            await client.say("EHLO client.example", "MAIL FROM:<>")
            (taken, refused) = await client.say(
                f"RCPT TO:<bob@{ours}>", "RCPT TO:<bob@[127.0.0.1]>"
            )
            self.assertEqual((taken[:3], refused[:3]), ("250", "550"))

    async def test_starttls_works_behind_a_header(self) -> None:
        """Twisted puts TLS between the transport and its protocol of that time."""
        agent = self.agent(self.proxied(require_tls=True))
        client = await self.begin(self.port(agent), BLOCK_4)
        await client.say("EHLO client.example")
        await client.start_tls()
        await client.say("EHLO client.example")
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertRegex(
            received(agent.messages[-1]), r"\[203\.0\.113\.9\].*TLSv1\.3.* with ESMTPS "
        )
        (bye,) = await client.say("QUIT")
        self.assertEqual(bye, "221 2.0.0 Bye")
        await client.lost

    async def test_implicit_tls_works_behind_a_header(self) -> None:
        agent = self.agent(self.proxied(implicit_tls=True))
        for at_once in (False, True):
            client = await self.dial(self.port(agent))
            client.transport.write(LINE_4)
            if not at_once:
                await until(lambda: bool(agent.agent.listeners.factories[0].connections_open))
            handshake = client.expect_handshake()
            client.transport.startTLS(ClientTLS())
            await handshake
            self.assertEqual(await client.reply(), "220 mx.example ESMTP")
            await client.say("EHLO client.example")
            self.assertEqual(await client.mail("bob@mx.example"), SENT)
            self.assertRegex(received(agent.messages[-1]), r"\[203\.0\.113\.9\].* with ESMTPS ")
            await client.say("QUIT")
            await client.lost

    async def test_a_failed_handshake_behind_a_header_is_logged_with_the_client(self) -> None:
        agent = self.agent(self.proxied(implicit_tls=True))
        client = await self.dial(self.port(agent))
        client.transport.write(LINE_4 + b"EHLO client.example\r\n")
        await client.lost
        (line,) = [line for line in self.log if "TLS handshake" in line]
        self.assertTrue(line.startswith("TLS handshake with 203.0.113.9 failed: "), line)
        self.assertNotIn(b"220", client.unread)

    async def test_a_header_may_come_octet_by_octet(self) -> None:
        agent = self.agent(self.proxied())
        client = await self.dial(self.port(agent))
        client.transport.setTcpNoDelay(True)
        for octet in BLOCK_4:
            client.transport.write(bytes([octet]))
            await turn(0.001)
        self.assertEqual(await client.reply(), "220 mx.example ESMTP")

    async def test_octets_behind_the_header_are_answered_with_554(self) -> None:
        agent = self.agent(self.proxied())
        client = await self.dial(self.port(agent))
        client.transport.write(LINE_4 + b"EHLO client.example\r\n")
        self.assertEqual((await client.reply())[:9], "554 5.5.0")
        self.assertEqual(await client.reply(), "CLOSED")
        (line,) = [line for line in self.log if "before its turn" in line]
        self.assertIn("203.0.113.9 sent data", line)

    async def test_a_malformed_header_resets_the_connection(self) -> None:
        agent = self.agent(self.proxied())
        for octets in (
            b"EHLO client.example\r\n",
            b"PROXY TCP4 x\r\n",
            SIGNATURE + b"\x21\x11\xff\xff",
        ):
            reasons: list[Any] = []
            client = await self.dial(self.port(agent))
            end = client.connectionLost

            def lost(reason: Any, end: Any = end, reasons: list[Any] = reasons) -> None:
                reasons.append(reason.type)
                end(reason)

            client.connectionLost = lost  # type: ignore[method-assign]
            client.transport.write(octets)
            self.assertEqual(await client.reply(), "CLOSED")
            self.assertEqual(client.unread, b"")
            self.assertEqual(reasons, [ConnectionLost])
        self.assertEqual(len([each for each in self.log if "PROXY protocol" in each]), 3)

    async def test_a_connection_without_a_header_is_aborted_after_the_timeout(self) -> None:
        agent = self.agent(self.proxied(proxy_protocol_timeout=0.05))
        begun = self.reactor.seconds()
        client = await self.dial(self.port(agent))
        self.assertEqual(await client.reply(), "CLOSED")
        self.assertLess(self.reactor.seconds() - begun, 8)  # less than the default of 10 s

    async def test_other_peers_connect_directly(self) -> None:
        agent = self.agent(self.proxied(proxy_protocol_from=[ip_network("10.0.0.0/8")]))
        client = await self.session(agent)
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertIn("([127.0.0.1])", received(agent.messages[-1]))

    async def test_a_stop_does_not_wait_for_headers(self) -> None:
        agent = self.agent(self.proxied())
        client = await self.dial(self.port(agent))
        client.transport.write(LINE_4[:9])
        await turn(0.001)
        await agent.stopService()
        await client.lost
