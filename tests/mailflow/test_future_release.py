"""Mail with a future release (RFC 4865) through whole MTAs."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.auth.accounts import Account
from twisted_mta.auth.accounts_file import changing
from twisted_mta.config import Listener
from twisted_mta.smtp.extension.futurerelease import future_release
from twisted_mta.system.real_world import secret_octets
from twisted_mta.testing.memory_mta import EPOCH, MemoryMTA
from twisted_mta.testing.reactor import MemoryReactor

PLAIN = b"Subject: x\r\n\r\nfine\r\n"
DAY = 86400
MONTH = 30 * DAY


class Held(TidyTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = os.path.abspath(self.mktemp())

    def started(self, **settings: Any) -> MemoryMTA:
        mta = self.enterContext(
            MemoryMTA(
                self.directory,
                reactor=self.reactor,
                routes=(("next.example", "smtp://192.0.2.1"),),
                **settings,
            )
        )
        for factory in mta.mta.agent.listeners.factories:
            extensions = (*factory.settings.extensions, future_release(MONTH, mta.wall_time))
            factory.settings = evolve(factory.settings, extensions=extensions)
        return mta

    def submit(self, mta: MemoryMTA, until: str, recipient: str = "bob@localhost") -> None:
        client = mta.connect()
        self.assertIn(b" FUTURERELEASE 2592000 2027-", client.received)
        for command in (f"MAIL FROM:<ann@localhost> {until}", f"RCPT TO:<{recipient}>"):
            self.assertRegex(client.say(command)[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(PLAIN + b".\r\n")[0], "^250 2.0.0 Queued as")
        mta.advance(1)

    def test_holdfor_holds_mail_for_that_many_seconds(self) -> None:
        mta = self.started()
        self.submit(mta, "HOLDFOR=3600")
        mta.advance(3590)
        self.assertEqual(mta.mail("bob"), [])
        self.assertEqual(mta.status().queue["messages"], 1)
        mta.advance(20)
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual(mta.status().queue["messages"], 0)

    def test_holduntil_holds_mail_until_that_time(self) -> None:
        mta = self.started()
        until = datetime.fromtimestamp(EPOCH + 20 * DAY, UTC)
        self.submit(mta, f"HOLDUNTIL={until:%Y-%m-%dT%H:%M:%SZ}")
        mta.reactor.jump(20 * DAY - 100)
        self.assertEqual(mta.mail("bob"), [])
        mta.advance(200)
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_held_mail_stays_held_over_restarts(self) -> None:
        # A start does not take the hold for a due time of a wrong clock.
        mta = self.started()
        self.submit(mta, f"HOLDFOR={MONTH}")
        for _ in range(3):
            mta.stop()
            mta = self.started()
            mta.reactor.jump(9 * DAY)
            self.assertEqual(mta.mail("bob"), [])
        mta.advance(4 * DAY)
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_the_lifetime_of_held_mail_begins_with_its_release(self) -> None:
        mta = self.started()
        self.submit(mta, f"HOLDFOR={10 * DAY}", "bob@next.example")
        mta.reactor.jump(10 * DAY + 60)
        self.assertEqual(mta.mail("ann"), [])
        mta.advance(4 * DAY + 80000)
        [delayed] = mta.mail("ann")
        self.assertIn(b"\nAction: delayed\n", delayed)
        mta.advance(DAY)
        self.assertIn(b"\nAction: failed\n", mta.mail("ann")[-1])

    def test_held_mail_does_not_delay_other_mail(self) -> None:
        mta = self.started()
        self.submit(mta, f"HOLDFOR={DAY}")
        mta.submit_by_smtp(PLAIN, "bob@localhost")
        mta.advance(1)
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_held_mail_with_by_is_returned_when_that_time_is_over(self) -> None:
        mta = self.started()
        self.submit(mta, f"HOLDFOR={DAY} BY={DAY + 600};R", "bob@next.example")
        mta.advance(DAY + 500)
        self.assertEqual(mta.mail("ann"), [])
        mta.advance(3600)
        self.assertEqual(len(mta.mail("ann")), 1)


class Offered(TidyTestCase):
    def announced(self, **settings: Any) -> list[str]:
        listener = Listener(endpoint="tcp:25:interface=127.0.0.1", auth="any", **settings)
        users = os.path.abspath(self.mktemp())
        with changing(users) as accounts:
            accounts["ann"] = Account.of("ann", "open sesame 71", secret=secret_octets)
        mta = self.enterContext(MemoryMTA(listeners=(listener,), users=users))
        return [line[4:] for line in mta.connect(greet=False).say("EHLO client.example")]

    def test_future_release_is_announced_on_submission_listeners_alone(self) -> None:
        self.assertIn(
            "FUTURERELEASE 2592000 2027-02-14T08:00:00Z", self.announced(kind="submission")
        )
        self.assertNotIn("FUTURERELEASE", " ".join(self.announced()))

    def test_max_future_release_sets_the_announced_limit_or_turns_it_off(self) -> None:
        found = self.announced(kind="submission", max_future_release=86400)
        self.assertIn("FUTURERELEASE 86400 2027-01-16T08:00:00Z", found)
        found = self.announced(kind="submission", max_future_release=0)
        self.assertNotIn("FUTURERELEASE", " ".join(found))
