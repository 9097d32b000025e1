"""AUTH with the portal of an application, as with ``twisted.mail``."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.cred.checkers import (
    AllowAnonymousAccess,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import CramMD5Credentials
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from twisted.mail.interfaces import IMessageDelivery
from twisted.mail.smtp import SMTPBadSender
from zope.interface import implementer

from tests.logs import logged_events
from tests.server.dialogue import DialogueTestCase
from twisted_mta import ESMTPFactory
from twisted_mta.auth.credentials import IBearerToken
from twisted_mta.auth.withheld import Withheld
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.smtp.extension.xclient import xclient
from twisted_mta.telemetry.log_lines import TextLines
from twisted_mta.testing.client import SMTPClientEnd

GOOD = b64encode(b"\0alice\0secret")
BAD = b64encode(b"\0alice\0sesame")


@implementer(IMessageDelivery)
class OwnSender:
    """A delivery that accepts one sender alone."""

    def __init__(self, name: bytes) -> None:
        self.name = name

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        if origin.local != self.name:
            raise SMTPBadSender(origin)
        return origin


@implementer(IRealm)
class Realm:
    def __init__(self) -> None:
        self.logged_out: list[bytes] = []

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        name = avatarId or b"anybody"
        return IMessageDelivery, OwnSender(name), lambda: self.logged_out.append(name)


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
            **{"auth": "any", **settings},
        )
        self.factory.timeouts = Timeouts(error_delay=0)

    def failures(self) -> Callable[[], list[str]]:
        """Return a function that returns the logged failures so far, as the log has them."""
        events = logged_events(self, lambda event: "log_failure" in event)
        return lambda: [TextLines(None)(each) for each in events]

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
        """Return the whole reply lines since the last call."""
        lines = bytes(client.unread).decode("ascii").splitlines()
        client.unread.clear()
        return lines

    def code(self, line: bytes, seconds: float = 0.0) -> str:
        return self.ask(line, seconds)[-1][:3]


class WithPasswords(PortalTestCase):
    def test_the_checkers_decide_which_mechanisms_are_offered(self) -> None:
        self.offer()
        self.assertIn("250 AUTH SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN", self.begin())

    def test_the_avatar_decides_on_mail_and_is_logged_out_at_the_end(self) -> None:
        self.offer()
        self.begin()
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "235")
        self.assertEqual(self.code(b"MAIL FROM:<bob@example.org>"), "550")
        self.assertEqual(self.code(b"MAIL FROM:<alice@example.org>"), "250")
        self.assertEqual(self.realm.logged_out, [])
        self.client.abort()
        self.network.settle()
        self.assertEqual(self.realm.logged_out, [b"alice"])

    def test_the_avatar_of_a_proxy_does_not_decide_on_mail_of_the_user_that_it_names(self) -> None:
        self.offer(anonymous=True)
        settings = self.factory.settings
        self.factory.settings = evolve(
            settings, extensions=(*settings.extensions, xclient(lambda peer: True))
        )
        self.begin()
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "235")
        self.assertEqual(self.code(b"MAIL FROM:<anybody@example.org>"), "550")
        self.assertEqual(self.code(b"XCLIENT LOGIN=bob"), "220")
        self.assertEqual(self.code(b"EHLO client.example"), "250")
        self.assertEqual(self.code(b"MAIL FROM:<anybody@example.org>"), "250")
        self.assertEqual(self.realm.logged_out, [])

    def test_mail_without_auth_is_refused_unless_the_portal_takes_anonymous_senders(self) -> None:
        self.offer()
        self.begin()
        self.assertEqual(self.code(b"MAIL FROM:<alice@example.org>"), "550")
        self.offer(anonymous=True)
        self.begin()
        self.assertEqual(self.code(b"MAIL FROM:<anybody@example.org>"), "250")
        self.assertEqual(self.code(b"RSET"), "250")
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "235")
        self.assertEqual(self.code(b"MAIL FROM:<anybody@example.org>"), "550")

    def test_auth_in_clear_is_offered_only_with_any(self) -> None:
        self.offer(auth="tls")
        self.assertNotIn("AUTH", " ".join(self.begin()))
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "538")
        self.offer(auth="off")
        self.begin()
        self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "503")

    def test_a_portal_whose_checkers_take_no_credentials_of_ours_offers_no_auth(self) -> None:
        for checkers in ([], [AllowAnonymousAccess()]):
            self.use(Portal(Realm(), checkers))
            self.assertNotIn("AUTH", " ".join(self.begin()))
            self.assertEqual(self.code(b"AUTH PLAIN " + GOOD), "503")

    def test_challengers_of_the_application_replace_our_mechanisms(self) -> None:
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

    def test_a_challenger_that_fails_is_454_and_the_session_lives(self) -> None:
        class Broken:
            def __init__(self, challenge: Any) -> None:
                self.challenge = challenge

            def getChallenge(self) -> Any:
                return self.challenge

            def setResponse(self, response: bytes) -> None:
                raise RuntimeError(response.decode())

        def refuse() -> Any:
            raise RuntimeError("no challenger")

        self.offer()
        self.factory.challengers = {
            "LOGIN": lambda: Broken(b"Password:"),
            "PLAIN": lambda: Broken("text"),
            "XNONE": refuse,
        }
        self.begin()
        logged = self.failures()
        self.assertEqual(self.code(b"AUTH LOGIN"), "334")
        self.assertEqual(self.code(b64encode(b"hunter2")), "454")
        for name in (b"PLAIN", b"XNONE"):
            self.assertEqual(self.code(b"AUTH " + name), "454")
        self.assertEqual(self.code(b"NOOP"), "250")
        self.assertIn("in setResponse", logged()[0])
        self.assertNotIn("hunter2", "".join(logged()))
        self.assertEqual(len(self.flushLoggedErrors(Withheld)), 3)

    def test_each_failure_delays_its_reply_by_a_second_more_and_the_fifth_ends_the_session(
        self,
    ) -> None:
        self.offer()
        self.begin()
        for delay in (1, 2, 3, 4, 5):
            self.assertEqual(self.ask(b"AUTH PLAIN " + BAD, delay - 0.1), [])
            self.network.advance(0.2)
            replies = self.hear(self.client)
            self.assertEqual(replies[0], "535 5.7.8 Authentication credentials invalid")
        self.assertEqual(replies[1], "421 4.7.0 Too many failed authentications")

    def test_after_20_failures_an_account_is_not_judged_for_ten_minutes(self) -> None:
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
class TokenChecker:
    credentialInterfaces = (IBearerToken,)

    def requestAvatarId(self, credentials: Any) -> Any:
        if credentials.token == "broken":
            raise RuntimeError(f"cannot ask about {credentials.token}")
        if credentials.token != "abc.def" or credentials.username not in ("", "alice"):
            raise UnauthorizedLogin
        return b"alice"


class WithTokens(PortalTestCase):
    """OAUTHBEARER (RFC 7628) and XOAUTH2."""

    def bearer(self, token: str, name: str = "alice") -> bytes:
        message = f"n,a={name},\1host=mx.example\1port=587\1auth=Bearer {token}\1\1"
        return b"AUTH OAUTHBEARER " + b64encode(message.encode())

    def xoauth2(self, token: str, name: str = "alice") -> bytes:
        message = f"user={name}\1auth=Bearer {token}\1\1"
        return b"AUTH XOAUTH2 " + b64encode(message.encode())

    def offer_tokens(self) -> None:
        self.realm = Realm()
        self.use(Portal(self.realm, [TokenChecker()]))

    def test_a_checker_of_tokens_brings_oauthbearer_and_xoauth2(self) -> None:
        self.offer_tokens()
        self.assertIn("250 AUTH OAUTHBEARER XOAUTH2", self.begin())

    def test_a_good_token_authenticates_with_and_without_a_name(self) -> None:
        self.offer_tokens()
        for line in (self.bearer("abc.def"), self.bearer("abc.def", ""), self.xoauth2("abc.def")):
            self.begin()
            self.assertEqual(self.code(line), "235")
            self.assertEqual(self.code(b"MAIL FROM:<alice@example.org>"), "250")

    def test_a_bad_token_gets_its_error_in_a_challenge_before_535(self) -> None:
        self.offer_tokens()
        self.begin()
        for line, answer, error in (
            (self.bearer("abd"), b"AQ==", {"status": "invalid_token"}),
            (self.xoauth2("abd"), b"", {"status": "401", "schemes": "bearer"}),
            (self.bearer("abc.def", "bob"), b"*", {"status": "invalid_token"}),
        ):
            (challenge,) = self.ask(line, 5)
            self.assertEqual(challenge[:4], "334 ")
            self.assertEqual(json.loads(b64decode(challenge[4:])), error)
            self.assertEqual(self.code(answer), "535")
        self.assertEqual(self.code(self.bearer("abc.def")), "235")

    def test_malformed_messages_are_refused(self) -> None:
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

    def test_an_exception_of_a_checker_is_454_and_its_text_is_not_logged(self) -> None:
        self.offer_tokens()
        self.begin()
        logged = self.failures()
        self.assertEqual(self.code(self.bearer("broken")), "454")
        (shown,) = logged()
        self.assertIn("a checker of credentials failed", shown)
        self.assertIn("test_portal.py", shown)
        self.assertIn("in requestAvatarId", shown)
        self.assertIn("Withheld: RuntimeError", shown)
        self.assertNotIn("cannot ask about broken", shown)
        self.assertEqual(len(self.flushLoggedErrors(Withheld)), 1)
