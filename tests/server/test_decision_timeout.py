"""Decisions that never come: they are canceled after a time, or when the client goes."""

from base64 import b64encode
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred
from twisted.mail import smtp
from zope.interface import implementer

from tests.logs import logged_lines
from tests.server.dialogue import DialogueTestCase
from twisted_mta import ESMTPFactory
from twisted_mta.system.lasting import Lasting

UP_TO = {
    "MAIL": b"MAIL FROM:<a@client.example>\r\n",
    "RCPT": b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n",
    "end": b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\nBDAT 4 LAST\r\nHi\r\n",
}


@implementer(smtp.IMessageDelivery, smtp.IMessage)
class Stuck:
    """Answers one question never, and the others at once."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.canceled = 0

    def answer(self, stage: str, value: Any) -> Any:
        return self.never() if stage == self.stage else value

    def never(self) -> Deferred[Any]:
        def cancel(_: object) -> None:
            self.canceled += 1

        return Deferred(cancel)

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return self.answer("MAIL", origin)

    def validateTo(self, user: Any) -> Any:
        return self.answer("RCPT", lambda: self)

    def lineReceived(self, line: bytes) -> None:
        pass

    def eomReceived(self) -> Any:
        return self.answer("end", None)

    def connectionLost(self) -> None:
        pass


@implementer(ICredentialsChecker)
class StuckChecker:
    credentialInterfaces = (IAnonymous, IUsernamePassword)

    def __init__(self) -> None:
        self.stuck = Stuck("login")

    def requestAvatarId(self, credentials: Any) -> Any:
        return self.stuck.never()


@implementer(IRealm)
class NoRealm:
    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        raise NotImplementedError


class Stubborn(Deferred[Any]):
    def cancel(self) -> None:
        raise RuntimeError("no")


class DecisionsThatNeverCome(DialogueTestCase):
    def offer(self, delivery: Any, seconds: float = 60.0, **more: Any) -> None:
        self.factory = ESMTPFactory(delivery, clock=self.network, decision_timeout=seconds, **more)
        self.client = self.connect()
        self.say(self.client, b"EHLO client.example\r\n")
        self.hear(self.client)

    def test_each_stage_is_canceled_after_its_time_and_answered_with_451(self) -> None:
        for stage, octets in UP_TO.items():
            with self.subTest(stage=stage):
                stuck = Stuck(stage)
                self.offer(stuck)
                self.network.advance(40)  # however long the session was idle before
                self.say(self.client, octets)
                self.hear(self.client)
                self.network.advance(59.9)
                self.assertEqual((self.hear(self.client), stuck.canceled), ([], 0))
                self.network.advance(0.2)
                self.assertEqual((self.hear(self.client), stuck.canceled), (["451 4.3.0"], 1))
                self.say(self.client, b"RSET\r\n")
                self.assertEqual(self.hear(self.client), ["250 2.0.0"])

    def test_the_time_counts_anew_for_each_decision(self) -> None:
        stuck = Stuck("RCPT")
        self.offer(stuck)
        for _ in range(3):
            self.say(self.client, b"RSET\r\n" + UP_TO["RCPT"])
            self.network.advance(60)
            self.assertEqual(self.hear(self.client)[-1], "451 4.3.0")
        self.assertEqual(stuck.canceled, 3)

    def test_a_client_that_goes_cancels_the_decision(self) -> None:
        for stage, octets in UP_TO.items():
            with self.subTest(stage=stage):
                stuck = Stuck(stage)
                self.offer(stuck)
                self.say(self.client, octets)
                self.client.transport.abortConnection()
                self.network.advance(0)
                self.assertEqual((stuck.canceled, self.factory.connections_open), (1, 0))

    def test_an_anonymous_login_is_canceled_and_answered_with_451(self) -> None:
        checker = StuckChecker()
        self.offer(Portal(NoRealm(), [checker]))
        self.say(self.client, UP_TO["MAIL"])
        self.network.advance(60)
        self.assertEqual((self.hear(self.client), checker.stuck.canceled), (["451 4.3.0"], 1))

    def test_a_login_is_canceled_and_answered_as_a_temporary_failure(self) -> None:
        checker = StuckChecker()
        self.offer(Portal(NoRealm(), [checker]), 10, auth="any")
        self.say(self.client, b"AUTH PLAIN " + b64encode(b"\0ann\0secret") + b"\r\n")
        self.network.advance(10)
        self.assertEqual((self.hear(self.client), checker.stuck.canceled), (["454 4.7.0"], 1))

    def test_a_client_that_goes_during_a_login_has_used_an_attempt(self) -> None:
        checker = StuckChecker()
        self.offer(Portal(NoRealm(), [checker]), auth="any")
        login = b"AUTH PLAIN " + b64encode(b"\0ann\0secret") + b"\r\n"
        for _ in range(20):
            self.say(self.client, login)
            self.client.transport.abortConnection()
            self.network.advance(0)
            self.client = self.connect()
            self.say(self.client, b"EHLO client.example\r\n")
            self.hear(self.client)
        self.assertEqual(checker.stuck.canceled, 20)
        self.say(self.client, login)
        self.assertEqual((self.hear(self.client), checker.stuck.canceled), (["454 4.7.0"], 20))

    def test_a_decision_that_cannot_be_canceled_is_answered_all_the_same(self) -> None:
        stubborn = Stubborn()
        self.delivery.when = lambda: stubborn
        self.offer(self.delivery)
        self.say(self.client, UP_TO["MAIL"])
        self.network.advance(60)
        self.assertEqual(self.hear(self.client), ["451 4.3.0"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        stubborn.callback(None)
        self.network.advance(0)
        self.assertEqual(self.hear(self.client), [])

    def test_content_that_is_opened_too_late_is_given_up(self) -> None:
        opening: Lasting[Any] = Lasting()
        answers = iter([None, None, opening])
        self.delivery.when = lambda: next(answers) or _now()
        self.offer(self.delivery)
        self.say(self.client, UP_TO["RCPT"] + b"DATA\r\n")
        self.network.advance(60)
        self.assertEqual(self.hear(self.client)[-1], "451 4.3.0")
        opening.callback(None)
        self.assertEqual(self.delivery.open_sinks, 0)

    def test_a_commit_that_lasts_too_long_has_no_second_reply(self) -> None:
        commit: Lasting[None] = Lasting()
        answers = iter([None, None, None, commit])
        self.delivery.when = lambda: next(answers, None) or _now()
        self.offer(self.delivery)
        self.say(self.client, UP_TO["end"])
        self.network.advance(60)
        self.assertEqual(self.hear(self.client)[-1], "451 4.3.0")
        self.say(self.client, UP_TO["end"])
        self.assertEqual(self.hear(self.client)[-1], "250 2.0.0")
        commit.callback(None)
        self.network.advance(0)
        self.assertEqual(self.hear(self.client), [])
        self.assertEqual(len(self.delivery.messages), 2)

    def test_a_commit_goes_on_without_its_client_and_may_fail(self) -> None:
        for error in (None, RuntimeError("a disk")):
            commit: Lasting[None] = Lasting()
            answers = iter([None, None, None, commit])
            self.delivery.when = lambda answers=answers: next(answers) or _now()
            self.offer(self.delivery)
            self.say(self.client, UP_TO["end"])
            self.client.transport.abortConnection()
            self.network.advance(0)
            self.assertEqual(self.factory.connections_open, 0)
            if error is None:
                commit.callback(None)
            else:
                commit.errback(error)
            self.network.advance(0)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_the_log_says_which_decision_did_not_come(self) -> None:
        lines = logged_lines(self, "no decision")
        self.offer(Stuck("RCPT"))
        self.say(self.client, UP_TO["RCPT"])
        self.network.advance(60)
        self.assertEqual(lines, ["no decision for 192.0.2.7 within 60 s, at rcpt: canceled"])


def _now() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done
