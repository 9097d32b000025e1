"""Explanations of addresses and messages: their facts and their words."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from typing import Any

from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.admin.explanation import explain_query, merged_explanations
from twisted_mta.admin.explanation_text import following, lines
from twisted_mta.admin.queue_answers import list_messages
from twisted_mta.config import Destination, ReplyAction, SourceAddress, SourcePool
from twisted_mta.config.amounts import Rate
from twisted_mta.mail.tlsa import TLSA
from twisted_mta.testing.memory_mta import EPOCH

from .world import World

CONTENT = b"Subject: Hi\r\n\r\nHi.\r\n"


class ExplainerTestCase(TidyTestCase):
    def world(self, **settings: Any) -> World:
        settings.setdefault("local_domains", ("localhost", "us.example"))
        settings.setdefault(
            "mail_exchangers", {"a.example": [(20, "mx2.host"), (10, "mx1.host"), (10, "mx.us")]}
        )
        settings.setdefault("addresses", {"mx1.host": ["192.0.2.1"], "mx2.host": ["192.0.2.2"]})
        world = World(self.mktemp(), **settings)
        self.addCleanup(world.stop)
        return world

    def text(self, facts: Any) -> str:
        return "\n".join(lines(json.loads(json.dumps(facts))))


class Addresses(ExplainerTestCase):
    def test_mail_for_a_local_mailbox_goes_to_its_maildir(self) -> None:
        world = self.world()
        facts = world.explain("Ann+tag@LOCALHOST", client=None)
        self.assertEqual((facts["mailbox"], facts["where"]), ("Ann+tag@localhost", "local"))
        (recipient,) = facts["recipients"]
        self.assertEqual(recipient["way"]["rule"], "local domain localhost")
        self.assertTrue(recipient["way"]["maildir"].endswith("/localhost/ann"))
        self.assertIn("Route: maildir (local domain localhost)", self.text(facts))

    def test_an_explanation_names_troubles_of_the_whole_mta(self) -> None:
        facts = self.world().explain("ann@localhost", client=None)
        troubles = [{"text": "12 octets are free"}, {"text": "no log"}]
        text = self.text({**facts, "unready": "12 octets are free", "troubles": troubles})
        self.assertIn("\n\nNo mail is accepted now: 12 octets are free\nTrouble: no log", text)

    def test_aliases_are_explained_step_by_step_and_a_loop_is_cut(self) -> None:
        world = self.world(aliases="staff: ann, all\nall: staff, eve@a.example\n")
        facts = world.explain("staff@us.example", client=None, sender="s@elsewhere.example")
        self.assertEqual(
            [(each["depth"], each["mailbox"], each["finding"]) for each in facts["steps"]],
            [
                (0, "staff@us.example", "alias"),
                (1, "ann@us.example", "mailbox"),
                (1, "all@us.example", "alias"),
                (2, "staff@us.example", "itself"),
                (2, "eve@a.example", "elsewhere"),
            ],
        )
        text = self.text(facts)
        self.assertIn("  <staff@us.example>: alias in line 1: <ann@us.example>", text)
        self.assertIn("Reverse-path: becomes <SRS0=", text)

    def test_an_alias_to_the_null_device_is_explained_as_discarded(self) -> None:
        world = self.world(aliases="noreply: /dev/null\n", recipients="existing")
        facts = world.explain("noreply@us.example", client=None, sender="s@elsewhere.example")
        self.assertIsNone(facts["refused"])
        text = self.text(facts)
        self.assertIn("<noreply@/dev/null>: the mail is accepted and dropped", text)
        self.assertIn("Route: discard (alias to /dev/null)", text)
        self.assertIn("Discarded: the mail is accepted and dropped", text)
        self.assertNotIn("SRS", text)

    def test_members_of_an_alias_that_do_not_exist_are_named(self) -> None:
        aliases = "carol: carol, carol@a.example\nteam: carol, ghost, eve\ndead: ghost\n"
        aliases += "owner-team: carol\n"
        world = self.world(
            aliases=aliases, recipients="existing", local_domains=("us.example", "localhost")
        )
        for client in (None, "192.0.2.7"):
            text = self.text(world.explain("carol@us.example", client=client))
            self.assertIn("  <carol@us.example>: no such mailbox", text)
            self.assertIn(
                "To <carol@us.example>:\n  Refused: 550 5.1.1 No such mailbox here\n"
                "  The others get the mail, and the sender a notice.",
                text,
            )
            self.assertIn("To <carol@a.example>:", text)
        facts = world.explain("team@us.example", client=None)
        self.assertIsNone(facts["refused"])
        self.assertEqual(
            [(each["mailbox"], each["refused"] is None) for each in facts["recipients"]],
            [
                ("carol@us.example", False),
                ("carol@a.example", True),
                ("ghost@us.example", False),
                ("eve@us.example", False),
            ],
        )
        self.assertIn("and <owner-team@us.example> a notice", self.text(facts))
        self.assertIn("550 5.1.1", world.explain("dead@us.example", client=None)["refused"])
        refusing = self.world(aliases=aliases, recipients="existing", missing_members="refuse")
        self.assertIn("550 5.1.1", refusing.explain("carol@us.example")["refused"])

    def test_a_refusal_depends_on_whether_the_client_may_relay(self) -> None:
        world = self.world(aliases="x: y@a.example\n", relay_from=("192.0.2.0/24",))
        for address, client, refused in (
            ("b@a.example", "192.0.2.7", None),
            ("b@a.example", "198.51.100.7", "550 5.7.1 Relaying denied"),
            ("ann@localhost", "198.51.100.7", None),
        ):
            self.assertEqual(world.explain(address, client=client)["refused"], refused)

    def test_a_mailbox_that_does_not_exist_is_not_called_a_mailbox(self) -> None:
        text = self.text(self.world(recipients="existing").explain("nobody@us.example"))
        self.assertIn("<nobody@us.example>: a name in a local domain.", text)
        self.assertIn("Refused at RCPT: 550 5.1.1", text)

    def test_a_name_whose_mail_goes_elsewhere_is_not_called_a_mailbox(self) -> None:
        world = self.world(
            local_domains=("us.example", "gateway.example", "hole.example"),
            routes=(("gateway.example", "smtp://192.0.2.9"), ("hole.example", "discard:")),
            aliases="team: ann, eve@gateway.example, ann@hole.example\n",
        )
        for name in ("ann@gateway.example", "ann@hole.example", "team@us.example"):
            self.assertIn(f"<{name}>: a name in a local domain.", self.text(world.explain(name)))
        text = self.text(world.explain("team@us.example"))
        self.assertIn("<ann@us.example>: a mailbox here", text)
        self.assertIn("<eve@gateway.example>: no alias, and a route for its domain: relayed", text)
        self.assertIn("<ann@hole.example>: no alias, and a route for its domain: the mail is", text)
        text = self.text(world.explain("new@us.example"))
        self.assertIn("<new@us.example>: a mailbox of a local domain.", text)
        self.assertIn("/us.example/new (made with its first message)", text)

    def test_exchangers_are_listed_in_order_with_why_some_are_passed_over(self) -> None:
        world = self.world(
            mail_exchangers={
                "a.example": [
                    (30, "mx3.host"),
                    (10, "mx1.host"),
                    (20, "gone.host"),
                    (40, "1.2.3.4"),
                ]
            },
            addresses={"mx1.host": ["192.0.2.1"], "mx3.host": ["192.0.2.3"]},
        )
        (recipient,) = world.explain("b@a.example")["recipients"]
        way = recipient["way"]
        self.assertEqual(
            [(each["preference"], each["host"], each["problem"]) for each in way["exchangers"]],
            [
                (10, "mx1.host", ""),
                (20, "gone.host", "A of gone.host: no such domain"),
                (30, "mx3.host", ""),
                (40, "1.2.3.4", "not a valid name of an exchanger"),
            ],
        )
        self.assertEqual([each["host"] for each in way["targets"]], ["mx1.host", "mx3.host"])

    def test_a_negative_answer_of_the_dns_is_explained(self) -> None:
        facts = self.world().explain("b@nowhere.example")
        failure = facts["recipients"][0]["way"]["failure"]
        self.assertEqual(failure, "550 5.1.2 The domain nowhere.example does not exist")
        self.assertIn(f"No target: {failure}", self.text(facts))


class TLSLevels(ExplainerTestCase):
    def level(self, world: World, address: str = "b@a.example") -> tuple[str, str]:
        tls = world.explain(address)["recipients"][0]["way"]["targets"][0]["tls"]
        return tls["level"], tls["from"]

    def test_the_tls_level_and_the_setting_it_comes_from_are_named(self) -> None:
        """RFC 3207 §4.1, §6."""
        for destination, route, expected in (
            (None, None, ("may", "default")),
            (
                Destination(domain="a.example", tls="encrypt"),
                None,
                ("encrypt", "[[destination]] a.example"),
            ),
            (Destination(domain="*", tls="none"), None, ("none", "[[destination]] *")),
            (
                Destination(domain="mx1.host", tls="verify"),
                "smtp://mx1.host",
                ("verify", "[[destination]] mx1.host"),
            ),
            (None, "smtps://mx1.host", ("encrypt", "smtps: in the route")),
            (None, "lmtp+unix:/run/lmtp", ("none", "a socket of this machine")),
        ):
            world = self.world(
                destinations=() if destination is None else (destination,),
                routes=() if route is None else (("a.example", route),),
            )
            self.assertEqual(self.level(world), expected)

    def test_tls_is_required_of_a_host_that_used_it_before(self) -> None:
        destination = Destination(domain="a.example", tls_memory="require")
        world = self.world(destinations=(destination,))
        world.mta.mta.agent.memory.remember("mx1.host", 25)
        self.assertEqual(
            self.level(world),
            (
                "encrypt",
                "tls_memory = require ([[destination]] a.example): TLS was used with it before",
            ),
        )

    def test_dane_is_named_with_the_name_of_its_records_and_since_when(self) -> None:
        world = self.world()
        dns = world.mta.resolver
        dns.signed = ("example", "host")
        dns.tlsa_records["_25._tcp.mx1.host"] = [TLSA(3, 1, 1, bytes(32))]
        for _ in range(2):
            facts = world.explain("b@a.example")
            tls = facts["recipients"][0]["way"]["targets"][0]["tls"]
            self.assertEqual(
                (tls["level"], tls["from"], tls["since"], tls["problem"]),
                ("dane", "DANE: _25._tcp.mx1.host", EPOCH, None),
            )
            world.mta.advance(100)  # since when this process has seen the records
        self.assertIn("TLS dane (DANE: _25._tcp.mx1.host, since 2027-01-15", self.text(facts))

    def test_a_host_that_is_not_used_now_is_named_with_the_reason(self) -> None:
        world = self.world()
        world.mta.resolver.signed = ("example", "host")
        world.mta.resolver.fail("_25._tcp.mx1.host")
        text = self.text(world.explain("b@a.example"))
        self.assertIn("; not now: its TLSA records cannot be looked up", text)


class Messages(ExplainerTestCase):
    def queued(self, world: World, address: str = "b@a.example") -> tuple[str, Any]:
        id = world.mta.submit_by_smtp(CONTENT, address, sender="s@sender.example").split()[-1]
        return id, world.explain_id(id)

    def test_a_message_with_a_deadline_expires_then(self) -> None:
        world = self.world()
        client = world.mta.connect()
        client.say("EHLO c.example", "MAIL FROM:<s@sender.example> BY=900;R")
        client.say("RCPT TO:<b@a.example>", "DATA")
        (answer,) = client.send(CONTENT + b".\r\n")
        id = answer.split()[-1]
        facts = world.explain_id(id)
        assert facts is not None, answer
        (recipient,) = facts["recipients"]
        for each in (facts, recipient):
            self.assertAlmostEqual(each["expires_at"], facts["received_at"] + 900, delta=2)
        self.assertIn("(in 15 min", self.text(facts))

    def test_a_recipient_that_waits_for_a_limit_is_tried_as_soon_as_it_allows(self) -> None:
        facts = {"holds": [], "next_attempt": 100.0, "expires_at": 200.0}
        self.assertIn("tried at once.", following(facts, 150.0))
        for kind in ("connections", "concurrency", "limits"):
            said = following({**facts, "holds": [{"kind": kind}]}, 150.0)
            self.assertIn("tried as soon as a limit allows it.", said)

    def test_a_domain_at_a_provider_is_explained_with_the_limits_of_all(self) -> None:
        world = self.world(
            destinations=(Destination(exchanger=".host", connections=2),),
            mail_exchangers={"a.example": [(10, "mx1.host")]},
        )
        world.serve("192.0.2.1", offers_tls=False, answer=b"451 4.7.1 Not now\r\n")
        facts = world.explain("bob@a.example", client=None)
        text = self.text(facts)
        self.assertIn("limits and suspension are those of all domains at exchanger .host", text)
        self.assertIn("connections 2 ([[destination]] exchanger .host)", text)
        _, facts = self.queued(world)
        (recipient,) = facts["recipients"]
        self.assertEqual(recipient["way"]["standings"][0]["name"], "smtp:exchanger=.host")

    def test_an_account_with_tokens_is_explained_before_mail_has_needed_one(self) -> None:
        token = os.path.abspath(self.mktemp())
        with open(token, "w", encoding="utf-8") as file:
            file.write("t0ken\n")
        os.chmod(token, 0o600)
        login = Destination(domain="192.0.2.1:587", username="us", token_file=token)
        world = self.world(destinations=(login,), routes=(("a.example", "smtp://192.0.2.1:587"),))
        text = self.text(world.explain("bob@a.example", client=None))
        self.assertIn(f"Token: of us, from {token}: none yet, the next mail asks for one", text)

    def test_the_source_pool_and_its_messages_of_today_are_explained(self) -> None:
        today = datetime.fromtimestamp(EPOCH, UTC).date()
        first = SourceAddress(address="192.0.2.77", helo="out1.example")
        second = SourceAddress(address="192.0.2.78", warm_up=[1, 5], warm_up_since=today)
        world = self.world(
            source_pools=(SourcePool(name="bulk", address=(second, first)),),
            destinations=(Destination(domain="a.example", source_pool="bulk"),),
        )
        world.serve("192.0.2.1", offers_tls=False)
        text = self.text(world.explain("bob@a.example", client=None))
        self.assertIn("source pool bulk ([[destination]] a.example)", text)
        self.assertIn("Source pool bulk:", text)
        self.assertIn("192.0.2.77 (out1.example): no limit", text)
        self.assertIn("192.0.2.78: 0 of 1 message today", text)
        self.queued(world)
        text = self.text(world.explain("bob@a.example", client=None))
        until = f"{today + timedelta(days=1)} 00:00 UTC"
        self.assertIn(f"192.0.2.78: its 1 message of today is used up, until {until}", text)

    def test_the_action_for_the_last_reply_is_explained(self) -> None:
        action = ReplyAction(pattern="greylisted", action="defer", duration="1 h")
        world = self.world(reply_actions=(action,))
        world.serve("192.0.2.1", offers_tls=False, answer=b"451 4.7.1 Greylisted\r\n")
        _, facts = self.queued(world)
        self.assertIn(
            '[[reply_action]] for that reply: pattern = "greylisted", action = "defer", duration ='
            ' "1 h"',
            self.text(facts),
        )
        (recipient,) = facts["recipients"]
        self.assertAlmostEqual(recipient["next_attempt"], facts["now"] + 3600, delta=60)

    def test_mail_that_waits_for_a_rate_is_not_in_delivery_and_has_a_time(self) -> None:
        world = self.world(destinations=(Destination(domain="a.example", rate=Rate(1, 600.0)),))
        world.serve("192.0.2.1", offers_tls=False)
        sent_at = world.mta.wall_time()
        self.queued(world)
        for count in range(1, 4):
            _, facts = self.queued(world)
            (recipient,) = facts["recipients"]
            self.assertEqual([each["kind"] for each in recipient["holds"]], ["limits"])
            self.assertAlmostEqual(recipient["next_attempt"], sent_at + 600 * count, delta=10)
            text = self.text(facts)
            self.assertIn("It waits for the rate limit 1/10 min.", text)
            self.assertIn(f", in {count}0 min.", text)
        agent = world.mta.mta.agent
        assert agent is not None
        listing = Deferred.fromCoroutine(
            list_messages(agent, agent.shards[0], filters={}, after=-1, limit=10)
        )
        world.reactor.settle()
        messages = self.successResultOf(listing)["messages"]
        self.assertEqual(len(messages), 3)
        for count, message in enumerate(messages, 1):
            (entry,) = message["recipients"]
            self.assertEqual((entry["in_delivery"], entry["waiting"]), (False, True))
            self.assertAlmostEqual(entry["expected_at"], sent_at + 600 * count, delta=10)

    def test_a_greylisted_recipient_is_explained(self) -> None:
        world = self.world()
        world.serve("192.0.2.1", offers_tls=False, answer=b"451 4.7.1 Greylisted\x1b\r\n")
        _, facts = self.queued(world)
        (recipient,) = facts["recipients"]
        self.assertEqual((recipient["state"], recipient["tried"]), ("deferred", 1))
        self.assertEqual([each["kind"] for each in recipient["holds"]], ["retry"])
        (attempt,) = recipient["attempts"]
        self.assertEqual(attempt["remote"], "mx1.host[192.0.2.1]:25")
        self.assertIn("S: 451 4.7.1 Greylisted\\x1b", attempt["conversation"])
        text = self.text(facts)
        self.assertIn("mx1.host[192.0.2.1]:25 replied: 451 4.7.1 Greylisted\\x1b.", text)
        self.assertNotIn("\x1b", text)
        self.assertRegex(text, r"Next: tried \S+ \S+, in [45] min")

    def test_an_attempt_names_its_tls(self) -> None:
        world = self.world()
        world.serve("192.0.2.1", answer=b"451 4.7.1 Later\r\n")
        _, facts = self.queued(world)
        (attempt,) = facts["recipients"][0]["attempts"]
        self.assertEqual(attempt["tls"]["version"], "TLSv1.3")
        self.assertIn("(TLSv1.3): 451 4.7.1 Later", self.text(facts))
        self.assertTrue([each for each in attempt["conversation"] if each.startswith("* TLSv1.3")])

    def test_a_suspended_next_hop_is_explained(self) -> None:
        world = self.world()
        _, facts = self.queued(world)
        (recipient,) = facts["recipients"]
        self.assertEqual([each["kind"] for each in recipient["holds"]], ["retry", "suspended"])
        text = self.text(facts)
        self.assertIn("Its next hop is suspended: none of its hosts could be used.", text)
        self.assertIn("Now: suspended for 5 min", text)
        _, facts = self.queued(world)
        (recipient,) = facts["recipients"]
        self.assertEqual(recipient["tried"], 0)
        self.assertEqual([each["kind"] for each in recipient["holds"]], ["suspended"])

    def test_a_message_that_is_not_in_the_queue_has_no_explanation(self) -> None:
        self.assertIsNone(self.world().explain_id("0000000000001"))


class Queries(TidyTestCase):
    def test_an_operator_asks_by_id_or_by_address(self) -> None:
        self.assertEqual(explain_query("1m81arnjn5bhj"), {"id": "1M81ARNJN5BHJ"})
        for what in ("a@b.example", "<a@b.example>", "postmaster", '"a b"@[192.0.2.1]'):
            self.assertEqual(explain_query(what)["address"], what)
        self.assertEqual(explain_query("a@b", client="2001:DB8::1")["client"], "2001:db8::1")
        self.assertEqual(explain_query("a@b", client="::1", helo="mx")["helo"], "mx")
        for null in ("", "<>"):
            self.assertIsNone(explain_query("a@b", sender=null)["sender"])

    def test_a_text_that_is_neither_id_nor_address_is_refused(self) -> None:
        for what, more in (
            ("x\x1b", {}),
            ("a@", {}),
            ("<a@b", {}),
            ("a@b.example", {"client": "mx"}),
            ("a@b.example", {"sender": "x"}),
            ("a@b.example", {"helo": "x"}),
        ):
            with self.assertRaises(ValueError) as caught:
                explain_query(what, **more)
            self.assertNotIn("\x1b", str(caught.exception))

    def test_the_merged_explanation_has_the_state_of_next_hops_in_each_worker(self) -> None:
        def answer(active: int) -> dict[str, Any]:
            way = {"next_hop": "smtp:x", "standings": [{"active": active}]}
            return {"recipients": [{"way": way}]}

        found = merged_explanations([(0, answer(1)), (1, answer(2)), (2, None)])
        assert found is not None
        self.assertEqual(
            found["recipients"][0]["way"]["standings"],
            [{"active": 1, "worker": 0}, {"active": 2, "worker": 1}],
        )
        self.assertIsNone(merged_explanations([(0, None)]))

    def test_the_merged_explanation_of_a_message_knows_what_waits_in_each_worker(self) -> None:
        def answer(*kinds: str) -> dict[str, Any]:
            recipients = [
                {"number": number, "holds": [{"kind": kind}], "way": None}
                for number, kind in enumerate(kinds)
            ]
            return {"id": "1M81ARNJN5BHJ", "recipients": recipients}

        found = merged_explanations(
            [
                (0, answer("delivery", "limits", "delivery")),
                (1, answer("turn", "delivery", "delivery")),
            ]
        )
        assert found is not None
        kinds = [hold["kind"] for each in found["recipients"] for hold in each["holds"]]
        self.assertEqual(kinds, ["turn", "limits", "delivery"])
