"""TLS of whole listeners, over real connections: RFC 3207, implicit TLS, SNI and reload."""

import contextlib
import gc
import os
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any
from weakref import ref

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.task import Clock

from tests.server.authority import Authority, Issued, self_signed
from tests.server.loopback import ClientTLS, LoopbackTestCase, RecordingAgent, listener, received
from tests.system.test_outbox import Sending
from tests.waiting import until
from twisted_mta.config import Listener, SNICertificate
from twisted_mta.server.factory import ImplicitTLSFactory, ListenerFactory
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.service import CannotReload
from twisted_mta.smtp.extension.starttls import STARTTLS
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.tls.handshake import group
from twisted_mta.tls.server import ServerContext, TLSSettings

SENT = ["250", "250", "354", "250"]
LOOPBACK = ip_network("127.0.0.0/8")


class AtTheEnd(LoopbackTestCase):
    """How a session under TLS ends."""

    async def last_session(self) -> tuple[Any, Any]:
        """Return the client and our protocol of a session."""
        agent = self.agent()
        client = await self.session(agent)
        await client.start_tls()
        await client.say("EHLO client.example")
        (factory,) = agent.agent.listeners.factories
        (protocol,) = factory._connections
        return client, protocol

    async def test_the_last_reply_and_the_end_of_tls_are_one_system_call(self) -> None:
        client, protocol = await self.last_session()
        protocol.transport.socket = socket = Sending(protocol.transport.socket)
        self.assertEqual(await client.say("QUIT"), ["221 2.0.0 Bye"])
        await client.lost
        self.assertEqual(socket.calls, 1)

    async def test_nothing_is_left_to_the_garbage_collector(self) -> None:
        client, protocol = await self.last_session()
        objects = protocol, protocol.transport, protocol.transport.getHandle(), protocol.session
        kept = [ref(each) for each in objects]
        del objects, protocol
        gc.disable()
        self.addCleanup(gc.enable)
        client.transport.write(b"QUIT\r\n")
        await client.lost
        await until(lambda: not any(each() for each in kept))


class InClear(LoopbackTestCase):
    async def test_s5_local_delivery_never_requires_tls_by_default(self) -> None:
        """RFC 3207 §4: a publicly referenced server must not require STARTTLS."""
        self.assertFalse(Listener(endpoint="tcp:25").require_tls)
        agent = self.agent()
        client = await self.session(agent)
        self.assertEqual(await client.mail("bob@mx.example"), SENT)

    async def test_s15_mail_in_clear_from_a_tls_client_is_refused_with_an_alarm(
        self,
    ) -> None:
        """RFC 3207 §6: STARTTLS may have been removed from our reply on the way."""
        agent = self.agent(listener(require_tls_from=[LOOPBACK]))
        client = await self.session(agent)
        (factory,) = agent.agent.listeners.factories
        self.assertEqual(
            await client.say("NOOP", "MAIL FROM:<a@a.example>", "NOOP"),
            ["250 2.0.0 OK", "530 5.7.0 Must issue a STARTTLS command first", "250 2.0.0 OK"],
        )
        (alarm,) = [line for line in self.log if "ALARM" in line]
        self.assertIn("MAIL in clear from 127.0.0.1,", alarm)
        self.assertEqual(factory.downgrades, 1)
        await client.say("HELO old.example")
        self.assertEqual((await client.mail("bob@mx.example")), ["530"])
        self.assertEqual(factory.downgrades, 2)
        await client.start_tls()
        await client.say("EHLO client.example")
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertEqual(factory.downgrades, 2)

    async def test_s15_mail_in_clear_from_other_clients_is_accepted(self) -> None:
        """RFC 3207 §6."""
        agent = self.agent(listener(require_tls_from=[ip_network("192.0.2.0/24")]))
        client = await self.session(agent)
        self.assertEqual(await client.mail("bob@mx.example"), SENT)

    async def test_s3_starttls_without_a_certificate_is_454_and_is_not_offered(self) -> None:
        """RFC 3207 §4; the session goes on in clear. A factory may have no certificate yet."""
        context = ServerContext(TLSSettings(certificate_file="/none.pem", key_file="/none.pem"))
        self.assertFalse(context.ready)
        factory = ListenerFactory(
            RecordingDelivery(),
            clock=Clock(),
            settings=SessionSettings(hostname="mx.example", extensions=(STARTTLS,)),
            tls=context,
        )
        client = await self.dial(self.serve(factory))
        await client.reply()
        self.assertEqual(
            await client.say("EHLO a", "STARTTLS", "NOOP"),
            [
                "250 mx.example",
                "454 4.7.0 TLS not available due to temporary reason",
                "250 2.0.0 OK",
            ],
        )

    def serve(self, factory: ListenerFactory | ImplicitTLSFactory) -> int:
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)


class AfterTheHandshake(LoopbackTestCase):
    async def test_s10_ehlo_after_the_handshake_offers_requiretls_in_place_of_starttls(
        self,
    ) -> None:
        """RFC 3207 §4.2, RFC 8689 §2."""
        client = await self.connect(self.agent())
        (before,) = await client.say("EHLO client.example")
        await client.start_tls()
        (after,) = await client.say("EHLO client.example")
        self.assertIn("STARTTLS", before)
        self.assertEqual(
            after.replace("250 ", "250-").split("\n"),
            before.replace("250 ", "250-").replace("STARTTLS", "REQUIRETLS").split("\n"),
        )

    async def test_clients_may_use_x25519_or_p_256(self) -> None:
        agent = self.agent()
        p_256, p_256_in_1_3, x25519 = ClientTLS(), ClientTLS(), ClientTLS()
        p_256.only(SSL.TLS1_2_VERSION).context.set_tmp_ecdh(ec.SECP256R1())
        p_256_in_1_3.only(SSL.TLS1_3_VERSION).context.set_tmp_ecdh(ec.SECP256R1())
        x25519.only(SSL.TLS1_2_VERSION)  # the first choice of OpenSSL there
        for tls, name in ((p_256, "secp256r1"), (p_256_in_1_3, "secp256r1"), (x25519, "x25519")):
            client = await self.session(agent, tls)
            found = group(client.transport.getHandle())  # None before pyOpenSSL 25.2
            self.assertEqual((found or name).lower(), name)


def client_hello() -> bytes:
    """Return the first octets of a client of TLS 1.2."""
    connection = SSL.Connection(ClientTLS().only(SSL.TLS1_2_VERSION).context, None)
    connection.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65_536)


class FailedHandshakes(LoopbackTestCase):
    async def test_s13_a_failed_handshake_is_closed_and_logged_and_others_go_on(self) -> None:
        """RFC 3207 §4.1."""
        agent = self.agent()
        other = await self.session(agent, ClientTLS())
        for octets, reason in (
            (b"GET / HTTP/1.0\r\n\r\n", "http request"),
            # OpenSSL 3.4 takes the letters for a length.
            (b"MAIL FROM:<a@a.example>\r\n", "wrong version number|packet length too long"),
            (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", "length"),
            (client_hello() + b"\x15\x03\x03\x00\x02\x01\x00", "the peer has closed TLS"),
        ):
            client = await self.connect(agent)
            await client.say("EHLO a", "STARTTLS")
            client.transport.write(octets)
            await client.lost
            (line,) = [line for line in self.log if "TLS handshake" in line]
            self.assertTrue(line.startswith("TLS handshake with 127.0.0.1 failed: "), line)
            self.assertRegex(line, reason)
            self.assertNotIn(b"250", client.unread)
            self.log.clear()
        self.assertEqual(await other.mail("bob@mx.example"), SENT)

    async def test_s7_octets_in_clear_behind_starttls_are_never_obeyed(self) -> None:
        """RFC 3207 §6: in one segment, in two, behind the header of a balancer; before TLS."""
        agent = self.agent(listener(), listener(proxy_protocol_from=[LOOPBACK]))
        injected = b"RSET\r\nMAIL FROM:<evil@a.example>\r\nRCPT TO:<bob@mx.example>\r\n"
        for number, header in enumerate((b"", b"PROXY TCP4 203.0.113.9 198.51.100.25 4711 25\r\n")):
            for first, replies, second in (
                (b"STARTTLS\r\n" + injected, ["554"], b""),
                (b"STARTTLS\r\n" + injected, ["554"], client_hello()),
                (b"STARTTLS\r\n", ["220"], injected),
                (b"STARTTLS\r\n", ["220"], injected + client_hello()),
                (b"NOOP\r\nNOOP\r\nSTARTT", ["250", "250"], b"LS\r\n" + injected),
            ):
                client = await self.dial(self.port(agent, number))
                client.transport.write(header)
                await client.reply()
                await client.say("EHLO client.example")
                client.transport.write(first)
                self.assertEqual([(await client.reply())[:3] for _ in replies], replies)
                client.transport.write(second)
                await client.lost
                self.assertNotIn(b"250", client.unread)
        client = await self.session(agent, ClientTLS())
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertEqual(len(agent.messages), 1)

    async def test_s13_the_alert_of_a_client_is_logged(self) -> None:
        """RFC 3207 §4.1: for example, of a client that does not trust our certificate."""
        agent = self.agent()
        client = await self.connect(agent)
        tls = ClientTLS().only(SSL.TLS1_2_VERSION)
        tls.context.set_verify(SSL.VERIFY_PEER, lambda *arguments: False)
        with self.assertRaises(SSL.Error):
            await client.start_tls(tls)
        # The alert may be on its way still; the next client comes after it.
        await until(
            lambda: any("TLS handshake with 127.0.0.1 failed: " in line for line in self.log)
        )
        (line,) = [line for line in self.log if "TLS handshake" in line]
        self.assertRegex(line, "failed: .*alert")

    async def test_s13_a_stalled_handshake_is_ended_and_logged(self) -> None:
        """RFC 3207 §4.1: after the timeout, by STARTTLS and by implicit TLS."""
        certificate = self_signed("mx.example").save(self.directory, "mx.pem")
        context = ServerContext(TLSSettings(certificate_file=certificate, key_file=certificate))
        context.reload()
        clock = Clock()
        factory = ListenerFactory(
            RecordingDelivery(),
            clock=clock,
            settings=SessionSettings(hostname="mx.example", extensions=(STARTTLS,)),
            tls=context,
            timeouts=Timeouts(handshake=30),
        )
        for implicit in (False, True):
            made = ImplicitTLSFactory(factory) if implicit else factory
            port = self.reactor.listenTCP(0, made, interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            client = await self.dial(port.getHost().port)
            if implicit:
                client.transport.write(b"\x16\x03\x01\x02\x00\x01")
                await until(lambda: factory._connections)  # a greeting comes only later
            else:
                await client.reply()
                await client.say("STARTTLS")
            clock.advance(29)
            self.assertFalse(client.over)
            clock.advance(2)
            await client.lost
            self.assertEqual(client.unread, b"")
            (line,) = [line for line in self.log if "TLS handshake" in line]
            self.assertEqual(line, "TLS handshake with 127.0.0.1 failed: not completed within 30 s")
            self.log.clear()
            await until(lambda: not factory._connections)


class ImplicitTLS(LoopbackTestCase):
    """RFC 8314 §3."""

    async def test_the_greeting_follows_the_handshake(self) -> None:
        agent = self.agent(listener(implicit_tls=True))
        client = await self.dial(self.port(agent), ClientTLS())
        self.assertEqual(await client.reply(), "220 mx.example ESMTP")
        (ehlo, again) = await client.say("EHLO client.example", "STARTTLS")
        # S4, RFC 3207 §4.2
        self.assertNotIn("STARTTLS", ehlo)
        self.assertEqual(again, "503 5.5.1 TLS is already active")
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertIn(" with ESMTPS id ", received(agent.messages[-1]))

    async def test_a_client_in_clear_gets_no_reply(self) -> None:
        agent = self.agent(listener(implicit_tls=True))
        client = await self.dial(self.port(agent))
        client.transport.write(b"EHLO client.example\r\n")
        await client.lost
        self.assertNotIn(b"220", client.unread)
        self.assertNotIn(b"250", client.unread)

    async def test_octets_with_the_end_of_the_handshake_came_before_the_greeting(self) -> None:
        agent = self.agent(listener(implicit_tls=True))
        client = await self.dial(self.port(agent), ClientTLS())
        client.transport.write(b"EHLO client.example\r\n")  # goes out with the client's Finished
        self.assertEqual((await client.reply())[:9], "554 5.5.0")
        self.assertEqual(await client.reply(), "CLOSED")

    async def test_requirements_and_facts_are_those_of_starttls(self) -> None:
        """S8, S12 under implicit TLS."""
        authority = Authority()
        agent = self.agent(
            listener(
                implicit_tls=True,
                client_certificates="require",
                client_certificate_authorities=authority.issued.save(self.directory, "ca.pem"),
            )
        )
        client = await self.dial(self.port(agent), ClientTLS())
        self.assertEqual((await client.reply())[:4], "220 ")
        self.assertEqual((await client.say("EHLO a"))[0][:9], "554 5.7.0")
        client = await self.dial(self.port(agent), ClientTLS(authority.issue("client.example")))
        await client.reply()
        await client.say("EHLO client.example")
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertIn("(client certificate verified,", received(agent.messages[-1]))

    async def test_too_many_connections_get_421_under_tls(self) -> None:
        agent = self.agent(listener(implicit_tls=True, max_connections=1))
        client = await self.dial(self.port(agent), ClientTLS())
        self.assertEqual((await client.reply())[:4], "220 ")
        client = await self.dial(self.port(agent), ClientTLS())
        self.assertEqual(await client.reply(), "421 4.7.0 Too many connections")
        self.assertEqual(await client.reply(), "CLOSED")

    async def test_without_a_certificate_the_connection_is_closed(self) -> None:
        context = ServerContext(TLSSettings(certificate_file="/none.pem", key_file="/none.pem"))
        factory = ListenerFactory(
            RecordingDelivery(),
            clock=Clock(),
            settings=SessionSettings(hostname="mx.example"),
            tls=context,
        )
        port = self.reactor.listenTCP(0, ImplicitTLSFactory(factory), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        client = await self.dial(port.getHost().port)
        await client.lost
        self.assertEqual(client.unread, b"")


class ServerNames(LoopbackTestCase):
    """Server Name Indication, RFC 6066 §3."""

    async def test_the_certificate_is_that_of_the_requested_name(self) -> None:
        certificates = {
            name: self_signed(name) for name in ("mx.example", "a.example", "*.b.example")
        }
        files = {
            name: each.save(self.directory, f"{number}.pem")
            for number, (name, each) in enumerate(certificates.items())
        }
        agent = self.agent(
            listener(
                sni=[
                    SNICertificate(
                        names=["A.example", "c.example"], certificate=files["a.example"]
                    ),
                    {"names": ["*.b.example"], "certificate": files["*.b.example"]},
                ],
                client_certificates="ask",
            ),
            tls_certificate=files["mx.example"],
        )
        for asked, shown in (
            (None, "mx.example"),
            ("a.example", "a.example"),
            ("A.EXAMPLE", "a.example"),
            ("c.example", "a.example"),
            ("x.a.example", "mx.example"),
            ("mx.b.example", "*.b.example"),
            ("MX.B.example", "*.b.example"),
            ("b.example", "mx.example"),
            ("deep.mx.b.example", "mx.example"),
            ("nobody.example", "mx.example"),
            ("\x01.b.example", "*.b.example"),
            ("a.example\r\n", "mx.example"),
            ("é.b.example", "*.b.example"),
            ("x" * 240 + ".b.example", "*.b.example"),
        ):
            for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                client = await self.session(agent, ClientTLS(server_name=asked).only(version))
                self.assertEqual(
                    client.server_certificate, certificates[shown].certificate, (asked, shown)
                )
        self.assertEqual(await client.mail("bob@mx.example"), SENT)

    async def test_client_certificates_verify_under_each_name(self) -> None:
        """The name selects another context, and the facts of the handshake must not get lost."""
        authority = Authority()
        known = authority.issue("client.example")
        agent = self.agent(
            listener(
                sni=[
                    {
                        "names": ["a.example"],
                        "certificate": self_signed("a.example").save(self.directory, "a.pem"),
                    }
                ],
                client_certificates="ask",
                client_certificate_authorities=authority.issued.save(self.directory, "ca.pem"),
            )
        )
        for name in ("a.example", "other.example"):
            for certificate, verdict in (
                (known, "verified"),
                (self_signed("client.example"), "not verified"),
            ):
                client = await self.session(agent, ClientTLS(certificate, name))
                self.assertEqual(await client.mail("bob@mx.example"), SENT)
                self.assertIn(f"(client certificate {verdict},", received(agent.messages[-1]), name)


class Reloading(LoopbackTestCase):
    def agent_of(self, *certificates: Issued) -> RecordingAgent:
        self.files = [
            each.save(self.directory, f"{number}.pem") for number, each in enumerate(certificates)
        ]
        return self.agent(
            listener(sni=[{"names": ["a.example"], "certificate": self.files[-1]}]),
            listener(implicit_tls=True),
            tls_certificate=self.files[0],
        )

    async def shown(self, agent: RecordingAgent, names: Iterable[str | None]) -> list[object]:
        return [
            (await self.session(agent, ClientTLS(server_name=name))).server_certificate
            for name in names
        ]

    async def test_existing_sessions_go_on_and_new_ones_have_the_new_certificate(self) -> None:
        old, new, named = (self_signed(name) for name in ("mx.example", "new.example", "a.example"))
        agent = self.agent_of(old, named)
        before = await self.session(agent, ClientTLS())
        await before.say("MAIL FROM:<a@a.example>", "RCPT TO:<bob@mx.example>")
        waiting = await self.session(agent)
        new.save(self.directory, "0.pem")
        self.assertEqual(await self.shown(agent, [None]), [old.certificate])
        (change,) = await agent.reload()
        self.assertTrue(change.startswith(f"{self.files[0]}: CN=new.example, valid until "), change)
        self.assertIn(f", SHA-256 {new.fingerprint}; before: CN=mx.example, ", change)
        self.assertEqual(
            await self.shown(agent, [None, "a.example"]), [new.certificate, named.certificate]
        )
        implicit = await self.dial(self.port(agent, 1), ClientTLS())
        self.assertEqual(implicit.server_certificate, new.certificate)
        # One before its handshake, and one after it.
        await waiting.start_tls()
        self.assertEqual(waiting.server_certificate, new.certificate)
        self.assertEqual(
            [reply[:3] for reply in await before.say("DATA", "Hi\r\n.")], ["354", "250"]
        )
        self.assertEqual(await before.mail("bob@mx.example"), SENT)
        self.assertEqual(before.server_certificate, old.certificate)
        self.assertEqual(await agent.reload(), [])

    async def test_one_bad_file_refuses_the_whole_reload(self) -> None:
        old, named = self_signed("mx.example"), self_signed("a.example")
        agent = self.agent_of(old, named)
        self_signed("new.example").save(self.directory, "0.pem")
        with open(self.files[1], "wb") as spoilt:
            spoilt.write(old.key_pem + named.certificate.public_bytes(Encoding.PEM))
        with self.assertRaises(CannotReload) as raised:
            await agent.reload()
        self.assertIn(f"{self.files[1]}: the key does not match", str(raised.exception))
        self.assertEqual(
            await self.shown(agent, [None, "a.example"]), [old.certificate, named.certificate]
        )
        os.unlink(self.files[0])
        with self.assertRaises(CannotReload):
            await agent.reload()
        self.assertEqual(await self.shown(agent, [None]), [old.certificate])

    async def test_authorities_are_read_again(self) -> None:
        first, second = Authority("One"), Authority("Two")
        path = first.issued.save(self.directory, "ca.pem")
        agent = self.agent(
            listener(client_certificates="require", client_certificate_authorities=path)
        )
        known = second.issue("client.example")
        client = await self.session(agent, ClientTLS(known))
        self.assertEqual((await client.mail("bob@mx.example")), ["554"])
        second.issued.save(self.directory, "ca.pem")
        self.assertEqual(
            await agent.reload(),
            [f"{path}: authorities for client certificates: 1 (CN=Two); before: 1 (CN=One)"],
        )
        client = await self.session(agent, ClientTLS(known))
        self.assertEqual((await client.mail("bob@mx.example")), SENT)

    async def test_a_reload_before_the_start_does_nothing(self) -> None:
        from twisted_mta import Config, MailTransferAgent

        agent = MailTransferAgent(Config(listeners=[listener()]), reactor=self.reactor)
        self.assertEqual(await agent.reload(), [])

    async def test_a_handshake_during_a_reload_uses_the_old_certificate(self) -> None:
        """OpenSSL calls back into old contexts, to which nothing else refers any more."""
        import gc

        old, named = self_signed("mx.example"), self_signed("a.example")
        path = named.save(self.directory, "a.pem")
        default = old.save(self.directory, "mx.pem")
        context = ServerContext(
            TLSSettings(
                certificate_file=default,
                key_file=default,
                client_certificates="ask",
                sni=(SNICertificate(names=["a.example"], certificate=path),),
            )
        )
        context.reload()
        server = context.serverConnectionForTLS(None)  # type: ignore[arg-type]
        server.set_accept_state()
        client = ClientTLS(self_signed("c"), "a.example").clientConnectionForTLS(
            None  # type: ignore[arg-type]
        )
        client.set_connect_state()
        for one, other in ((client, server), (server, client)):
            self.assertRaises(SSL.WantReadError, one.do_handshake)
            other.bio_write(one.bio_read(65536))
        context.reload()
        gc.collect()
        client.do_handshake()
        server.bio_write(client.bio_read(65536))
        server.do_handshake()
        self.assertEqual(context.facts(server).peer_subject, "CN=c")
        self.assertEqual(context.facts(server).peer_problem, "depth zero self signed cert")
