"""What an application adds to an agent: checkers of logins, and extensions of ESMTP."""

from base64 import b64encode
from collections.abc import Iterable
from typing import Any
from unittest.mock import Mock

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

from tests.tidy import TidyTestCase
from twisted_mta import Config, MailTransferAgent, Reply
from twisted_mta.auth.withheld import Withheld
from twisted_mta.config import Listener
from twisted_mta.mail.envelope import Recipient
from twisted_mta.service import Environment
from twisted_mta.smtp.extension import Extension
from twisted_mta.smtp.extension.outgoing import OutgoingExtension
from twisted_mta.smtp.extension.views import OutgoingView
from twisted_mta.testing.memory_mta import SMTP, MemoryMTA
from twisted_mta.testing.reactor import MemoryReactor

ANN = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
LOGIN = "AUTH PLAIN " + b64encode(b"\0ann\0secret").decode()
SUBMISSION = (
    Listener(kind="submission", endpoint=f"tcp:{SMTP[1]}:interface={SMTP[0]}", auth="any"),
)
MAIL = b"Subject: Hi\r\n\r\nHello\r\n"


class BrokenChecker(InMemoryUsernamePasswordDatabaseDontUse):
    def requestAvatarId(self, credentials: Any) -> Any:
        raise LookupError(credentials.password)


class PluggedInTestCase(TidyTestCase):
    def running(self, **arguments: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(**arguments))


class Checkers(PluggedInTestCase):
    def test_a_checker_judges_logins_and_its_avatar_id_is_the_account(self) -> None:
        mta = self.running(checkers=[ANN], listeners=SUBMISSION)
        client = mta.connect()
        wrong = "AUTH PLAIN " + b64encode(b"\0ann\0guess").decode()
        self.assertEqual(client.say("MAIL FROM:<ann@localhost>")[0][:9], "530 5.7.0")
        client.say(wrong)
        mta.advance(1)
        self.assertEqual(client.say(LOGIN)[-1][:9], "235 2.7.0")
        self.assertEqual(client.say("MAIL FROM:<ann@localhost>")[0][:3], "250")

    def test_it_comes_before_the_checker_of_the_settings(self) -> None:
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write("ann:other\n")
        mta = self.running(checkers=[ANN], listeners=SUBMISSION, auth=f"file:{path}")
        self.assertEqual(mta.connect().say(LOGIN)[0][:3], "235")

    def test_one_that_fails_is_454_and_the_session_lives(self) -> None:
        mta = self.running(checkers=[BrokenChecker()], listeners=SUBMISSION)
        client = mta.connect()
        self.assertEqual(client.say(LOGIN)[0][:9], "454 4.7.0")
        self.assertEqual(client.say("NOOP")[0][:3], "250")
        (failure,) = self.flushLoggedErrors(Withheld)
        self.assertNotIn("secret", failure.getTraceback())

    def test_what_is_no_checker_is_refused_at_once(self) -> None:
        wrong: Any
        for wrong in (ANN, ["file:/etc/passwords"], 7):
            with self.assertRaisesRegex(TypeError, "checkers: found .*, expected a sequence"):
                MailTransferAgent(Config(), reactor=MemoryReactor(), checkers=wrong)


class Outgoing(OutgoingExtension):
    keyword = "XTICKET"

    def __init__(self, fails: str) -> None:
        self.fails = fails

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        return self.fail("refusal")

    def recipient_refusal(
        self, transaction: OutgoingView, recipient: Recipient, announced: str | None
    ) -> Reply | None:
        return self.fail("recipient_refusal")

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        self.fail("mail")
        return ()

    def rcpt(
        self, transaction: OutgoingView, recipient: Recipient, announced: str
    ) -> Iterable[str]:
        self.fail("rcpt")
        return ()

    def fail(self, where: str) -> None:
        if where == self.fails:
            raise ArithmeticError(where)


class Extensions(PluggedInTestCase):
    def test_one_that_fails_towards_a_next_hop_defers_the_mail(self) -> None:
        for fails in ("refusal", "recipient_refusal", "mail", "rcpt"):
            extension = Extension("XTICKET", outgoing=Outgoing(fails))
            with self.subTest(fails=fails):
                mta = self.running(extensions=[extension])
                mta.hop().extensions = ["XTICKET"]
                self.assertEqual(mta.submit_by_smtp(MAIL, "eve@far.example")[:3], "250")
                mta.advance(1)
                status = mta.status()
                self.assertEqual(status.queue["deferred"], 1)
                self.assertTrue(self.flushLoggedErrors(ArithmeticError))
                self.assertEqual(mta.submit_by_smtp(MAIL, "bob@localhost")[:3], "250")
                self.assertEqual(len(mta.mail("bob")), 1)


class WithWorkers(TidyTestCase):
    def test_objects_of_the_application_are_refused_by_name(self) -> None:
        given: dict[str, Any] = {
            "policy": object(),
            "deliveries": {"db": Mock()},
            "checkers": [ANN],
            "extensions": [Extension("XTICKET")],
            "environment": Environment(wall_time=lambda: 0.0),
        }
        for name, value in given.items():
            with self.assertRaisesRegex(ValueError, f"^{name}: found workers = 2, expected 1"):
                MailTransferAgent(Config(workers=2), reactor=MemoryReactor(), **{name: value})
