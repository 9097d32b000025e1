"""Lists in the DNS (RFC 5782): what is looked up, and what its answers do to mail of strangers."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from tests.logs import logged_lines
from twisted_mta.config import DNSBL, PolicySettings
from twisted_mta.testing import MemoryMTA

from .strangers import OFF, STRANGER, TAKEN, StrangersTestCase

KEYED = "sesame.zen.example"
LISTED = f"7.2.0.192.{KEYED}"


def zen(**settings: Any) -> DNSBL:
    return DNSBL(**{"zone": KEYED, "name": "zen.example", **settings})


def listed(*answers: str, name: str = LISTED) -> str:
    """Return the records of a name that is listed; by default that of the stranger."""
    return "".join(f"{name}. A {answer}\n" for answer in answers)


class WithLists(StrangersTestCase):
    zone = f"""
        sender.example.       TXT "v=spf1 ip4:{STRANGER} -all"
        bad.example.{KEYED}.  A   127.0.1.2
    """

    def mta(self, *lists: DNSBL, **settings: Any) -> MemoryMTA:
        return self.started(dnsbl=lists, **{"policy": OFF, **settings})

    def asked(self) -> list[str]:
        return [name for type, name in self.resolver.lookups if name.endswith(".example")]


class Hits(WithLists):
    def test_a_client_that_is_listed_is_refused_at_rcpt_with_the_words_of_the_list(self) -> None:
        text = rf"Listed, see https://ZEN.example/?q=1 {KEYED.upper()} \013\010\255"
        mta = self.mta(zen(), zone=f'{listed("127.0.0.2")}{LISTED}. TXT "{text}"')
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
        self.assertEqual(self.counted(mta, "dnsbl", "refuse"), 1)

    def test_a_text_is_bounded(self) -> None:
        text = f"{LISTED}. TXT {' '.join(['x' * 250] * 20)}"
        mta = self.mta(zen(), zone=f"{listed('127.0.0.2')}{text}")
        self.assertLess(max(map(len, self.replies(mta))), 300)

    def test_a_client_that_is_not_listed_is_not_refused(self) -> None:
        self.assertEqual(self.codes(self.mta(zen())), TAKEN)
        self.assertIn(LISTED, self.asked())

    def test_a_hit_may_defer_or_mark(self) -> None:
        mta = self.mta(zen(action="defer"), zone=listed("127.0.0.2"))
        self.assertEqual(self.codes(mta), ["451 4.7.1"])
        mta = self.mta(zen(action="mark"), zone=listed("127.0.0.4", "127.0.0.2"))
        log = logged_lines(self, "checked: ")
        self.assertEqual(self.codes(mta), TAKEN)
        (mail,) = mta.inbox_of("bob@us.example")
        expected = f"zen.example; client={STRANGER}; answer=127.0.0.2,127.0.0.4"
        self.assertEqual(mail.header("X-Listed-By"), expected)
        self.assertNotIn(b"sesame", mail.raw)
        verdict = f"dnsbl=mark ({STRANGER} is listed by zen.example: 127.0.0.2, 127.0.0.4)"
        self.assertIn(verdict, log[0])

    def test_only_answers_that_mean_a_listing_are_hits(self) -> None:
        for answer in ("127.0.0.1", "127.0.1.255", "192.0.2.1", "127.255.255.254"):
            self.assertEqual(self.codes(self.mta(zen(), zone=listed(answer))), TAKEN, answer)
        for answer in ("127.0.0.2", "127.0.0.255", "127.255.254.1"):
            self.assertEqual(self.codes(self.mta(zen(), zone=listed(answer)))[0][:3], "550", answer)
        some = zen(answers=["127.0.0.2/31", "127.0.0.10"])
        for answer, code in (("127.0.0.3", "550"), ("127.0.0.10", "550"), ("127.0.0.4", "250")):
            self.assertEqual(self.codes(self.mta(some, zone=listed(answer)))[0][:3], code, answer)
        mta = self.mta(some, zone=listed("127.0.0.4", "127.0.0.10"))
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
        mta = self.mta(zen(), zone=listed("127.0.0.2", name=name))
        self.assertEqual(self.codes(mta, source="2001:db8::1"), ["550 5.7.1"])
        self.assertEqual(self.codes(mta, source="2001:db8::2"), TAKEN)
        mta = self.mta(zen(), zone=listed("127.0.0.2"))
        self.assertEqual(self.codes(mta, source=f"::ffff:{STRANGER}"), ["550 5.7.1"])

    def test_clients_of_our_own_are_not_looked_up(self) -> None:
        names = f"1.0.0.127.{KEYED}", f"8.2.0.192.{KEYED}"
        everything = "".join(listed("127.0.0.2", name=name) for name in names)
        mta = self.mta(
            zen(), zen(of="helo"), zone=everything, relay_from=(ip_network("192.0.2.8"),)
        )
        self.resolver.lookups.clear()
        self.assertEqual(self.codes(mta, source="192.0.2.8", helo="bad.example"), TAKEN)
        # Loopback, where it may not relay: a proxy without XCLIENT.
        self.assertEqual(self.codes(mta, source="127.0.0.1", helo="bad.example"), TAKEN)
        self.assertEqual([each for each in self.asked() if KEYED in each], [])

    def test_the_postmaster_is_reached_from_listed_clients(self) -> None:
        mta = self.mta(zen(), zone=listed("127.0.0.2"))
        codes = self.codes(mta, "postmaster@us.example", "bob@us.example")
        self.assertEqual(codes, ["250 2.1.5", "550 5.7.1", "250 2.0.0"])


class Exempt(WithLists):
    def allowing(self, entries: str, **settings: Any) -> MemoryMTA:
        policy = PolicySettings(allow=self.write("allow", entries), dmarc="off", arc="off")
        return self.mta(zen(**settings), zone=listed("127.0.0.2"), policy=policy)

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
            marks = [each.header("X-Listed-By") is not None for each in mta.inbox]
            self.assertEqual(marks, [False] if action == "refuse" else [False, True])


class Faults(WithLists):
    def test_a_list_that_is_silent_or_fails_refuses_nothing(self) -> None:
        mta = self.mta(zen(), DNSBL(zone="other.example"), zone=listed("127.0.0.2"))
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
        self.assertEqual(self.counted(mta, "dnsbl", "temperror"), 3)
        self.resolver.release(LISTED)

    def test_a_refused_query_is_logged_once_an_hour_and_is_no_hit(self) -> None:
        mta = self.mta(zen(), zone=listed("127.255.255.254"))
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
        mta = self.mta(zen(), zen(of="sender", action="mark"), zone=listed("127.0.0.2"))
        facts = self.explained(mta, sender="x@bad.example")
        self.assertEqual(
            facts["forecast"]["refusals"],
            [{"policy": "dnsbl", "reply": f"550 5.7.1 {STRANGER} is listed by zen.example"}],
        )
        self.assertNotIn("sesame", str(facts))
