"""The factory of applications: its arguments, and what comes over from twisted.mail."""

from base64 import b64encode
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.protocol import ServerFactory
from twisted.mail import smtp
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tests.logs import logged_lines
from tests.server.certificate import server_context
from tests.server.dialogue import DialogueTestCase
from twisted_mta import ESMTPFactory, LMTPFactory
from twisted_mta.mail.reply import Reply
from twisted_mta.smtp.extension import Extension
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.delivery import RecordingDelivery


@implementer(smtp.IMessageDelivery)
class NamesNoSender:
    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        pass

    def validateTo(self, user: Any) -> Any:
        raise AssertionError


@implementer(IRealm)
class Realm:
    def __init__(self, avatar: Any) -> None:
        self.avatar = avatar
        self.logged_out = 0

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        def logout() -> None:
            self.logged_out += 1

        return smtp.IMessageDelivery, self.avatar, logout


def portal_of(avatar: Any) -> Portal:
    return Portal(Realm(avatar), [InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")])


LOGIN = b"AUTH PLAIN " + b64encode(b"\0ann\0secret") + b"\r\n"


class FactoryTestCase(DialogueTestCase):
    def make(self, delivery: Any = None, **arguments: Any) -> ESMTPFactory:
        self.esmtp = ESMTPFactory(delivery or self.delivery, clock=self.network, **arguments)
        self.factory = self.esmtp
        return self.esmtp

    def greeting(self, client: SMTPClientEnd) -> str:
        self.network.advance(0)
        line = bytes(client.unread).decode("ascii").partition("\r\n")[0]
        client.unread.clear()
        return line

    def offered(self, client: SMTPClientEnd) -> str:
        client.unread.clear()
        self.say(client, b"EHLO client.example\r\n")
        offered = bytes(client.unread).decode("ascii")
        client.unread.clear()
        return offered


class Arguments(FactoryTestCase):
    def test_hostname_size_and_extensions_are_announced(self) -> None:
        said = Reply(250, "2.0.0", "Hi")
        hello = Extension("XHELLO", commands={"XHELLO": lambda session, text: said})
        self.make(hostname="mx.app.example", max_message_size=12345, extensions=[hello])
        client = self.connect()
        self.assertIn("mx.app.example", self.greeting(client))
        offered = self.offered(client)
        self.assertIn("250-SIZE 12345\r\n", offered)
        self.assertIn("XHELLO\r\n", offered)
        self.say(client, b"XHELLO\r\n")
        self.assertEqual(bytes(client.unread), b"250 2.0.0 Hi\r\n")
        client.unread.clear()
        self.say(client, b"MAIL FROM:<> SIZE=12346\r\n")
        self.assertEqual(self.hear(client), ["552 5.3.4"])

    def test_an_idle_client_is_sent_away_after_the_idle_timeout(self) -> None:
        self.make(idle_timeout=20)
        client = self.connect()
        self.greeting(client)
        self.network.advance(19)
        self.assertEqual(self.hear(client), [])
        self.network.advance(2)
        self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_a_portal_judges_logins_and_the_delivery_the_others(self) -> None:
        users = RecordingDelivery()
        self.make(portal=portal_of(users), auth="any")
        for login, delivery in ((b"", self.delivery), (LOGIN, users)):
            client = self.connect()
            self.say(client, b"EHLO x\r\n")
            self.say(client, login)
            self.say(client, b"MAIL FROM:<a@b.example>\r\n")
            self.assertEqual(self.hear(client)[-1], "250 2.1.0")
            self.assertEqual(delivery.calls, ["mail"])

    def test_lmtp_has_the_same_arguments(self) -> None:
        self.factory = LMTPFactory(self.delivery, hostname="lmtp.example", clock=self.network)
        client = self.connect()
        self.assertIn("lmtp.example", self.greeting(client))
        self.say(client, b"LHLO x\r\n")
        self.assertIn(b"250-lmtp.example", client.unread)

    def test_wrong_arguments_are_errors_at_once(self) -> None:
        wrong: list[tuple[type[Exception], dict[str, Any]]] = [
            (TypeError, {"portal": object()}),
            (TypeError, {"hostname": b"mx.example"}),
            (TypeError, {"tls": "cert.pem"}),
            (ValueError, {"idle_timeout": 0}),
            (ValueError, {"decision_timeout": -1}),
            (ValueError, {"max_message_size": 0}),
            (ValueError, {"auth": True}),
        ]
        for error, arguments in wrong:
            with self.subTest(**arguments), self.assertRaisesRegex(error, "found .*, expected "):
                self.make(**arguments)

    def test_a_drain_ends_idle_sessions_and_fires_when_the_last_is_gone(self) -> None:
        client = self.make() and self.connect()
        self.greeting(client)
        drained = self.factory.drain()
        self.network.advance(0)
        self.assertEqual(self.hear(client), ["421 4.3.2"])
        client.transport.loseConnection()
        self.network.advance(0)
        self.successResultOf(drained)


class ImplicitTLS(FactoryTestCase):
    def mail(self, client: SMTPClientEnd) -> None:
        self.network.advance(0)
        self.assertEqual(bytes(client.unread), b"")  # nothing comes before the handshake
        self.start_tls(client)
        self.assertEqual(self.greeting(client)[:4], "220 ")
        self.assertNotIn("STARTTLS", self.offered(client))
        self.say(client, b"MAIL FROM:<a@b.example>\r\n")
        self.assertEqual(self.hear(client), ["250 2.1.0"])
        self.assertEqual(self.session(client).tls.version, "TLSv1.3")

    def session(self, client: SMTPClientEnd) -> Any:
        (protocol,) = self.factory._connections
        return protocol.session

    def endpoint(self, factory: ServerFactory) -> TLSMemoryBIOFactory:
        """Return what listenSSL, and so SSL4ServerEndpoint, makes of a factory."""
        return TLSMemoryBIOFactory(server_context().creator, False, factory, self.network)

    def test_a_plain_endpoint_begins_with_a_handshake(self) -> None:
        self.make(tls=server_context(), implicit_tls=True)
        self.mail(self.connect())

    def test_an_endpoint_with_tls_works_with_tls_and_without(self) -> None:
        for arguments in (
            {"implicit_tls": True},
            {"implicit_tls": True, "tls": server_context()},
            {"tls": server_context()},
            {},
        ):
            with self.subTest(**arguments):
                self.make(**arguments)
                self.mail(self.connect(wrap=self.endpoint))

    def test_logins_are_offered_under_the_tls_of_the_endpoint(self) -> None:
        self.make(portal=portal_of(self.delivery))
        client = self.connect(wrap=self.endpoint)
        self.start_tls(client)
        self.assertIn(" AUTH SCRAM-SHA-256-PLUS", self.offered(client))

    def test_implicit_tls_without_any_tls_is_refused_and_the_log_says_what_to_do(self) -> None:
        lines = logged_lines(self, "implicit TLS: found a plain endpoint and no tls, expected")
        self.make(implicit_tls=True)
        client = self.connect()
        self.assertEqual(self.hear(client), ["421 4.7.0"])
        self.assertEqual(len(lines), 1)


class ComingFromTwistedMail(FactoryTestCase):
    def test_a_protocol_of_ones_own_is_an_error(self) -> None:
        class MyESMTP(smtp.ESMTP):
            pass

        factory = self.make()
        with self.assertRaisesRegex(TypeError, r"protocol: found .*MyESMTP.*, expected no proto"):
            factory.protocol = MyESMTP
        for name, value in {"protocol": MyESMTP, "domain": b"mx", "timeout": 5}.items():
            with self.subTest(name=name), self.assertRaisesRegex(TypeError, f"{name}: found"):
                type("Mine", (ESMTPFactory,), {name: value})

    def test_what_differs_is_as_the_page_says(self) -> None:
        """docs/from-twisted-mail.rst."""
        self.make()
        for octets, reply in {
            b"MAIL FROM:<a@b.example>\r\n": "503 5.5.1",
            b"EHLO x\r\nMAIL FROM:a@b.example\r\n": "501 5.1.7",
            b"EHLO x\r\nMAIL FROM:<a@b.example> XX=1\r\n": "555 5.5.4",
        }.items():
            with self.subTest(octets=octets):
                client = self.connect()
                for line in octets.splitlines(keepends=True):
                    self.hear(client)
                    self.say(client, line)
                self.assertEqual(self.hear(client)[-1], reply)
        client = self.connect()
        self.say(client, b"EHLO x\r\n")
        self.say(client, b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n")
        self.assertEqual(self.hear(client)[-1], "554 5.5.0")
        client = self.connect()
        for _ in range(40):
            self.say(client, b"NONSENSE\r\n")
            self.network.advance(1)
        replies = self.hear(client)
        self.assertEqual(
            (len([each for each in replies if each[:3] == "500"]), replies[-1]), (20, "421 4.7.0")
        )
        for _ in range(60):
            client = self.connect()
        self.assertEqual(self.hear(client), ["421 4.7.0"])

    def test_domain_and_timeout_of_the_factory_are_honored(self) -> None:
        factory = self.make()
        factory.domain, factory.timeout = b"mx.old.example", 20
        client = self.connect()
        self.assertIn("mx.old.example", self.greeting(client))
        self.network.advance(21)
        self.assertEqual(self.hear(client), ["421 4.4.2"])
        with self.assertRaisesRegex(ValueError, "timeout: found None"):
            factory.timeout = None  # type: ignore[assignment]

    def test_host_timeout_and_ctx_of_the_protocol_are_honored(self) -> None:
        class Mine(ESMTPFactory):
            def buildProtocol(self, addr: Any) -> Any:
                protocol: Any = super().buildProtocol(addr)
                protocol.host, protocol.timeout = b"mx.own.example", 20
                protocol.ctx = server_context()
                return protocol

        self.factory = Mine(self.delivery, clock=self.network)
        client = self.connect()
        self.assertIn("mx.own.example", self.greeting(client))
        self.assertIn("STARTTLS", self.offered(client))
        self.say(client, b"STARTTLS\r\n")
        self.hear(client)
        self.start_tls(client)
        self.assertIn("250-mx.own.example", self.offered(client))
        self.network.advance(21)
        self.assertEqual(self.hear(client), ["421 4.4.2"])

    def test_a_portal_of_a_subclass_and_as_first_argument_judges_logins(self) -> None:
        class Mine(ESMTPFactory):
            portal = portal_of(self.delivery)

        for factory in (
            Mine(clock=self.network, auth="any"),
            ESMTPFactory(portal_of(self.delivery), clock=self.network, auth="any"),
        ):
            self.factory = factory
            client = self.connect()
            self.say(client, b"EHLO x\r\n")
            self.say(client, LOGIN)
            self.assertEqual(self.hear(client)[-1], "235 2.7.0")

    def test_an_avatar_that_is_no_delivery_is_logged_out_and_the_log_says_so(self) -> None:
        lines = logged_lines(self, "expected an object that provides IMessageDelivery or")
        portal = portal_of(object())
        self.make(portal=portal, auth="any")
        client = self.connect()
        self.say(client, b"EHLO x\r\n")
        self.say(client, LOGIN)
        self.assertEqual(self.hear(client)[-1], "454 4.7.0")
        self.assertEqual((len(lines), portal.realm.logged_out), (1, 1))
        self.say(client, b"NOOP\r\n")
        self.assertEqual(self.hear(client), ["250 2.0.0"])

    def test_a_sender_that_is_not_returned_is_not_accepted_and_the_log_says_why(self) -> None:
        lines = logged_lines(self, "returned None, expected the Address")
        self.make(NamesNoSender())
        client = self.connect()
        self.say(client, b"EHLO x\r\n")
        self.say(client, b"MAIL FROM:<a@b.example>\r\n")
        self.assertEqual(self.hear(client)[-1], "451 4.3.0")
        self.assertEqual(len(lines), 1)
