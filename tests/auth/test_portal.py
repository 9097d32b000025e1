"""AUTH on the portal of an application, as ``twisted.mail`` has it."""

import json
from base64 import b64decode, b64encode
from typing import Any

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import CramMD5Credentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.logger import formatEvent, globalLogPublisher
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from twisted.mail.interfaces import IMessageDelivery
from twisted.mail.smtp import SMTPBadSender
from zope.interface import implementer

from tests.server.dialogue import DialogueTestCase
from twisted_mta import ESMTPFactory
from twisted_mta.auth.credentials import IBearerToken
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.testing.client import SMTPClientEnd

GOOD = b64encode(b"\0alice\0secret")
BAD = b64encode(b"\0alice\0sesame")


@implementer(IMessageDelivery)
class Own:
    """Takes mail from its own sender alone."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        if origin.local != self.name:
            raise SMTPBadSender(origin)
        return origin


@implementer(IRealm)
class Realm:
    def __init__(self) -> None:
        self.out: list[bytes] = []

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        name = avatarId or b"anybody"
        return IMessageDelivery, Own(name), lambda: self.out.append(name)


class PortalTestCase(DialogueTestCase):
    def offer(self, *, anonymous: bool = False, **settings: Any) -> None:
        self.realm = Realm()
        portal = Portal(self.realm)
        portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret"))
        if anonymous:
            portal.registerChecker(AllowAnonymousAccess())
        self.use(portal, **settings)

    def use(self, portal: Portal, **settings: Any) -> None:
        self.factory = ESMTPFactory(
            portal,
            clock=self.network,
            timeouts=Timeouts(error_delay=0),
            **{"auth": "any", **settings},
        )

    def begin(self) -> list[str]:
        self.client = self.connect()
        self.hear(self.client)
        return self.ask(b"EHLO client.example")

    def ask(self, line: bytes, seconds: float = 0.0) -> list[str]:
        self.say(self.client, line + b"\r\n")
        if seconds:
            self.network.advance(seconds)
        return self.hear(self.client)

    def hear(self, client: SMTPClientEnd) -> list[str]:
        """Return the lines that came since the last time, whole."""
        lines = bytes(client.unread).decode("ascii").splitlines()
        client.unread.clear()
        return lines

    def code(self, line: bytes, seconds: float = 0.0) -> str:
        return self.ask(line, seconds)[-1][:3]


class OnAPortal(PortalTestCase):
    def test_what_is_offered_follows_from_the_checkers(self) -> None:
        self.offer()
        self.assertIn("250 AUTH SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN", self.begin())

    def test_the_avatar_decides_on_mail(self) -> None:
        self.offer()
        self.begin()
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "235")
        self.assertEqual(self.code(b"MAIL FROM:<bob@example.org>"), "550")
        self.assertEqual(self.code(b"MAIL FROM:<alice@example.org>"), "250")
        self.assertEqual(self.realm.out, [])
        self.client.abort()
        self.network.settle()
        self.assertEqual(self.realm.out, [b"alice"])

    def test_who_does_not_authenticate_is_refused_or_anonymous(self) -> None:
        self.offer()
        self.begin()
        self.assertEqual(self.code(b"MAIL FROM:<alice@example.org>"), "550")
        self.offer(anonymous=True)
        self.begin()
        self.assertEqual(self.code(b"MAIL FROM:<anybody@example.org>"), "250")
        self.assertEqual(self.code(b"RSET"), "250")
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "235")
        self.assertEqual(self.code(b"MAIL FROM:<anybody@example.org>"), "550")

    def test_in_clear_it_is_not_offered_unless_that_is_said(self) -> None:
        self.offer(auth="tls")
        self.assertNotIn("AUTH", " ".join(self.begin()))
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "538")
        self.offer(auth="off")
        self.begin()
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "503")

    def test_challengers_are_what_is_offered_where_they_are_given(self) -> None:
        self.offer()
        self.factory.challengers = {
            b"CRAM-MD5": lambda: CramMD5Credentials(b"mx.example"),
            b"LOGIN": LOGINCredentials,
            b"PLAIN": PLAINCredentials,
        }
        self.assertIn("250 AUTH CRAM-MD5 LOGIN PLAIN", self.begin())
        self.assertEqual(self.code(b"AUTH PLAIN " + BAD, 1), "535")
        self.assertEqual(self.code(b"AUTH LOGIN"), "334")
        self.assertEqual(self.code(b64encode(b"alice")), "334")
        self.assertEqual(self.code(b64encode(b"secret")), "235")
        self.assertEqual(self.code(b"MAIL FROM:<alice@example.org>"), "250")

    def test_each_further_failure_is_answered_later_and_the_fifth_is_the_last(self) -> None:
        self.offer()
        self.begin()
        for delay in (1, 2, 3, 4, 5):
            self.assertEqual(self.ask(b"AUTH PLAIN " + BAD, delay - 0.1), [])
            self.network.advance(0.2)
            said = self.hear(self.client)
            self.assertEqual(said[0], "535 5.7.8 Authentication credentials invalid")
        self.assertEqual(said[1], "421 4.7.0 Too many failed authentications")

    def test_an_account_that_failed_too_often_is_not_judged_for_ten_minutes(self) -> None:
        self.offer()
        for _ in range(20):
            self.begin()
            self.assertEqual(self.code(b"AUTH PLAIN " + BAD, 1), "535")
            self.client.abort()
        self.begin()
        self.assertEqual(
            self.ask(b"AUTH PLAIN " + GOOD),
            ["454 4.7.0 Temporary authentication failure, try again later"],
        )
        self.network.advance(570)
        self.begin()
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "454")
        self.network.advance(35)
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "235")


@implementer(ICredentialsChecker)
class Tokens:
    credentialInterfaces = (IBearerToken,)

    def requestAvatarId(self, credentials: Any) -> Any:
        if credentials.token == "broken":
            raise RuntimeError(f"cannot ask about {credentials.token}")
        if credentials.token != "abc.def" or credentials.username not in ("", "alice"):
            raise UnauthorizedLogin
        return b"alice"


class ByToken(PortalTestCase):
    """OAUTHBEARER (RFC 7628) and XOAUTH2."""

    def bearer(self, token: str, name: str = "alice") -> bytes:
        message = f"n,a={name},\1host=mx.example\1port=587\1auth=Bearer {token}\1\1"
        return b"AUTH OAUTHBEARER " + b64encode(message.encode())

    def xoauth2(self, token: str, name: str = "alice") -> bytes:
        message = f"user={name}\1auth=Bearer {token}\1\1"
        return b"AUTH XOAUTH2 " + b64encode(message.encode())

    def offer_tokens(self) -> None:
        self.realm = Realm()
        self.use(Portal(self.realm, [Tokens()]))

    def test_they_are_offered_where_a_checker_takes_tokens(self) -> None:
        self.offer_tokens()
        self.assertIn("250 AUTH OAUTHBEARER XOAUTH2", self.begin())

    def test_a_good_token_is_enough(self) -> None:
        self.offer_tokens()
        for line in (self.bearer("abc.def"), self.bearer("abc.def", ""), self.xoauth2("abc.def")):
            self.begin()
            self.assertEqual(self.code(line), "235")
            self.assertEqual(self.code(b"MAIL FROM:<alice@example.org>"), "250")

    def test_a_bad_one_is_told_why_before_it_is_refused(self) -> None:
        self.offer_tokens()
        self.begin()
        for line, answer, why in (
            (self.bearer("abd"), b"AQ==", {"status": "invalid_token"}),
            (self.xoauth2("abd"), b"", {"status": "401", "schemes": "bearer"}),
            (self.bearer("abc.def", "bob"), b"*", {"status": "invalid_token"}),
        ):
            (said,) = self.ask(line, 5)
            self.assertEqual(said[:4], "334 ")
            self.assertEqual(json.loads(b64decode(said[4:])), why)
            self.assertEqual(self.code(answer), "535")
        self.assertEqual(self.code(self.bearer("abc.def")), "235")

    def test_what_is_no_message_of_theirs_is_refused(self) -> None:
        self.offer_tokens()
        self.begin()
        for message in (
            b"",
            b"n,a=alice,\1\1",
            b"n,,\1auth=Basic x\1\1",
            b"p=x,,\1auth=Bearer x\1\1",
        ):
            line = b"AUTH OAUTHBEARER " + (b64encode(message) or b"=")
            self.assertEqual(self.code(line, 5), "535", message)

    def test_a_checker_that_breaks_is_no_refusal_and_its_words_are_not_logged(self) -> None:
        self.offer_tokens()
        self.begin()
        logged: list[str] = []
        observe = lambda event: logged.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.assertEqual(self.code(self.bearer("broken")), "454")
        self.assertIn("could not judge who a client is: RuntimeError at", "\n".join(logged))
        self.assertNotIn("broken", "\n".join(logged))
