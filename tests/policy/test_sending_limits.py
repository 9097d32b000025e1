"""Limits of messages and recipients an hour, by account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from tests.workers.test_limits import Simulation
from twisted_mta.auth.sliding_window import SlidingWindow
from twisted_mta.config import RelayCertificate
from twisted_mta.interfaces import LimitKey, Limits
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.policy.sending_limits import (
    NO_LIMITS,
    HourlyLimits,
    SendingLimits,
    What,
    account_of,
)
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.system.limits import LocalLimits


class Limited(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refused: list[tuple[str, str]] = []

    def limits(
        self,
        general: HourlyLimits,
        by_account: Mapping[str, HourlyLimits] | None = None,
        *,
        counts: Limits | None = None,
    ) -> SendingLimits:
        sent = SlidingWindow(
            limits=counts or LocalLimits(), clock=self.clock, period=3600.0, most=10_000
        )
        limits = SendingLimits(
            sent,
            clock=self.clock,
            count=lambda what, kind: self.refused.append((what, kind)),
        )
        limits.use(general, by_account or {})
        return limits

    def add(
        self,
        limits: SendingLimits,
        account: str,
        what: What = "messages",
        number: int = 1,
        listener: HourlyLimits = NO_LIMITS,
    ) -> str:
        counting = limits.add(account, what, listener, number=number)
        return str(self.successResultOf(Deferred.fromCoroutine(counting)) or "taken")


class Late(LocalLimits):
    """Limits whose last answers wait."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 2

    def take(self, key: LimitKey, limit: int) -> Any:
        self.left -= 1
        return super().take(key, limit) if self.left >= 0 else Deferred[bool]()


class Hours(Limited):
    def test_recipients_of_a_message_that_is_given_up_do_not_count(self) -> None:
        late = Late()
        limits = self.limits(HourlyLimits(recipients=3), counts=late)
        counting = Deferred.fromCoroutine(limits.add("ann", "recipients", number=3))
        counting.cancel()
        self.failureResultOf(counting, CancelledError)
        late.left = 3
        self.assertEqual(self.add(limits, "ann", "recipients", 3), "taken")

    def test_a_refusal_says_the_limit_and_when_there_is_room(self) -> None:
        limits = self.limits(HourlyLimits(messages=2))
        self.assertEqual(self.add(limits, "ann"), "taken")
        self.clock.advance(600)
        self.assertEqual(self.add(limits, "ANN"), "taken")
        refusal = "450 4.7.1 Limit of 2 messages an hour reached, try again in {}"
        self.assertEqual(self.add(limits, "ann"), refusal.format("50 minutes"))
        self.assertEqual(self.add(limits, "bob"), "taken")
        self.clock.advance(2990)
        self.assertEqual(self.add(limits, "ann"), refusal.format("10 seconds"))
        self.clock.advance(10)
        self.assertEqual(self.add(limits, "ann"), "taken")
        self.assertEqual(self.add(limits, "ann"), refusal.format("10 minutes"))
        self.assertEqual(self.refused, [("messages", "account")] * 3)

    def test_an_account_of_its_own_limits_has_these_alone(self) -> None:
        limits = self.limits(
            HourlyLimits(messages=1, recipients=1),
            {"newsletter": HourlyLimits(recipients=3), "trusted": NO_LIMITS},
        )
        for _ in range(5):
            self.assertEqual(self.add(limits, "Newsletter"), "taken")
            self.assertEqual(self.add(limits, "trusted", "recipients"), "taken")
        taken = [self.add(limits, "newsletter", "recipients")[:3] for _ in range(4)]
        self.assertEqual(taken, ["tak", "tak", "tak", "450"])

    def test_limits_of_a_listener_hold_before_the_general_ones(self) -> None:
        limits = self.limits(HourlyLimits(messages=5, recipients=1), {"ann": HourlyLimits(3)})
        listener = HourlyLimits(messages=2)
        self.assertEqual(
            [
                limits.limit(account, what, listener)
                for account in ("ann", "bob")
                for what in ("messages", "recipients")
            ],
            [3, 0, 2, 1],
        )
        self.assertFalse(self.limits(NO_LIMITS).are_set())
        self.assertTrue(self.limits(NO_LIMITS).are_set(listener))

    def test_recipients_of_one_message_are_counted_all_or_none(self) -> None:
        limits = self.limits(HourlyLimits(recipients=10))
        self.assertEqual(self.add(limits, "ann", "recipients", 7), "taken")
        self.assertEqual(self.add(limits, "ann", "recipients", 4)[:9], "450 4.7.1")
        self.assertEqual(self.add(limits, "ann", "recipients", 3), "taken")
        self.assertEqual(
            self.add(limits, "bob", "recipients", 11),
            "550 5.5.3 11 recipients at once, and the limit is 10 an hour",
        )
        self.assertEqual(self.add(limits, "bob", "recipients", 10), "taken")

    def test_the_log_names_an_account_once_an_hour(self) -> None:
        lines = logged_lines(self, "has reached its limit")
        limits = self.limits(HourlyLimits(messages=1))
        for _ in range(4):
            self.add(limits, "ann\x1b")
        self.assertEqual(
            lines,
            [
                r"the account ann\x1b has reached its limit of 1 message an hour; it is refused,"
                " and the next are taken in 60 minutes"
            ],
        )
        self.clock.advance(3600)
        self.assertEqual(self.add(limits, "ann\x1b"), "taken")
        self.add(limits, "ann\x1b")
        self.assertEqual(len(lines), 2)

    def test_a_limit_holds_for_all_workers_together(self) -> None:
        world = Simulation(workers=3)
        workers = [self.limits(HourlyLimits(messages=4), counts=each) for each in world.workers]
        answers: list[str] = []
        for number in range(12):
            counting = Deferred.fromCoroutine(workers[number % 3].add("ann", "messages"))
            counting.addCallback(lambda refusal: answers.append(str(refusal or "taken")))
            world.settle()
            world.pass_time(5)
            world.settle()
        self.assertEqual([each[:3] for each in answers], ["tak"] * 4 + ["450"] * 8)


class Names(TidyTestCase):
    def name(self, peer: Peer, identity: str | None = None, tls: TLSFacts | None = None) -> object:
        session = Session(SessionSettings(hostname="mx.example"), peer=peer)
        session.identity = identity
        session.tls = tls
        return account_of(session, (RelayCertificate("ab" * 32),))

    def test_senders_have_the_name_of_their_account_user_or_certificate(self) -> None:
        shown = TLSFacts("TLSv1.3", "x", 256, peer_fingerprint="ab" * 32)
        other = TLSFacts("TLSv1.3", "x", 256, peer_fingerprint="cd" * 32)
        remote = Peer("192.0.2.1")
        self.assertEqual(self.name(remote, "ann", shown), "ann")
        self.assertEqual(self.name(Peer(user=33)), "uid:33")
        self.assertEqual(self.name(remote, tls=shown), f"certificate:{'ab' * 32}")
        self.assertIsNone(self.name(remote, tls=other))
        self.assertIsNone(self.name(remote))
