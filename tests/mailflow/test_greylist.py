"""Greylisting: mail of an unknown network, sender and recipient is taken at the second attempt."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.logs import logged_lines
from tests.mailflow.test_authentication import MESSAGE, OFF, STRANGER
from tests.tidy import TidyTestCase
from twisted_mta.agent.explain.explainer import AddressQuery
from twisted_mta.agent.policies import GREYLIST
from twisted_mta.config import DNSBL, GreylistSettings, PolicySettings
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.resolver import FakeResolver

DEFERRED, TAKEN = ["451 4.7.1"], ["250 2.1.5", "250 2.0.0"]


class Greylisting(TidyTestCase):
    def mta(self, directory: str = "", **settings: Any) -> MemoryMTA:
        self.directory = directory or os.path.abspath(self.mktemp())
        mta = MemoryMTA(
            self.directory,
            **{
                "policy": OFF,
                "greylist": GreylistSettings(delay=300),
                "local_domains": ("us.example",),
                **settings,
            },
        )
        self.addCleanup(mta.stop)
        mta.start()
        return mta

    def replies(
        self,
        mta: MemoryMTA,
        *recipients: str,
        sender: str = "ann@sender.example",
        source: str = STRANGER,
    ) -> list[str]:
        client = mta.connect(source=source)
        client.say(f"MAIL FROM:<{sender}>")
        replies = [client.say(f"RCPT TO:<{to}>")[-1] for to in recipients or ("bob@us.example",)]
        if any(each.startswith("250") for each in replies):
            client.say("DATA")
            replies += client.send(MESSAGE + b".\r\n")[-1:]
        return replies

    def codes(self, mta: MemoryMTA, *recipients: str, **how: Any) -> list[str]:
        return [each[:9] for each in self.replies(mta, *recipients, **how)]

    def pairs(self) -> int:
        with closing(sqlite3.connect(os.path.join(self.directory, GREYLIST))) as database:
            number: int = database.execute("SELECT count(*) FROM pair").fetchone()[0]
            return number


class Pairs(Greylisting):
    def test_it_is_off_by_default(self) -> None:
        mta = self.mta(greylist=None)
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertFalse(os.path.exists(os.path.join(self.directory, GREYLIST)))

    def test_the_first_attempt_is_deferred_and_one_after_the_delay_is_taken(self) -> None:
        mta = self.mta()
        self.assertEqual(self.replies(mta), ["451 4.7.1 Greylisted, try again in 300 seconds"])
        mta.advance(200)
        self.assertEqual(self.replies(mta)[0][:43], "451 4.7.1 Greylisted, try again in 100 seco")
        mta.advance(101)
        log = logged_lines(self, "checked: ")
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertIn("greylist=pass (it was tried again)", log[0])
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertIn("greylist=pass (it has passed before)", log[1])
        counted = mta.mta.agent.metrics.snapshot()
        for result, number in (("defer", 2), ("pass", 2)):
            total = counted.total(table.POLICY_VERDICTS, policy="greylist", result=result)
            self.assertEqual(total, number, result)

    def test_each_pair_waits_by_itself(self) -> None:
        mta = self.mta()
        self.codes(mta)
        mta.advance(301)
        self.assertEqual(self.codes(mta, sender="eve@sender.example"), DEFERRED)
        self.assertEqual(self.codes(mta, "carol@us.example"), DEFERRED)
        self.assertEqual(self.codes(mta, source="198.51.100.1"), DEFERRED)
        self.assertEqual(
            self.codes(mta, "carol@us.example", "BOB@us.example"), ["451 4.7.1", *TAKEN]
        )

    def test_servers_of_a_network_and_numbered_senders_are_taken_together(self) -> None:
        mta = self.mta()
        for before, after in (
            ({"source": "192.0.2.7"}, {"source": "192.0.2.250"}),
            ({"source": "2001:db8::1"}, {"source": "2001:db8::ffff:1"}),
            ({"sender": "list-b-12-x@l.example"}, {"sender": "list-b-3456-x@l.example"}),
            ({"sender": "list+bob@l2.example"}, {"sender": "List+carol@L2.example"}),
            ({"sender": ""}, {"sender": ""}),
        ):
            self.assertEqual(self.codes(mta, **before), DEFERRED, before)
            mta.advance(301)
            self.assertEqual(self.codes(mta, **after), TAKEN, after)
        self.assertEqual(self.codes(mta, source="2001:db8:0:1::1"), DEFERRED)

    def test_a_network_that_has_passed_five_times_is_known(self) -> None:
        mta = self.mta()
        for number in range(5):
            sender = f"{'abcde'[number]}@sender.example"
            self.assertEqual(self.codes(mta, sender=sender), DEFERRED)
            mta.advance(3_600)
            self.assertEqual(self.codes(mta, sender=sender), TAKEN)
        log = logged_lines(self, "checked: ")
        self.assertEqual(self.codes(mta, sender="new@other.example"), TAKEN)
        self.assertIn("greylist=pass (192.0.2.0/24 has passed often enough)", log[0])

    def test_what_is_known_survives_a_restart(self) -> None:
        mta = self.mta()
        self.codes(mta)
        mta.advance(301)
        self.codes(mta)
        now, directory = mta.reactor.seconds(), self.directory
        mta.stop()
        again = self.mta(directory, files=mta.files)
        again.advance(now)
        self.assertEqual(self.codes(again), TAKEN)


class Exempt(Greylisting):
    def test_the_postmaster_and_clients_of_our_own_are_not_deferred(self) -> None:
        mta = self.mta()
        codes = self.codes(mta, "postmaster@us.example", "bob@us.example")
        self.assertEqual(codes, ["250 2.1.5", "451 4.7.1", "250 2.0.0"])
        self.assertEqual(self.codes(mta, source=""), TAKEN)
        mta = self.mta(relay_from=())
        self.assertEqual(self.codes(mta, source="127.0.0.1"), TAKEN)

    def test_what_the_allow_list_has_is_not_deferred(self) -> None:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write("198.51.100.0/24\nsender.example\nto:abuse@us.example\n")
        names = FakeResolver(texts={"sender.example": [f"v=spf1 ip4:{STRANGER} -all"]})
        mta = self.mta(policy=PolicySettings(allow=path, dmarc="off", dkim="off"), resolver=names)
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(self.codes(mta, sender="eve@other.example"), DEFERRED)
        self.assertEqual(self.codes(mta, source="198.51.100.1", sender="x@y.example"), TAKEN)
        self.assertEqual(self.codes(mta, "abuse@us.example", sender="x@y.example"), TAKEN)

    def test_nothing_is_remembered_of_what_is_refused_otherwise(self) -> None:
        names = FakeResolver(addresses={"7.2.0.192.zen.example": ["127.0.0.2"]})
        mta = self.mta(dnsbl=(DNSBL(zone="zen.example"),), resolver=names, recipients="existing")
        self.assertEqual(self.codes(mta), ["550 5.1.1"])
        self.assertEqual(self.codes(mta), ["550 5.1.1"])
        mta.files.make_directories(f"{mta.mta.config.maildir}/us.example/bob/new")
        self.assertEqual(self.codes(mta), ["550 5.7.1"])
        self.assertFalse(os.path.exists(os.path.join(self.directory, GREYLIST)))


class Faults(Greylisting):
    def test_a_file_that_cannot_be_used_defers_nothing(self) -> None:
        mta = self.mta()
        path = os.path.join(self.directory, GREYLIST)
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write("no database" * 100)
        log = logged_lines(self, "greylisting cannot use its file, and defers nothing: ")
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(len(log), 1)

    def test_the_delay_changes_at_a_reload(self) -> None:
        mta = self.mta()
        self.codes(mta)
        settings = GreylistSettings(delay=60)
        lines = self.successResultOf(mta.mta.reload(evolve(mta.mta.config, greylist=settings)))
        self.assertIn("[greylist] delay = 60.0; before: 300.0", lines)
        mta.advance(61)
        self.assertEqual(self.codes(mta), TAKEN)

    def test_explain_foretells_and_remembers_nothing(self) -> None:
        mta = self.mta()
        query = AddressQuery(address="bob@us.example", client=STRANGER, sender="x@y.example")
        for _ in range(2):
            explaining: Deferred[Any] = mta.mta.agent.explainer.address(query)
            mta.reactor.settle()
            self.assertEqual(
                self.successResultOf(explaining)["forecast"]["refusals"],
                [
                    {
                        "policy": "greylist",
                        "reply": "451 4.7.1 Greylisted, try again in 300 seconds",
                    }
                ],
            )
            mta.advance(301)
        self.assertEqual(self.pairs(), 0)
