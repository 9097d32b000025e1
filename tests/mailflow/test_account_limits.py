"""Limits of messages and recipients an hour for accounts that an application names."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta import LimitReached, SubmissionRefused
from twisted_mta.config import AccountLimit, AccountLimits
from twisted_mta.mail.address import Mailbox
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.memory_mta import MemoryMTA

MAIL = b"From: shop@shop.test\r\nSubject: Hi\r\n\r\nHello.\r\n"


class Application(TidyTestCase):
    def mta(self, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(domain="shop.test", **settings))

    def submit(self, mta: MemoryMTA, *recipients: str, account: str | None = None) -> str:
        """Return what becomes of a message."""
        try:
            mta.submit(MAIL, sender="", recipients=recipients or ["bob@shop.test"], account=account)
        except LimitReached as refused:
            return str(refused.reply)
        return "taken"

    def test_each_account_that_the_application_names_has_its_limit(self) -> None:
        mta = self.mta(
            account_limits=AccountLimits(messages_per_hour=2),
            limits_of_accounts=(AccountLimit(account="bulk", recipients_per_hour=3),),
        )
        three = [f"bob{number}@shop.test" for number in range(3)]
        self.assertEqual(self.submit(mta, *three, account="bulk"), "taken")
        mta.advance(minutes=10)
        refused = "450 4.7.1 Limit of 3 recipients an hour reached, try again in 50 minutes"
        self.assertEqual(self.submit(mta, account="bulk"), refused)
        self.assertEqual(
            self.submit(mta, *three, "eve@shop.test", account="bulk"),
            "550 5.5.3 4 recipients at once, and the limit is 3 an hour",
        )
        answers = [self.submit(mta, account="a")[:5] for _ in range(3)]
        self.assertEqual(answers, ["taken", "taken", "450 4"])
        self.assertEqual(self.submit(mta, account="b"), "taken")
        # Mail without an account has no limit.
        self.assertEqual([self.submit(mta) for _ in range(5)], ["taken"] * 5)
        mta.advance(minutes=50)
        self.assertEqual(self.submit(mta, account="bulk"), "taken")
        self.assertEqual(mta.status().counters["over_limit"], 3)
        counted = mta.status().metrics.total(table.ACCOUNT_LIMITS, kind="application")
        self.assertEqual(counted, 3)

    def test_mail_that_waited_in_the_directory_counts_for_its_user(self) -> None:
        mta = self.mta(limits_of_accounts=(AccountLimit(account="uid:33", messages_per_hour=1),))
        submit = partial(
            mta.mta._submit_of_user, MAIL, sender="", recipients=[Mailbox("bob", "shop.test")]
        )
        for user, taken in ((33, True), (33, False), (34, True), (34, True)):
            submitted = submit(user=user)
            mta.reactor.settle()
            if taken:
                self.successResultOf(submitted)
            else:
                reply = self.failureResultOf(submitted, LimitReached).value.reply
                self.assertEqual(str(reply)[:24], "450 4.7.1 Limit of 1 mes")
        counted = mta.status().metrics.total(table.ACCOUNT_LIMITS, kind="uid", what="messages")
        self.assertEqual(counted, 1)

    def test_a_reload_changes_the_limits(self) -> None:
        mta = self.mta(account_limits=AccountLimits(messages_per_hour=1))
        self.assertEqual(self.submit(mta, account="a"), "taken")
        self.assertEqual(self.submit(mta, account="a")[:9], "450 4.7.1")
        self.successResultOf(mta.mta.reload(self.changed(mta, AccountLimits(messages_per_hour=2))))
        self.assertEqual(self.submit(mta, account="a"), "taken")
        self.assertEqual(self.submit(mta, account="a")[:9], "450 4.7.1")

    def changed(self, mta: MemoryMTA, limits: AccountLimits) -> Any:
        return evolve(mta.mta.config, account_limits=limits)

    def test_an_account_is_a_printable_name(self) -> None:
        mta = self.mta()
        for account, error in ((7, TypeError), ("", ValueError), ("a\n", ValueError)):
            with self.assertRaises(error):
                self.submit(mta, account=account)  # type: ignore[arg-type]

    def test_the_error_is_one_of_refused_submissions(self) -> None:
        self.assertTrue(issubclass(LimitReached, SubmissionRefused))
