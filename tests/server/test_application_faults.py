"""What an application plugs in may fail: the log has it, the client 4yz, the session lives."""

from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import succeed
from twisted.mail import smtp
from zope.interface import implementer

from tests.server.dialogue import DialogueTestCase
from tests.server.test_esmtp_factory import LOGIN, portal_of
from twisted_mta import ESMTPFactory, Reply
from twisted_mta.auth.withheld import Withheld
from twisted_mta.smtp.command import CommandError
from twisted_mta.smtp.extension import Extension
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.delivery import RecordingDelivery


class Broken(Exception):
    pass


def broken(*args: Any) -> Any:
    raise Broken


class Unannounced(Extension):
    def announcement(self, session: Any) -> Any:
        return broken() if session.helo == "raises" else 7


class FaultsTestCase(DialogueTestCase):
    def make(self, delivery: Any = None, **arguments: Any) -> SMTPClientEnd:
        self.factory = ESMTPFactory(
            self.delivery if delivery is None else delivery, clock=self.network, **arguments
        )
        client = self.connect()
        self.say(client, b"EHLO client.example\r\n")
        self.hear(client)
        return client

    def replies(self, client: SMTPClientEnd, *lines: bytes) -> list[str]:
        heard = []
        for line in lines:
            self.say(client, line + b"\r\n")
            heard.append(self.hear(client)[-1])
        return heard

    def assert_logged(self, *errors: type[Exception]) -> None:
        self.assertEqual([each.type for each in self.flushLoggedErrors()], list(errors))


class Extensions(FaultsTestCase):
    def test_a_verb_that_fails_is_451_and_one_that_refuses_is_as_it_says(self) -> None:
        def refuse(session: Any, argument: str) -> Any:
            raise CommandError(Reply(501, "5.5.4", "no"))

        commands = {"XBROKEN": broken, "XNONE": lambda session, argument: None, "XNO": refuse}
        client = self.make(extensions=[Extension("XBROKEN", commands=commands)])
        self.assertEqual(
            self.replies(client, b"XBROKEN", b"XNONE", b"XNO", b"NOOP"),
            ["451 4.3.0", "451 4.3.0", "501 5.5.4", "250 2.0.0"],
        )
        self.assert_logged(Broken, TypeError)

    def test_a_parameter_that_cannot_be_read_is_451(self) -> None:
        extension = Extension("X", mail={"XM": broken}, rcpt={"XR": broken})
        client = self.make(extensions=[extension])
        self.assertEqual(
            self.replies(
                client,
                b"MAIL FROM:<a@b.example> XM=1",
                b"MAIL FROM:<a@b.example>",
                b"RCPT TO:<c@d.example> XR",
                b"RCPT TO:<c@d.example>",
            ),
            ["451 4.3.0", "250 2.1.0", "451 4.3.0", "250 2.1.5"],
        )
        self.assert_logged(Broken, Broken)

    def test_an_extension_that_cannot_announce_itself_is_left_out(self) -> None:
        client = self.make(extensions=[Unannounced("XU"), Extension("XOTHER")])
        self.assert_logged(TypeError)
        self.say(client, b"EHLO raises\r\n")
        self.assertIn(b"250 XOTHER\r\n", client.unread)
        self.assertNotIn(b"XU", client.unread)
        self.assert_logged(Broken)

    def test_what_is_no_extension_is_refused_at_once(self) -> None:
        for wrong in (Extension("XA"), ["XA"], 7):
            with self.assertRaisesRegex(TypeError, "extensions: found .*, expected a sequence"):
                ESMTPFactory(extensions=wrong)  # type: ignore[arg-type]


class Answers(FaultsTestCase):
    def test_an_answer_of_another_kind_is_451_at_each_stage_at_once_and_late(self) -> None:
        for late in (False, True):
            for stage, commands in (
                ("mail", [b"MAIL FROM:<a@b.example>"]),
                ("rcpt", [b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>"]),
                ("open", [b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"]),
            ):
                for wrong in (True, "250 ok"):
                    with self.subTest(late=late, stage=stage, wrong=wrong):
                        answer: Any = succeed(wrong) if late else wrong
                        delivery = RecordingDelivery()
                        setattr(delivery, stage, lambda *args, answer=answer: answer)
                        client = self.make(delivery)
                        heard = self.replies(client, *commands, b"NOOP")
                        self.assertEqual(heard[-2:], ["451 4.3.0", "250 2.0.0"])
                        self.assert_logged(TypeError)

    def test_a_sink_that_has_any_attribute_is_not_waited_for(self) -> None:
        class Proxy:
            def __init__(self, sink: Any) -> None:
                self.sink = sink

            def __getattr__(self, name: str) -> Any:
                return getattr(self.sink, name, lambda *args: None)

        delivery = RecordingDelivery()
        client = self.make(delivery)
        opened = delivery.open
        delivery.open = lambda session: Proxy(opened(session))  # type: ignore[method-assign,assignment]
        heard = self.replies(
            client, b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA", b"x\r\n."
        )
        self.assertEqual(heard[-1], "250 2.0.0")

    def test_an_answer_that_resembles_a_deferred_is_451(self) -> None:
        class Promise:
            def addCallbacks(self, callback: Any) -> None:
                """Take one function, where a Deferred takes two."""

        delivery = RecordingDelivery()
        delivery.mail = lambda *args: Promise()  # type: ignore[method-assign,assignment,return-value]
        client = self.make(delivery)
        heard = self.replies(client, b"MAIL FROM:<a@b.example>", b"NOOP")
        self.assertEqual(heard, ["451 4.3.0", "250 2.0.0"])
        self.assert_logged(TypeError)

    def test_an_answer_of_another_kind_to_the_content_is_451(self) -> None:
        class Sink:
            def __init__(self, answer: object) -> None:
                self.answer = answer

            def write(self, content: bytes) -> None:
                pass

            abort = write

            def finish(self) -> Any:
                return self.answer

        for wrong in (True, "Queued", [True], succeed(b"x")):
            delivery = RecordingDelivery()
            delivery.open = lambda session, wrong=wrong: Sink(wrong)  # type: ignore[method-assign,assignment,misc]
            client = self.make(delivery)
            heard = self.replies(
                client,
                b"MAIL FROM:<a@b.example>",
                b"RCPT TO:<c@d.example>",
                b"DATA",
                b"Subject: x\r\n\r\n.",
                b"NOOP",
            )
            self.assertEqual(heard[-2:], ["451 4.3.0", "250 2.0.0"])
            self.assert_logged(TypeError)

    def test_a_delivery_without_a_method_is_451(self) -> None:
        class OnlyOpens:
            def open(self, session: Any) -> Any:
                return None

        client = self.make(OnlyOpens())
        self.assertEqual(
            self.replies(client, b"MAIL FROM:<a@b.example>", b"NOOP"), ["451 4.3.0", "250 2.0.0"]
        )
        self.assert_logged(AttributeError)
        client.transport.loseConnection()
        self.network.advance(0)
        self.assert_logged(AttributeError)  # nor has it a method for the end of the session


class EndsOfSessions(FaultsTestCase):
    def test_a_delivery_and_a_logout_that_fail_at_the_end_keep_no_other_from_it(self) -> None:
        ended = []

        class Ending(RecordingDelivery):
            def ended(self, session: Any) -> None:
                ended.append(self)
                raise Broken

        delivery, user = Ending(), Ending()
        portal = portal_of(user)
        client = self.make(delivery, portal=portal, auth="any")
        self.assertEqual(self.replies(client, LOGIN.strip()), ["235 2.7.0"])
        client.transport.abortConnection()
        self.network.advance(0)
        self.assertEqual((ended, self.factory.connections_open), ([delivery, user], 0))
        self.assertEqual(portal.realm.logged_out, 1)
        self.assert_logged(Broken, Broken)

    def test_attributes_of_a_protocol_that_cannot_be_used_end_the_session_with_421(self) -> None:
        for name, value in {
            "delivery": object(),
            "host": b"\xff",
            "timeout": "soon",
            "ctx": "cert.pem",
            "challengers": {7: broken},
        }.items():

            class Mine(ESMTPFactory):
                def buildProtocol(self, addr: Any, name: str = name, value: Any = value) -> Any:
                    protocol = super().buildProtocol(addr)
                    setattr(protocol, name, value)
                    return protocol

            with self.subTest(name=name):
                self.factory = Mine(
                    self.delivery, portal=portal_of(self.delivery), clock=self.network
                )
                client = self.connect()
                self.assertEqual(self.hear(client), ["421 4.3.0"])
                self.network.advance(20)
                self.assertEqual(self.factory.connections_open, 0)
                self.assertEqual(len(self.flushLoggedErrors()), 1)


@implementer(IRealm)
class LogoutFails:
    def __init__(self, avatar: Any) -> None:
        self.avatar = avatar

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        return smtp.IMessageDelivery, self.avatar, broken


@implementer(IRealm)
class RealmFails:
    requestAvatar = staticmethod(broken)


@implementer(smtp.IMessageDeliveryFactory)
class MakesNoDelivery:
    def getMessageDelivery(self) -> Any:
        return None


class Realms(FaultsTestCase):
    def test_a_realm_that_fails_is_454_to_a_login_and_451_to_a_sender_without_one(self) -> None:
        checkers = [*portal_of(None).checkers.values()][:1]
        portal = Portal(RealmFails(), [*checkers, AllowAnonymousAccess()])
        client = self.make(portal, auth="any")
        self.assertEqual(
            self.replies(client, LOGIN.strip(), b"MAIL FROM:<a@b.example>", b"NOOP"),
            ["454 4.7.0", "451 4.3.0", "250 2.0.0"],
        )
        self.assert_logged(Withheld, Broken)

    def test_a_factory_of_deliveries_that_makes_none_is_451(self) -> None:
        client = self.make(MakesNoDelivery())
        self.assertEqual(
            self.replies(client, b"MAIL FROM:<a@b.example>", b"NOOP"), ["451 4.3.0", "250 2.0.0"]
        )
        self.assert_logged(AttributeError)


class Logouts(FaultsTestCase):
    def test_a_logout_that_fails_is_logged_and_the_session_goes_on(self) -> None:
        portal = Portal(LogoutFails(object()), [*portal_of(None).checkers.values()][:1])
        client = self.make(portal=portal, auth="any")
        self.assertEqual(self.replies(client, LOGIN.strip(), b"NOOP"), ["454 4.7.0", "250 2.0.0"])
        self.assert_logged(Broken)
