"""Lists in the DNS (RFC 5782): what is looked up, and what its answers do to mail of strangers."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred

from tests.logs import logged_lines
from tests.mailflow.test_authentication import MESSAGE, STRANGER
from tests.tidy import TidyTestCase
from twisted_mta.agent.explain.explainer import AddressQuery
from twisted_mta.config import DNSBL, PolicySettings
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.resolver import FakeResolver

KEYED = "sesame.zen.example"
LISTED = f"7.2.0.192.{KEYED}"
OFF = PolicySettings(spf="off", dkim="off", dmarc="off", arc="off")
TAKEN = ["250 2.1.5", "250 2.0.0"]


def zen(**settings: Any) -> DNSBL:
    return DNSBL(**{"zone": KEYED, "name": "zen.example", **settings})


class WithLists(TidyTestCase):
    def mta(
        self,
        *lists: DNSBL,
        answers: list[str] | None = None,
        text: bytes = b"",
        policy: PolicySettings = OFF,
        more: dict[str, list[str]] | None = None,
        **settings: Any,
    ) -> MemoryMTA:
        self.resolver = FakeResolver(
            addresses={
                **({} if answers is None else {LISTED: answers}),
                f"bad.example.{KEYED}": ["127.0.1.2"],
                f"8.b.d.0.1.0.0.2.ip6.{KEYED}": [],
                **(more or {}),
            },
            texts={
                LISTED: [text] if text else [],
                "sender.example": [f"v=spf1 ip4:{STRANGER} -all"],
            },
        )
        mta = MemoryMTA(
            self.mktemp(),
            resolver=self.resolver,
            dnsbl=lists,
            policy=policy,
            **{"local_domains": ("us.example",), **settings},
        )
        self.addCleanup(mta.stop)
        mta.start()
        return mta

    def replies(
        self,
        mta: MemoryMTA,
        *recipients: str,
        sender: str = "ann@sender.example",
        helo: str = "mx.sender.example",
        source: str = STRANGER,
    ) -> list[str]:
        """Return the replies to each RCPT, and to the content if one was accepted."""
        client = mta.connect(source=source, greet=False)
        client.say(f"EHLO {helo}")
        client.say(f"MAIL FROM:<{sender}>")
        replies = []
        for each in recipients or ("bob@us.example",):
            replies += client.say(f"RCPT TO:<{each}>")
        if any(each.startswith("250") for each in replies):
            client.say("DATA")
            replies += client.send(MESSAGE + b".\r\n")[-1:]
        return replies

    def codes(self, mta: MemoryMTA, *recipients: str, **how: Any) -> list[str]:
        return [each[:9] for each in self.replies(mta, *recipients, **how)]

    def asked(self) -> list[str]:
        return [name for type, name in self.resolver.lookups if name.endswith(".example")]


class Hits(WithLists):
    def test_a_client_that_is_listed_is_refused_at_rcpt_with_the_words_of_the_list(self) -> None:
        text = f"Listed, see https://ZEN.example/?q=1 {KEYED.upper()} \r\n\xff".encode("latin-1")
        mta = self.mta(zen(), answers=["127.0.0.2"], text=text)
        log = logged_lines(self)
        replies = self.replies(mta)
        self.assertEqual(
            replies,
            [
                f"550-5.7.1 {STRANGER} is listed by zen.example",
                "550 5.7.1 zen.example says: Listed, see https://ZEN.example/?q=1 zen.example"
                " \\r\\n\\ufffd",
            ],
        )
        self.assertIn(f"refused by dnsbl: client {STRANGER}: 550 5.7.1", "\n".join(log))
        self.assertNotIn("sesame", "\n".join(log).lower())
        counted = mta.mta.agent.metrics.snapshot()
        self.assertEqual(counted.total(table.POLICY_VERDICTS, policy="dnsbl", result="refuse"), 1)

    def test_a_text_is_bounded(self) -> None:
        mta = self.mta(zen(), answers=["127.0.0.2"], text=b"x" * 5_000)
        self.assertLess(max(map(len, self.replies(mta))), 300)

    def test_a_client_that_is_not_listed_is_not_refused(self) -> None:
        self.assertEqual(self.codes(self.mta(zen())), TAKEN)
        self.assertIn(LISTED, self.asked())

    def test_a_hit_may_defer_or_mark(self) -> None:
        mta = self.mta(zen(action="defer"), answers=["127.0.0.2"])
        self.assertEqual(self.codes(mta), ["451 4.7.1"])
        mta = self.mta(zen(action="mark"), answers=["127.0.0.4", "127.0.0.2"])
        log = logged_lines(self, "checked: ")
        self.assertEqual(self.codes(mta), TAKEN)
        (mail,) = mta.mail("bob", "us.example")
        expected = f"\nX-Listed-By: zen.example; client={STRANGER}; answer=127.0.0.2,127.0.0.4\n"
        self.assertIn(expected.encode(), mail)
        self.assertNotIn(b"sesame", mail)
        verdict = f"dnsbl=mark ({STRANGER} is listed by zen.example: 127.0.0.2, 127.0.0.4)"
        self.assertIn(verdict, log[0])

    def test_only_answers_that_mean_a_listing_are_hits(self) -> None:
        for answer in ("127.0.0.1", "127.0.1.255", "192.0.2.1", "127.255.255.254"):
            self.assertEqual(self.codes(self.mta(zen(), answers=[answer])), TAKEN, answer)
        for answer in ("127.0.0.2", "127.0.0.255", "127.255.254.1"):
            self.assertEqual(self.codes(self.mta(zen(), answers=[answer]))[0][:3], "550", answer)
        some = zen(answers=["127.0.0.2/31", "127.0.0.10"])
        for answer, code in (("127.0.0.3", "550"), ("127.0.0.10", "550"), ("127.0.0.4", "250")):
            self.assertEqual(self.codes(self.mta(some, answers=[answer]))[0][:3], code, answer)
        mta = self.mta(some, answers=["127.0.0.4", "127.0.0.10"])
        self.assertEqual(self.codes(mta), ["550 5.7.1"])

    def test_domains_of_senders_and_names_in_ehlo_are_looked_up(self) -> None:
        mta = self.mta(zen(of="sender"))
        self.assertEqual(
            self.replies(mta, sender="x@BAD.example.")[0],
            "550 5.7.1 bad.example is listed by zen.example",
        )
        self.assertEqual(self.codes(mta, sender=""), TAKEN)
        self.assertEqual(self.codes(mta, helo="bad.example"), TAKEN)
        mta = self.mta(zen(of="helo"))
        self.assertEqual(self.codes(mta, helo="bad.example"), ["550 5.7.1"])
        self.resolver.lookups.clear()
        for helo in ("[192.0.2.7]", "192.0.2.7", "friend", "a_b@c", "x" * 64 + ".example"):
            self.codes(mta, helo=helo)
        self.assertEqual(self.asked(), [])

    def test_each_name_of_a_client_is_looked_up_anew(self) -> None:
        mta = self.mta(zen(of="helo"))
        client = mta.connect(source=STRANGER, greet=False)
        codes = []
        for helo in ("good.example", "bad.example", "good.example"):
            client.say(f"EHLO {helo}", "MAIL FROM:<ann@sender.example>")
            codes.append(client.say("RCPT TO:<bob@us.example>")[-1][:3])
        self.assertEqual(codes, ["250", "550", "250"])

    def test_an_address_of_ipv6_is_looked_up_by_nibbles(self) -> None:
        name = "1." + "0." * 23 + f"8.b.d.0.1.0.0.2.{KEYED}"
        mta = self.mta(zen(), more={name: ["127.0.0.2"]})
        self.assertEqual(self.codes(mta, source="2001:db8::1"), ["550 5.7.1"])
        self.assertEqual(self.codes(mta, source="2001:db8::2"), TAKEN)
        mta = self.mta(zen(), answers=["127.0.0.2"])
        self.assertEqual(self.codes(mta, source=f"::ffff:{STRANGER}"), ["550 5.7.1"])

    def test_clients_of_our_own_are_not_looked_up(self) -> None:
        everything = {f"1.0.0.127.{KEYED}": ["127.0.0.2"], f"8.2.0.192.{KEYED}": ["127.0.0.2"]}
        mta = self.mta(
            zen(), zen(of="helo"), more=everything, relay_from=(ip_network("192.0.2.8"),)
        )
        self.resolver.lookups.clear()
        self.assertEqual(self.codes(mta, source="192.0.2.8", helo="bad.example"), TAKEN)
        # Loopback, where it may not relay: a proxy without XCLIENT.
        self.assertEqual(self.codes(mta, source="127.0.0.1", helo="bad.example"), TAKEN)
        self.assertEqual([each for each in self.asked() if KEYED in each], [])

    def test_the_postmaster_is_reached_from_listed_clients(self) -> None:
        mta = self.mta(zen(), answers=["127.0.0.2"])
        codes = self.codes(mta, "postmaster@us.example", "bob@us.example")
        self.assertEqual(codes, ["250 2.1.5", "550 5.7.1", "250 2.0.0"])


class Exempt(WithLists):
    def allowing(self, entries: str, **settings: Any) -> MemoryMTA:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(entries)
        policy = PolicySettings(allow=path, dmarc="off", arc="off")
        return self.mta(zen(**settings), answers=["127.0.0.2"], policy=policy)

    def test_a_client_on_the_allow_list_is_not_even_looked_up(self) -> None:
        mta = self.allowing(STRANGER)
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertNotIn(LISTED, self.asked())

    def test_a_sender_on_the_allow_list_is_exempt_with_proof(self) -> None:
        for action in ("refuse", "mark"):
            mta = self.allowing("sender.example\nother.example\n", action=action)
            self.assertEqual(self.codes(mta), TAKEN)
            codes = self.codes(mta, sender="x@other.example")
            expected = "550 5.7.1" if action == "refuse" else "250 2.0.0"
            self.assertEqual(codes, ["250 2.1.5", expected])
            marks = [b"X-Listed-By" in each for each in mta.mail("bob", "us.example")]
            self.assertEqual(marks, [False] if action == "refuse" else [False, True])


class Faults(WithLists):
    def test_a_list_that_is_silent_or_fails_refuses_nothing(self) -> None:
        mta = self.mta(zen(), DNSBL(zone="other.example"), answers=["127.0.0.2"])
        log = logged_lines(self, "the list ")
        self.resolver.fail(LISTED, f"SERVFAIL at {KEYED}")
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(self.codes(mta), TAKEN)
        (line,) = log
        self.assertEqual(
            line,
            "the list zen.example does not answer: A of 7.2.0.192.zen.example: SERVFAIL at"
            " zen.example",
        )
        self.resolver.mend(LISTED)
        self.resolver.hold(LISTED)
        client = mta.connect(source=STRANGER)
        client.say("MAIL FROM:<ann@sender.example>")
        self.assertEqual(client.say("RCPT TO:<bob@us.example>"), [])
        mta.advance(5.1)
        self.assertEqual(client.heard()[0][:9], "250 2.1.5")
        counted = mta.mta.agent.metrics.snapshot()
        failed = counted.total(table.POLICY_VERDICTS, policy="dnsbl", result="temperror")
        self.assertEqual(failed, 3)
        self.resolver.release(LISTED)

    def test_a_refused_query_is_logged_once_an_hour_and_is_no_hit(self) -> None:
        mta = self.mta(zen(), answers=["127.255.255.254"])
        log = logged_lines(self, "the list ")
        for _ in range(3):
            self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(len(log), 1)
        self.assertIn("zen.example refuses our queries: it answers 127.255.255.254", log[0])
        mta.advance(3601)
        self.assertEqual(self.codes(mta), TAKEN)
        self.assertEqual(len(log), 2)

    def test_lists_are_asked_at_the_same_time_and_from_the_connection_on(self) -> None:
        lists = [DNSBL(zone=f"l{number}.example") for number in range(3)]
        mta = self.mta(*lists)
        names = [f"7.2.0.192.l{number}.example" for number in range(3)]
        for name in names:
            self.resolver.hold(name)
        client = mta.connect(source=STRANGER, greet=False)
        asked = [name for _, name in self.resolver.lookups if name in names]
        self.assertEqual(asked, names)
        client.say("EHLO x", "MAIL FROM:<ann@sender.example>")
        self.assertEqual(client.say("RCPT TO:<bob@us.example>"), [])
        for name in names:
            self.resolver.release(name)
        mta.reactor.settle()
        self.assertEqual(client.heard()[0][:9], "250 2.1.5")

    def test_a_client_that_leaves_leaves_nothing_behind(self) -> None:
        mta = self.mta(zen())
        self.resolver.hold(LISTED)
        client = mta.connect(source=STRANGER)
        client.say("MAIL FROM:<ann@sender.example>", "RCPT TO:<bob@us.example>")
        client.transport.abortConnection()
        mta.reactor.settle()
        self.resolver.release(LISTED)
        mta.advance(10)

    def test_an_unknown_recipient_is_refused_without_waiting(self) -> None:
        mta = self.mta(zen(), recipients="existing")
        self.resolver.hold(LISTED)
        self.assertEqual(self.codes(mta), ["550 5.1.1"])
        self.resolver.release(LISTED)


class Foretold(WithLists):
    def test_explain_tells_of_hits_without_the_zone(self) -> None:
        mta = self.mta(
            zen(),
            DNSBL(zone=KEYED, name="zen.example", of="sender", action="mark"),
            answers=["127.0.0.2"],
        )
        query = AddressQuery(address="bob@us.example", client=STRANGER, sender="x@bad.example")
        explaining: Deferred[Any] = mta.mta.agent.explainer.address(query)
        mta.reactor.settle()
        facts = self.successResultOf(explaining)
        self.assertEqual(
            facts["forecast"]["refusals"],
            [{"policy": "dnsbl", "reply": f"550 5.7.1 {STRANGER} is listed by zen.example"}],
        )
        self.assertNotIn("sesame", str(facts))
