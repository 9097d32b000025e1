"""XCLIENT on a whole listener: the named client is in decisions, trace field and log."""

from ipaddress import ip_network
from typing import Any

from OpenSSL import SSL

from tests.server.authority import Authority
from tests.server.loopback import Client, ClientTLS, LoopbackTestCase, listener, received

LOOPBACK = ip_network("127.0.0.0/8")
SENT = ["250", "250", "354", "250"]

AUTHORITY = Authority()
KNOWN = AUTHORITY.issue("proxy.example")


class XClientOnAListener(LoopbackTestCase):
    """A whole MTA that takes XCLIENT from the loopback interface."""

    async def begin(
        self, attributes: str, tls: ClientTLS | None = None, **settings: Any
    ) -> tuple[Any, Client]:
        relay_from = settings.pop("relay_from", [])
        agent = self.agent(
            listener(**{"xclient_from": [LOOPBACK], **settings}), relay_from=relay_from
        )
        client = await self.session(agent, tls)
        (reply,) = await client.say(f"XCLIENT {attributes}")
        self.assertEqual(reply, "220 mx.example ESMTP")
        await client.say("EHLO client.example")
        return agent, client

    async def test_the_trace_field_and_the_log_have_the_client(self) -> None:
        agent, client = await self.begin("ADDR=IPV6:2001:db8::9 NAME=name.example")
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertIn(
            "from client.example (name.example [IPv6:2001:db8::9])",
            received(agent.messages[-1]),
        )
        self.assertIn("127.0.0.1 speaks for 2001:db8::9", self.log)
        self.assertEqual(len([each for each in self.log if " client=2001:db8::9 helo=" in each]), 1)

    async def test_the_trace_field_has_the_greeting_that_the_proxy_received(self) -> None:
        agent = self.agent(listener(xclient_from=[LOOPBACK]))
        client = await self.connect(agent)
        await client.say("XCLIENT ADDR=203.0.113.9 HELO=old.example PROTO=SMTP")
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        self.assertRegex(received(agent.messages[-1]), r"from old\.example .* with SMTP ")

    async def test_relaying_is_decided_by_the_clients_address(self) -> None:
        _, client = await self.begin("ADDR=203.0.113.9", relay_from=[ip_network("203.0.113.0/24")])
        self.assertEqual(await client.mail("a@elsewhere.example"), SENT)
        await client.say("XCLIENT ADDR=203.0.114.9", "EHLO client.example")
        self.assertEqual((await client.mail("a@elsewhere.example"))[1], "550")

    async def test_the_client_does_not_have_the_rights_of_the_proxy(self) -> None:
        for attributes in ("ADDR=203.0.113.9", "ADDR=[UNAVAILABLE]"):
            agent, client = await self.begin(attributes, relay_from=[LOOPBACK])
            self.assertEqual((await client.mail("a@elsewhere.example"))[1], "550", attributes)
            await client.say("RSET")
            self.assertEqual(await client.mail("bob@mx.example"), SENT)
            await agent.stopService()

    async def test_the_certificate_of_the_proxy_does_not_let_the_client_relay(self) -> None:
        """RFC 3207 §4: relaying is granted to the owner of the certificate."""
        settings = {
            "client_certificates": "require",
            "client_certificate_authorities": AUTHORITY.issued.save(self.directory, "ca.pem"),
            "relay_certificates": [KNOWN.fingerprint],
        }
        agent = self.agent(listener(xclient_from=[LOOPBACK], **settings))
        client = await self.session(agent, ClientTLS(KNOWN).only(SSL.TLS1_3_VERSION))
        self.assertEqual(await client.mail("a@elsewhere.example"), SENT)
        await client.say("XCLIENT ADDR=203.0.113.9", "EHLO client.example")
        self.assertEqual((await client.mail("a@elsewhere.example"))[1], "550")
        await client.say("RSET")
        self.assertEqual(await client.mail("bob@mx.example"), SENT)
        trace = received(agent.messages[-1])
        self.assertRegex(trace, r"\[203\.0\.113\.9\]\) \(TLSv1\.3 .* with ESMTPS ")
        self.assertNotIn("certificate", trace)

    async def test_our_address_is_the_destination_that_the_proxy_names(self) -> None:
        _, client = await self.begin("ADDR=203.0.113.9 DESTADDR=198.51.100.25")
        await client.say("MAIL FROM:<>")
        (taken, refused) = await client.say(
            "RCPT TO:<bob@[198.51.100.25]>", "RCPT TO:<bob@[127.0.0.1]>"
        )
        self.assertEqual((taken[:3], refused[:3]), ("250", "550"))

    async def test_other_clients_are_not_offered_xclient_and_are_refused(self) -> None:
        agent = self.agent(listener(xclient_from=[ip_network("10.0.0.0/8")]))
        client = await self.connect(agent)
        (features, refused) = await client.say("EHLO a", "XCLIENT ADDR=10.0.0.1")
        self.assertNotIn("XCLIENT", features)
        self.assertEqual(refused, "550 5.7.0 Insufficient authorization")

    async def test_behind_a_balancer_the_clients_address_decides_on_xclient(self) -> None:
        agent = self.agent(
            listener(proxy_protocol_from=[LOOPBACK], xclient_from=[ip_network("203.0.113.9/32")])
        )
        for address, code in (("203.0.113.9", "220"), ("203.0.113.10", "550")):
            client = await self.dial(self.port(agent))
            client.transport.write(f"PROXY TCP4 {address} 198.51.100.25 4711 25\r\n".encode())
            await client.reply()
            (reply,) = await client.say("XCLIENT ADDR=192.0.2.1")
            self.assertEqual(reply[:3], code)

    # What nginx's mail proxy sends, to which the user has logged in.
    NGINX = "ADDR=203.0.113.9 LOGIN=ann NAME=[UNAVAILABLE]"

    async def test_a_user_who_logged_in_at_the_proxy_may_relay(self) -> None:
        agent, client = await self.begin(self.NGINX)
        self.assertEqual(await client.mail("bob@elsewhere.example"), ["550"])
        (reply,) = await client.say("MAIL FROM:ann@mx.example")  # no brackets, as from any user
        self.assertEqual(reply[:3], "250")
        codes = await client.say("RCPT TO:<bob@elsewhere.example>", "DATA", "Hi\r\n.")
        self.assertEqual([code[:3] for code in codes], ["250", "354", "250"])
        self.assertRegex(received(agent.messages[-1]), r"\[203\.0\.113\.9\]\) .* with ESMTPA ")
        self.assertIn("127.0.0.1 speaks for 203.0.113.9, user=ann", self.log)

    async def test_on_submission_it_stands_for_auth(self) -> None:
        agent = self.agent(listener(kind="submission", xclient_from=[LOOPBACK]))
        client = await self.session(agent)
        replies = await client.say(
            "MAIL FROM:<ann@mx.example>",
            f"XCLIENT {self.NGINX}",
            "EHLO client.example",
            "MAIL FROM:<ann@mx.example>",
            "RSET",
            "XCLIENT ADDR=203.0.113.9 LOGIN=[UNAVAILABLE]",
            "EHLO client.example",
            "MAIL FROM:<ann@mx.example>",
        )
        self.assertEqual(
            [reply[:3] for reply in replies],
            ["530", "220", "250", "250", "250", "220", "250", "530"],
        )

    async def test_other_clients_cannot_name_a_user(self) -> None:
        agent = self.agent(listener(xclient_from=[ip_network("10.0.0.0/8")]))
        client = await self.session(agent)
        replies = await client.say("XCLIENT LOGIN=ann", "MAIL FROM:<ann@mx.example>")
        self.assertEqual([reply[:3] for reply in replies], ["550", "250"])
        self.assertEqual((await client.say("RCPT TO:<bob@elsewhere.example>"))[0][:3], "550")
