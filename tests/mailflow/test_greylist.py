"""Greylisting: mail of an unknown network, sender and recipient is taken at the second attempt."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any, ClassVar

from attrs import evolve

from tests.logs import logged_lines
from twisted_mta.agent.policies import GREYLIST
from twisted_mta.config import DNSBL, GreylistSettings, PolicySettings
from twisted_mta.testing import MemoryMTA

from .strangers import OFF, STRANGER, TAKEN, StrangersTestCase

DEFERRED = ["451 4.7.1"]


class Greylisting(StrangersTestCase):
    settings: ClassVar[dict[str, Any]] = {
        **StrangersTestCase.settings,
        "policy": OFF,
        "greylist": GreylistSettings(delay=300),
    }

    def file(self, mta: MemoryMTA) -> str:
        """Return the path of the file of what is remembered."""
        return os.path.join(mta.directory, GREYLIST)

    def pairs(self, mta: MemoryMTA) -> int:
        with closing(sqlite3.connect(self.file(mta))) as database:
            number: int = database.execute("SELECT count(*) FROM pair").fetchone()[0]
            return number


class Pairs(Greylisting):
    def test_it_is_off_by_default(self) -> None:
        mta = self.started(greylist=None)
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertFalse(os.path.exists(self.file(mta)))

    def test_the_first_attempt_is_deferred_and_one_after_the_delay_is_taken(self) -> None:
        mta = self.started()
        self.assertEqual(self.replies(mta), ["451 4.7.1 Greylisted, try again in 300 seconds"])
        mta.advance(200)
        self.assertEqual(self.replies(mta)[0][:43], "451 4.7.1 Greylisted, try again in 100 seco")
        mta.advance(101)
        log = logged_lines(self, "checked: ")
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertIn("greylist=pass (it was tried again)", log[0])
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertIn("greylist=pass (it has passed before)", log[1])
        for result in ("defer", "pass"):
            self.assertEqual(self.counted(mta, "greylist", result), 2, result)

    def test_clients_can_read_when_to_try_again(self) -> None:
        mta = self.started(greylist=GreylistSettings(delay=1800))
        reply = "451 4.7.1 Greylisted, try again in {}"
        self.assertEqual(self.replies(mta), [reply.format("1800 seconds")])
        mta.advance(1799)
        self.assertEqual(self.replies(mta), [reply.format("1 second")])

    def test_each_pair_waits_by_itself(self) -> None:
        mta = self.started()
        self.codes(mta)
        mta.advance(301)
        self.assertEqual(self.codes(mta, sender="eve@sender.example"), DEFERRED)
        self.assertEqual(self.codes(mta, "carol@us.example"), DEFERRED)
        self.assertEqual(self.codes(mta, source="198.51.100.1"), DEFERRED)
        self.assertEqual(
            self.codes(mta, "carol@us.example", "BOB@us.example"), ["451 4.7.1", *TAKEN]
        )

    def test_servers_of_a_network_and_numbered_senders_are_taken_together(self) -> None:
        mta = self.started()
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
        mta = self.started()
        for number in range(5):
            sender = f"{'abcde'[number]}@sender.example"
            self.assertEqual(self.codes(mta, sender=sender), DEFERRED)
            mta.advance(3_600)
            self.assertEqual(self.codes(mta, sender=sender), TAKEN)
        log = logged_lines(self, "checked: ")
        self.assertEqual(self.codes(mta, sender="new@other.example"), TAKEN)
        self.assertIn("greylist=pass (192.0.2.0/24 has passed often enough)", log[0])

    def test_what_is_known_survives_a_restart(self) -> None:
        mta = self.started()
        self.codes(mta)
        mta.advance(301)
        self.codes(mta)
        mta.restart()
        self.assertEqual(self.codes(mta), TAKEN)


class Exempt(Greylisting):
    def test_the_postmaster_and_clients_of_our_own_are_not_deferred(self) -> None:
        mta = self.started()
        codes = self.codes(mta, "postmaster@us.example", "bob@us.example")
        self.assertEqual(codes, ["250 2.1.5", "451 4.7.1", "250 2.0.0"])
        self.assertEqual(self.codes(mta, source=""), TAKEN)
        mta = self.started(relay_from=())
        self.assertEqual(self.codes(mta, source="127.0.0.1"), TAKEN)

    def test_what_the_allow_list_has_is_not_deferred(self) -> None:
        path = self.write("allow", "198.51.100.0/24\nsender.example\nto:abuse@us.example\n")
        mta = self.started(
            policy=PolicySettings(allow=path, dmarc="off", dkim="off"),
            zone=f'sender.example. TXT "v=spf1 ip4:{STRANGER} -all"',
        )
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(self.codes(mta, sender="eve@other.example"), DEFERRED)
        self.assertEqual(self.codes(mta, source="198.51.100.1", sender="x@y.example"), TAKEN)
        self.assertEqual(self.codes(mta, "abuse@us.example", sender="x@y.example"), TAKEN)

    def test_nothing_is_remembered_of_what_is_refused_otherwise(self) -> None:
        mta = self.started(
            dnsbl=(DNSBL(zone="zen.example"),),
            zone="7.2.0.192.zen.example. A 127.0.0.2",
            recipients="existing",
        )
        self.assertEqual(self.codes(mta), ["550 5.1.1"])
        self.assertEqual(self.codes(mta), ["550 5.1.1"])
        mta.files.make_directories(f"{mta.mta.config.maildir}/us.example/bob/new")
        self.assertEqual(self.codes(mta), ["550 5.7.1"])
        self.assertFalse(os.path.exists(self.file(mta)))


class Faults(Greylisting):
    def test_a_file_that_cannot_be_used_defers_nothing(self) -> None:
        mta = self.started()
        path = self.file(mta)
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write("no database" * 100)
        log = logged_lines(self, "greylisting cannot use its file, and defers nothing: ")
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(len(log), 1)

    def test_the_delay_changes_at_a_reload(self) -> None:
        mta = self.started()
        self.codes(mta)
        settings = GreylistSettings(delay=60)
        lines = self.successResultOf(mta.mta.reload(evolve(mta.mta.config, greylist=settings)))
        self.assertIn("[greylist] delay = 60.0; before: 300.0", lines)
        mta.advance(61)
        self.assertEqual(self.codes(mta), TAKEN)

    def test_explain_foretells_and_remembers_nothing(self) -> None:
        mta = self.started()
        for _ in range(2):
            (refusal,) = self.explained(mta, sender="x@y.example")["forecast"]["refusals"]
            reply = "451 4.7.1 Greylisted, try again in 300 seconds"
            self.assertEqual(refusal, {"policy": "greylist", "reply": reply})
            mta.advance(301)
        self.assertEqual(self.pairs(mta), 0)
