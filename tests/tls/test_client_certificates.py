"""Client certificates: requested, recorded, required, and permitted to relay (RFC 3207 §4)."""

from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from tests.server.authority import Authority, Issued, costly_key, self_signed, subordinates
from tests.server.loopback import (
    Client,
    ClientTLS,
    LoopbackTestCase,
    RecordingAgent,
    listener,
    received,
)
from twisted_mta.config import Listener

AUTHORITY = Authority()
KNOWN = AUTHORITY.issue("client.example")
SENT = ["250", "250", "354", "250"]


class CertificatesTestCase(LoopbackTestCase):
    def asking(self, **settings: Any) -> Listener:
        """Return a listener that requests certificates of our authority."""
        authorities = AUTHORITY.issued.save(self.directory, "authorities.pem")
        return listener(
            **{
                "client_certificates": "ask",
                "client_certificate_authorities": authorities,
                **settings,
            }
        )

    async def sent(self, agent: RecordingAgent, tls: ClientTLS | None) -> str:
        """Send a message to the MTA; return its Received field."""
        client = await self.session(agent, tls)
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        return received(agent.messages[-1])

    def accepted(self) -> str:
        return [line for line in self.log if " accepted: from=" in line][-1]


class Recorded(CertificatesTestCase):
    async def test_s12_any_certificate_or_none_suffices_for_local_delivery(self) -> None:
        """RFC 3207 §4.1: its names, and whether it verified, are in Received and in the log."""
        agent = self.agent(self.asking())
        stranger = Authority("Other CA").issue("client.example")
        weak = AUTHORITY.issue(
            "client.example", key=rsa.generate_private_key(public_exponent=65537, key_size=1024)
        )
        for certificate, issuer, verdict, problem in (
            (KNOWN, "Example CA", "verified", ""),
            (self_signed("client.example"), "client.example", "not verified", "self signed"),
            (stranger, "Other CA", "not verified", "unable to get issuer cert"),
            (
                AUTHORITY.issue("client.example", days=(-9, -2)),
                "Example CA",
                "not verified",
                "cert has expired",
            ),
            (
                AUTHORITY.issue("client.example", days=(2, 9)),
                "Example CA",
                "not verified",
                "cert not yet valid",
            ),
            (
                AUTHORITY.issue("client.example", for_clients=False),
                "Example CA",
                "not verified",
                "invalid purpose",
            ),
            (weak, "Example CA", "not verified", "ee key too small"),
        ):
            for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                tls = ClientTLS().only(version)
                tls.context.set_cipher_list(b"DEFAULT@SECLEVEL=0")
                field = await self.sent(agent, tls.show(certificate))
                self.assertIn(problem, self.accepted())
                self.assertIn(
                    f" (client certificate {verdict}, SHA-256 {certificate.fingerprint},"
                    f" subject CN=client.example, issuer CN={issuer}) by mx.example",
                    field,
                )
                self.assertIn(f"client certificate {verdict}", self.accepted())
                self.assertIn(problem, self.accepted())
                self.assertIn(
                    f", SHA-256 {certificate.fingerprint}, subject CN=client.example,"
                    f" issuer CN={issuer}",
                    self.accepted(),
                )
        field = await self.sent(agent, ClientTLS())
        self.assertNotIn("certificate", field)
        self.assertNotIn("certificate", self.accepted())

    async def test_s12_without_authorities_nothing_verifies_and_all_is_recorded(self) -> None:
        agent = self.agent(self.asking(client_certificate_authorities=None))
        field = await self.sent(agent, ClientTLS(KNOWN))
        self.assertIn(f"(client certificate not verified, SHA-256 {KNOWN.fingerprint},", field)

    async def test_s12_a_client_that_is_not_asked_sends_no_certificate(self) -> None:
        agent = self.agent()
        field = await self.sent(agent, ClientTLS(KNOWN))
        self.assertNotIn("certificate", field)

    async def test_an_intermediate_certificate_of_the_client_is_used(self) -> None:
        between = Authority("Between")
        issued = AUTHORITY.issue("x")  # a certificate that may not sign
        agent = self.agent(self.asking())
        for middle, verdict in (
            (AUTHORITY.subordinate(between), "verified"),
            (issued.certificate, "not verified"),
        ):
            tls = ClientTLS(between.issue("client.example"))
            tls.context.add_extra_chain_cert(middle)
            self.assertIn(f"certificate {verdict},", await self.sent(agent, tls))

    async def test_a_chain_is_verified_up_to_ten_certificates(self) -> None:
        agent = self.agent(self.asking())
        for count, verdict in ((9, "verified"), (11, "not verified (cert chain too long")):
            chain = subordinates(AUTHORITY, count)
            tls = ClientTLS(chain[-1][0].issue("client.example"))
            for _, middle in reversed(chain):
                tls.context.add_extra_chain_cert(middle)
            await self.sent(agent, tls)
            self.assertIn(f"certificate {verdict}", self.accepted())

    async def test_a_key_that_takes_too_long_ends_the_handshake(self) -> None:
        """A chain of such keys would hold the reactor for a second."""
        agent = self.agent(self.asking())
        issued = AUTHORITY.issue("client.example", key=costly_key())
        tls = ClientTLS(issued).only(SSL.TLS1_2_VERSION)
        with self.assertRaises((AssertionError, SSL.Error, OSError)):
            await self.session(agent, tls)
        self.assertEqual(agent.messages, [])
        self.assertIn("its chain has a key with an exponent of 20", "\n".join(self.log))

    async def test_a_session_is_not_resumed_where_certificates_are_requested(self) -> None:
        """A resumed session verifies nothing: each connection sends the certificate."""
        agent = self.agent(self.asking())
        tls = ClientTLS(KNOWN).only(SSL.TLS1_2_VERSION)
        first = await self.session(agent, tls)
        session = first.transport.getHandle().get_session()
        again = Resuming(tls, session)
        second = await self.session(agent, again)
        self.assertEqual(await second.mail("bob@mx.example"), SENT)
        self.assertIn("(client certificate verified,", received(agent.messages[-1]))
        keys = [each.transport.getHandle().master_key() for each in (first, second)]
        self.assertNotEqual(*keys)

    async def test_hostile_names_are_escaped_in_received_and_in_the_log(self) -> None:
        agent = self.agent(self.asking())
        for hostile in (
            "a\r\nBcc: victim@b.example",
            "a\r\n\r\nbody",
            "a\0b",
            "é\udcff".encode("utf-8", "replace").decode() + "\x85\x9b\x1b[31m\u202e",
            ")) by evil.example with ESMTPSA id 1 ((",
            "((((",
            "a\\",
            "a), verified, (b",
            "x" * 2000,
            "( " * 1000,
            "{tls} {0} %s",
        ):
            for certificate in (self_signed(hostile), Authority(hostile).issue(hostile)):
                await self.sent(agent, ClientTLS(certificate))
                raw = agent.messages[-1].trace
                self.assertTrue(raw.isascii(), hostile)
                for line in raw.removesuffix(b"\r\n").split(b"\r\n"):
                    self.assertLess(len(line), 998)
                    self.assertTrue(line.replace(b"\t", b" ").decode().isprintable(), raw)
                received = raw[raw.index(b"\r\nReceived: ") + 2 :]
                self.assertEqual(received.count(b"\r\n"), received.count(b"\r\n\t") + 1, raw)
                self.assertEqual(nesting(raw.decode()), [], raw)
                unfolded = raw.replace(b"\r\n\t", b" ")
                self.assertEqual(unfolded.count(b" (client certificate not verified,"), 1, raw)
                line = self.accepted()
                self.assertTrue(line.isascii() and line.isprintable(), line)
                self.assertLess(len(line), 1000)
                self.assertIn("client certificate not verified (", line)


class Resuming(ClientTLS):
    """Offers an earlier session for resumption."""

    def __init__(self, like: ClientTLS, session: SSL.Session) -> None:
        super().__init__()
        self.context, self._session = like.context, session

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = super().clientConnectionForTLS(tlsProtocol)
        connection.set_session(self._session)
        return connection


def nesting(field: str) -> list[str]:
    """Return the mistakes in the comments of a field: a nested one, or one that is not closed."""
    wrong, depth, escaped = [], 0, False
    for character in field:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character in "()":
            depth += 1 if character == "(" else -1
            if depth not in (0, 1):
                wrong.append(character)
    return wrong if depth == 0 and not escaped else [*wrong, "open"]


class Required(CertificatesTestCase):
    def agent(self, *listeners: Listener, **settings: Any) -> RecordingAgent:
        """Start an MTA without a delay before refusals."""
        return super().agent(*(evolve(each, error_delay=0) for each in listeners), **settings)

    async def refused(self, client: Client) -> None:
        for line in ("EHLO a", "MAIL FROM:<a@a.example>", "NOOP", "STARTTLS", "RSET", "WHAT"):
            (reply,) = await client.say(line)
            self.assertEqual(reply, "554 5.7.0 Command refused due to lack of security", line)
        self.assertEqual(await client.say("QUIT"), ["221 2.0.0 Bye"])

    async def refusing(self, agent: RecordingAgent, tls: ClientTLS) -> None:
        client = await self.session(agent)
        await client.start_tls(tls)
        await self.refused(client)

    async def test_s8_a_verified_client_certificate_may_be_required(self) -> None:
        """RFC 3207 §4.1: the handshake completes; every command but QUIT gets 554."""
        agent = self.agent(self.asking(client_certificates="require"))
        await self.refusing(agent, ClientTLS())
        await self.refusing(agent, ClientTLS(self_signed("client.example")))
        await self.refusing(agent, ClientTLS(AUTHORITY.issue("client.example", days=(-9, -2))))
        client = await self.session(agent, ClientTLS(KNOWN))
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        refusals = [line for line in self.log if "does not suffice" in line]
        self.assertEqual(len(refusals), 3)
        self.assertIn("the TLS of 127.0.0.1 does not suffice here: TLSv1.3 ", refusals[0])
        self.assertIn("not verified (cert has expired)", refusals[2])

    async def test_s8_a_minimum_version_may_be_required(self) -> None:
        """RFC 3207 §4.1, minimum_tls."""
        agent = self.agent(listener(minimum_tls="1.3"))
        await self.refusing(agent, ClientTLS().only(SSL.TLS1_2_VERSION))
        client = await self.session(agent, ClientTLS())
        self.assertEqual(await client.mail("bob@mx.example"), SENT)

    async def test_s8_a_cipher_strength_may_be_required(self) -> None:
        """RFC 3207 §4.1, minimum_cipher_bits."""
        agent = self.agent(listener(minimum_cipher_bits=256))
        weak = ClientTLS().only(SSL.TLS1_2_VERSION)
        weak.context.set_cipher_list(b"ECDHE+AES128")
        await self.refusing(agent, weak)
        client = await self.session(agent, ClientTLS())
        self.assertEqual(await client.mail("bob@mx.example"), SENT)

    async def test_s8_requirements_apply_together(self) -> None:
        agent = self.agent(self.asking(client_certificates="require", minimum_tls="1.3"))
        await self.refusing(agent, ClientTLS(KNOWN).only(SSL.TLS1_2_VERSION))
        await self.refusing(agent, ClientTLS())
        client = await self.session(agent, ClientTLS(KNOWN))
        self.assertEqual(await client.mail("bob@mx.example"), SENT)

    async def test_s8_in_clear_nothing_is_required_unless_tls_is(self) -> None:
        """RFC 3207 §4: a public listener takes mail without TLS."""
        agent = self.agent(self.asking(client_certificates="require"))
        client = await self.session(agent)
        self.assertEqual(await client.mail("bob@mx.example"), SENT)

    async def test_s8_below_tls_1_2_the_handshake_itself_fails(self) -> None:
        agent = self.agent()
        client = await self.session(agent)
        tls = ClientTLS()
        tls.context.set_cipher_list(b"ALL@SECLEVEL=0")
        tls.context.set_max_proto_version(SSL.TLS1_1_VERSION)
        with self.assertRaises(SSL.Error):
            await client.start_tls(tls.only(SSL.TLS1_1_VERSION))
        await client.lost


class Relaying(CertificatesTestCase):
    async def relayed(self, agent: RecordingAgent, tls: ClientTLS | None) -> bool:
        client = await self.session(agent, tls)
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        codes = await client.mail("carl@elsewhere.example")
        self.assertIn(codes, (SENT, ["250", "550"]))
        return codes == SENT

    async def test_s11_a_client_may_relay_by_fingerprint(self) -> None:
        """RFC 3207 §4: the authority does not matter; the peer has proved that it has the key."""
        pinned = self_signed("relay.example")
        colons = ":".join(
            pinned.fingerprint[at : at + 2].upper() for at in range(0, len(pinned.fingerprint), 2)
        )
        agent = self.agent(
            self.asking(relay_certificates=[colons], client_certificate_authorities=None)
        )
        self.assertTrue(await self.relayed(agent, ClientTLS(pinned)))
        for other in (None, ClientTLS(), ClientTLS(self_signed("relay.example"))):
            self.assertFalse(await self.relayed(agent, other))

    async def test_s11_a_verified_client_may_relay_by_issuer_and_subject(self) -> None:
        agent = self.agent(
            self.asking(
                relay_certificates=[{"issuer": "CN=Example CA", "subject": "CN=client.example"}]
            )
        )
        self.assertTrue(await self.relayed(agent, ClientTLS(KNOWN)))
        same_names: list[Issued] = [
            Authority("Example CA").issue("client.example"),
            AUTHORITY.issue("client.example", days=(-9, -2)),
            AUTHORITY.issue("other.example"),
            self_signed("client.example"),
        ]
        for other in same_names:
            self.assertFalse(await self.relayed(agent, ClientTLS(other)))

    async def test_s11_only_the_listeners_that_permit_it_relay(self) -> None:
        agent = self.agent(self.asking(), self.asking(relay_certificates=[KNOWN.fingerprint]))
        self.assertFalse(await self.relayed(agent, ClientTLS(KNOWN)))

    async def test_s11_the_permission_ends_with_the_connection(self) -> None:
        agent = self.agent(self.asking(relay_certificates=[KNOWN.fingerprint]))
        self.assertTrue(await self.relayed(agent, ClientTLS(KNOWN)))
        self.assertFalse(await self.relayed(agent, None))
