"""The suppression list: addresses that bounce for good get no more mail of our users."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta import Bounced, Delivered
from twisted_mta.admin.explanation_text import lines
from twisted_mta.admin.questions import SUPPRESSION
from twisted_mta.agent.agent import SUPPRESSION_FILE
from twisted_mta.agent.explain.explainer import AddressQuery
from twisted_mta.config import SuppressionSettings
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.memory_mta import MemoryMTA

MAIL = b"From: list@us.test\r\nSubject: Hi\r\n\r\nHello.\r\n"
ROUTES = (
    ("alive.test", "smtp://192.0.2.1"),
    ("gone.test", "smtp://192.0.2.2"),
    ("picky.test", "smtp://192.0.2.3"),
)
ONCE = SuppressionSettings(bounces=1)
UNKNOWN = "550 5.1.1 User unknown"
REFUSED = (
    "550 5.1.1 The address is on the suppression list, since it bounced on 1 day:"
    " 550 5.1.1 User unknown"
)


class Suppressing(TidyTestCase):
    def mta(self, **settings: Any) -> MemoryMTA:
        self.directory = os.path.abspath(self.mktemp())
        mta = MemoryMTA(
            self.directory,
            domain="us.test",
            **{"routes": ROUTES, "suppression": ONCE, **settings},
        )
        self.addCleanup(mta.stop)
        mta.start()
        self.alive = mta.hop("192.0.2.1")
        self.gone = mta.hop("192.0.2.2").refuse(reply=UNKNOWN)
        self.picky = mta.hop("192.0.2.3").refuse(reply="550 5.7.1 likely unsolicited mail")
        return mta

    def submit(self, mta: MemoryMTA, *recipients: str) -> str:
        return mta.submit(MAIL, sender="list@us.test", recipients=recipients).id

    def outcome(self, mta: MemoryMTA, recipient: str) -> Any:
        id = self.submit(mta, recipient)
        mta.advance(minutes=1)
        return self.successResultOf(mta.mta.outcome(id))[recipient]

    def rcpt(self, mta: MemoryMTA, recipient: str, source: str = "") -> str:
        client = mta.connect(source=source)
        client.say("MAIL FROM:<ann@us.test>")
        reply: str = client.say(f"RCPT TO:<{recipient}>")[-1]
        client.say("QUIT")
        return reply

    def bounce(self, mta: MemoryMTA, recipient: str, days: int = 0) -> None:
        self.submit(mta, recipient)
        mta.advance(minutes=1, days=days)

    def ask(self, mta: MemoryMTA, **arguments: Any) -> Any:
        agent: Any = mta.mta.agent
        return self.successResultOf(SUPPRESSION.ask(agent, 0, arguments))


class AMonth(Suppressing):
    def attempts(self, **settings: Any) -> tuple[int, int]:
        """Return the attempts at bad and at good addresses of a list in a month of daily mail."""
        mta = self.mta(**settings)
        members = [f"member{number}@alive.test" for number in range(4)]
        members += [f"member{number}@gone.test" for number in range(2)]
        for _ in range(30):
            for member in members:
                self.submit(mta, member)
            mta.advance(days=1)
        return self.gone.transactions, len(self.alive.received)

    def test_addresses_that_are_gone_are_tried_on_three_days_and_not_on_thirty(self) -> None:
        self.assertEqual(self.attempts(suppression=None), (60, 120))
        self.assertFalse(os.path.exists(os.path.join(self.directory, SUPPRESSION_FILE)))
        self.assertEqual(self.attempts(suppression=SuppressionSettings()), (6, 120))


class Recipients(Suppressing):
    def test_mail_of_users_is_refused_at_rcpt_and_that_of_the_application_bounces(self) -> None:
        mta = self.mta()
        log = logged_lines(self, "suppression list")
        self.bounce(mta, "Bob@gone.test")
        self.assertEqual(
            log,
            [
                "the address bob@gone.test comes on the suppression list: it has bounced on 1 day,"
                f" the last time with {UNKNOWN}"
            ],
        )
        self.assertEqual(self.rcpt(mta, "bob@GONE.test"), REFUSED)
        self.assertEqual(self.rcpt(mta, "eve@gone.test")[:3], "250")
        self.assertEqual(self.gone.transactions, 1)
        bounced = self.outcome(mta, "bob@gone.test")
        self.assertIsInstance(bounced, Bounced)
        self.assertEqual(str(bounced.reply), REFUSED)
        self.assertEqual(self.gone.transactions, 1)
        self.assertIn(b"suppression list", mta.mail("list", "us.test")[-1])
        metrics = mta.status().metrics
        self.assertEqual(metrics.total(table.SUPPRESSIONS, event="added"), 1)
        self.assertEqual(metrics.total(table.SUPPRESSIONS, event="refused"), 2)

    def test_a_bounce_by_the_list_itself_keeps_no_address_on_it(self) -> None:
        mta = self.mta()
        self.bounce(mta, "bob@gone.test", days=1)
        before = self.ask(mta, action="list", address="", limit=9)
        self.bounce(mta, "bob@gone.test", days=1)
        self.assertEqual(self.ask(mta, action="list", address="", limit=9), before)

    def test_the_other_recipients_of_a_message_get_it(self) -> None:
        mta = self.mta()
        self.bounce(mta, "bob@gone.test")
        self.gone.then_accept()
        id = self.submit(mta, "bob@gone.test", "eve@gone.test")
        mta.advance(minutes=1)
        outcomes = self.successResultOf(mta.mta.outcome(id))
        self.assertIsInstance(outcomes["bob@gone.test"], Bounced)
        self.assertIsInstance(outcomes["eve@gone.test"], Delivered)

    def test_spam_blocks_full_mailboxes_and_deferrals_list_no_address(self) -> None:
        mta = self.mta()
        for reply in ("552 5.2.2 over quota", "550 5.7.1 on our block list", "554 5.7.1 policy"):
            self.picky.refuse(reply=reply)
            self.bounce(mta, "bob@picky.test")
        self.picky.defer(reply="450 4.1.2 Domain not found")
        self.bounce(mta, "bob@picky.test", days=6)  # it expires meanwhile
        self.assertEqual(self.rcpt(mta, "bob@picky.test")[:3], "250")

    def test_a_domain_that_does_not_exist_lists_and_our_own_mailboxes_never_do(self) -> None:
        mta = self.mta()
        mta.zone("nothing.test. MX 0 .")
        self.bounce(mta, "bob@nothing.test")
        self.assertEqual(self.rcpt(mta, "bob@nothing.test")[:9], "550 5.1.1")
        self.assertEqual(
            self.ask(mta, action="list", address="", limit=9)["entries"][0]["bounces"], 1
        )

    def test_strangers_are_not_told(self) -> None:
        mta = self.mta(relay_domains=("gone.test",))
        self.bounce(mta, "bob@gone.test")
        self.assertEqual(self.rcpt(mta, "bob@gone.test", source="203.0.113.9")[:3], "250")

    def test_a_success_takes_an_address_off(self) -> None:
        mta = self.mta(relay_domains=("gone.test",))
        self.bounce(mta, "bob@gone.test")
        self.gone.then_accept()
        client = mta.connect(source="203.0.113.9")
        client.mail(MAIL, "bob@gone.test", sender="x@far.test")
        mta.advance(minutes=1)
        self.assertEqual(len(self.gone.received), 1)
        self.assertEqual(self.rcpt(mta, "bob@gone.test")[:3], "250")

    def test_it_survives_a_crash_and_a_disk_that_refuses_refuses_no_mail(self) -> None:
        mta = self.mta()
        self.bounce(mta, "bob@gone.test")
        mta.crash()
        mta.start()
        self.assertEqual(self.rcpt(mta, "bob@gone.test"), REFUSED)
        with open(os.path.join(self.directory, SUPPRESSION_FILE), "wb") as file:
            file.write(b"no database" * 1000)
        log = logged_lines(self, "cannot be used")
        self.assertEqual(self.rcpt(mta, "bob@gone.test")[:3], "250")
        self.assertEqual(self.rcpt(mta, "bob@gone.test")[:3], "250")
        self.assertEqual(len(log), 1)


class Operators(Suppressing):
    def test_the_operator_lists_adds_and_removes(self) -> None:
        mta = self.mta()
        added = self.ask(mta, action="add", address="Ann@alive.test", reason="gone\n", by="uid 0")
        self.assertEqual(added, {"address": "ann@alive.test"})
        self.assertEqual(
            self.rcpt(mta, "ann@alive.test"),
            r"550 5.1.1 The address is on the suppression list: gone\n",
        )
        (entry,) = self.ask(mta, action="list", address="", limit=9)["entries"]
        self.assertEqual((entry["address"], entry["until"]), ("ann@alive.test", None))
        removed = self.ask(mta, action="remove", address="ann@alive.test", by="uid 0")
        self.assertTrue(removed["found"])
        self.assertEqual(self.rcpt(mta, "ann@alive.test")[:3], "250")
        asked = SUPPRESSION.ask(mta.mta.agent, 0, {"action": "add", "address": "nothing"})  # type: ignore[arg-type]
        self.failureResultOf(asked, ValueError)

    def test_explain_says_so(self) -> None:
        mta = self.mta()
        self.bounce(mta, "bob@gone.test")
        agent: Any = mta.mta.agent
        facts = self.successResultOf(
            Deferred.fromCoroutine(agent.explainer._address(AddressQuery(address="bob@gone.test")))
        )
        said = "\n".join(lines(facts))
        self.assertIn("Suppressed: since ", said)
        self.assertIn("mail of our users is refused (1 bounce): 550 5.1.1 User unknown", said)

    def test_a_reload_turns_it_off_and_on(self) -> None:
        mta = self.mta()
        self.bounce(mta, "bob@gone.test")
        config = mta.mta.config
        self.successResultOf(mta.mta.reload(evolve(config, suppression=None)))
        self.assertEqual(self.rcpt(mta, "bob@gone.test")[:3], "250")
        self.successResultOf(mta.mta.reload(config))
        self.assertEqual(self.rcpt(mta, "bob@gone.test")[:3], "550")
