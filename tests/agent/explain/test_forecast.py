"""What explanations foretell of policies is what happens then."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.admin.explanation_text import lines
from twisted_mta.agent.explain.explainer import AddressQuery
from twisted_mta.config import Listener, PolicySettings

from .world import World

STRANGER = "192.0.2.7"
MESSAGE = b"From: ann@sender.example\r\nSubject: Hi\r\n\r\nHello.\r\n"
OFF = PolicySettings(spf="off", dkim="off", dmarc="off", arc="off")
ENFORCE = PolicySettings(spf="enforce", dmarc="enforce")


class Forecasts(TidyTestCase):
    def world(self, **settings: Any) -> World:
        world = World(
            self.mktemp(),
            addresses={"mx.sender.example": [STRANGER]},
            texts={
                "sender.example": [f"v=spf1 ip4:{STRANGER} -all"],
                "mx.sender.example": ["v=spf1 a -all"],
                "_dmarc.sender.example": ["v=DMARC1; p=reject"],
                "fails.example": ["v=spf1 -all"],
                "_dmarc.fails.example": ["v=DMARC1; p=reject"],
                "_dmarc.unsure.example": ["v=DMARC1; p=quarantine"],
            },
            pointers={STRANGER: ["mx.sender.example"]},
            **settings,
        )
        self.addCleanup(world.stop)
        return world

    def forecast(self, world: World, sender: str | None, **how: Any) -> dict[str, Any]:
        how.setdefault("client", STRANGER)
        found: dict[str, Any] = world.explain("bob@localhost", sender=sender, **how)["forecast"]
        return found

    def verdicts(self, forecast: dict[str, Any]) -> list[str]:
        return [f"{each['policy']}={each['result']}" for each in forecast["verdicts"]]

    def test_both_identities_the_reverse_name_and_dmarc_are_foretold(self) -> None:
        forecast = self.forecast(self.world(), "ann@sender.example", helo="mx.sender.example")
        self.assertEqual(
            forecast["verdicts"],
            [
                {
                    "policy": "spf",
                    "result": "pass",
                    "text": "smtp.helo=mx.sender.example: a of mx.sender.example",
                },
                {
                    "policy": "iprev",
                    "result": "pass",
                    "text": f"policy.iprev={STRANGER}: mx.sender.example",
                },
                {
                    "policy": "spf",
                    "result": "pass",
                    "text": f"smtp.mailfrom=ann@sender.example: ip4:{STRANGER} of sender.example",
                },
            ],
        )
        self.assertEqual(
            forecast["dmarc"],
            {
                "policy": "dmarc",
                "result": "pass",
                "text": "header.from=sender.example, p=reject at sender.example",
                "action": "none",
            },
        )
        self.assertEqual((forecast["stranger"], forecast["refusals"]), (True, []))

    def test_what_was_foretold_is_found_out_when_the_mail_comes(self) -> None:
        world = self.world()
        for sender in ("ann@sender.example", "eve@fails.example", ""):
            forecast = self.forecast(world, sender or None, helo="mx.sender.example")
            client = world.mta.connect(source=STRANGER, greet=False)
            client.say("EHLO mx.sender.example")
            client.mail(MESSAGE, "bob@localhost", sender=sender)
            client.say("QUIT")
            header = world.mta.mail("bob")[-1].partition(b"\n\n")[0].decode()
            field = header.partition("Authentication-Results: ")[2]
            found = [word for word in field.split() if word.startswith(("spf=", "iprev="))]
            self.assertEqual(found, self.verdicts(forecast), sender)

    def test_a_refusal_is_foretold_word_by_word(self) -> None:
        world = self.world(policy=ENFORCE)
        forecast = self.forecast(world, "eve@fails.example", helo="mx.sender.example")
        (refusal,) = forecast["refusals"]
        client = world.mta.connect(source=STRANGER, greet=False)
        client.say("EHLO mx.sender.example")
        reply = client.say("MAIL FROM:<eve@fails.example>")
        client.say("QUIT")
        self.assertEqual(refusal["policy"], "spf")
        self.assertEqual(refusal["reply"][:10], "550 5.7.23")
        self.assertEqual(
            refusal["reply"].split(),
            " ".join(reply)
            .replace("550-5.7.23 ", "")
            .replace("550 5.7.23 ", "550 5.7.23 ")
            .split(),
        )

    def test_the_greeting_is_by_default_the_confirmed_name_or_the_address(self) -> None:
        world = self.world()
        self.assertEqual(self.forecast(world, None)["helo"], "mx.sender.example")
        nameless = self.forecast(world, None, client="192.0.2.99")
        self.assertEqual(nameless["helo"], "[192.0.2.99]")
        self.assertEqual(self.verdicts(nameless), ["spf=none", "iprev=permerror"])

    def test_the_effect_of_dmarc_depends_on_settings(self) -> None:
        for settings, sender, action in (
            (ENFORCE, "eve@fails.example", "reject"),
            (ENFORCE, "eve@unsure.example", "quarantine"),
            (PolicySettings(), "eve@fails.example", "none"),
            (
                PolicySettings(dmarc="enforce", trusted_forwarders=(ip_network("192.0.2.0/24"),)),
                "eve@fails.example",
                "none",
            ),
        ):
            dmarc = self.forecast(self.world(policy=settings), sender)["dmarc"]
            self.assertEqual((dmarc["result"], dmarc["action"]), ("fail", action), settings)
        facts = self.world(policy=OFF).explain(
            "bob@localhost", client=STRANGER, sender="eve@fails.example"
        )
        self.assertIsNone(facts["forecast"]["dmarc"])
        self.assertIn("Policies: those about strangers are off.", self.text(facts))

    def test_nothing_is_foretold_of_clients_that_may_relay(self) -> None:
        world = self.world()
        facts = world.explain("bob@localhost", client="127.0.0.1", sender="eve@fails.example")
        self.assertEqual(facts["forecast"]["stranger"], False)
        self.assertEqual(facts["forecast"]["verdicts"], [])
        self.assertIn("Policies: 127.0.0.1 may relay, so that those", self.text(facts))

    def test_nothing_is_foretold_without_a_client_or_a_listener_for_strangers(self) -> None:
        world = self.world()
        self.assertIsNone(world.explain("bob@localhost", client=None)["forecast"])
        lmtp = Listener(kind="lmtp", endpoint="tcp:24:interface=127.0.0.1")
        world = self.world(listeners=(lmtp,))
        self.assertIsNone(world.explain("bob@localhost", client=STRANGER)["forecast"])

    def test_a_dns_failure_is_foretold_as_such(self) -> None:
        world = self.world()
        world.mta.resolver.fail("sender.example")
        world.mta.resolver.fail("_dmarc.sender.example")
        forecast = self.forecast(world, "ann@sender.example")
        self.assertEqual(self.verdicts(forecast)[-1], "spf=temperror")
        self.assertEqual(forecast["dmarc"]["result"], "temperror")
        self.assertEqual(forecast["refusals"], [])

    def test_a_silent_name_server_is_waited_for_briefly(self) -> None:
        world = self.world(policy=ENFORCE)
        for name in (STRANGER, "sender.example", "_dmarc.sender.example"):
            world.mta.resolver.hold(name)
        told: list[Any] = []
        query = AddressQuery(address="bob@localhost", client=STRANGER, sender="ann@sender.example")
        world.mta.mta.agent.explainer.address(query).addBoth(told.append)
        for _ in range(21):
            self.assertEqual(told, [])
            world.mta.advance(1.0)
        forecast = told[0]["forecast"]
        self.assertEqual(
            self.verdicts(forecast), ["spf=temperror", "iprev=temperror", "spf=temperror"]
        )
        self.assertEqual(forecast["dmarc"]["result"], "temperror")
        for name in (STRANGER, "sender.example", "_dmarc.sender.example"):
            world.mta.resolver.release(name)

    def text(self, facts: Any) -> str:
        return "\n".join(lines(json.loads(json.dumps(facts))))

    def test_the_tool_prints_it(self) -> None:
        facts = self.world(policy=ENFORCE).explain(
            "bob@localhost", client=STRANGER, sender="eve@fails.example"
        )
        self.assertIn(
            f"Policies, if {STRANGER} greets as mx.sender.example:\n"
            "  spf=pass (smtp.helo=mx.sender.example: a of mx.sender.example)\n"
            f"  iprev=pass (policy.iprev={STRANGER}: mx.sender.example)\n"
            "  spf=fail (smtp.mailfrom=eve@fails.example: -all of fails.example)\n"
            "  dmarc=fail (header.from=fails.example, p=reject at fails.example)\n"
            f"  Refused by spf: 550 5.7.23 {STRANGER} may not send mail of fails.example",
            self.text(facts),
        )
        self.assertIn(f"From the client {STRANGER} it is refused.", self.text(facts))
        self.assertIn(
            "  Mail with that domain in From, in which no DKIM signature passes, is refused,"
            " unless it has a List-Id.",
            self.text(facts),
        )


class Assessments(TidyTestCase):
    def test_what_was_found_out_about_a_queued_message_is_explained(self) -> None:
        world = World(
            self.mktemp(),
            addresses={"mx.sender.example": [STRANGER]},
            pointers={STRANGER: ["mx.sender.example"]},
            routes=(("localhost", "smtp://192.0.2.50"),),
        )
        self.addCleanup(world.stop)
        client = world.mta.connect(source=STRANGER, greet=False)
        client.say("EHLO mx.sender.example")
        reply = client.mail(MESSAGE, "bob@localhost", sender="ann@sender.example")
        client.say("QUIT")
        id = reply[-1].split()[-1]
        facts = world.explain_id(id)
        assert facts is not None, reply
        self.assertIn(
            {
                "policy": "iprev",
                "result": "pass",
                "text": f"policy.iprev={STRANGER}: mx.sender.example",
            },
            facts["assessment"]["verdicts"],
        )
        text = "\n".join(lines(json.loads(json.dumps(facts))))
        self.assertIn(f"iprev=pass (policy.iprev={STRANGER}: mx.sender.example)", text)
        self.assertIn("\nFound: spf=none (smtp.helo=mx.sender.example", text)
