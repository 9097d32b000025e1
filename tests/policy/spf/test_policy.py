"""SPF on the seam: which identities are checked, what is recorded, and what is refused."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail

from tests.policy.spf.zones import SPFTestCase
from tests.tidy import Tidy
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.policy.chain import Member, PolicyChain
from twisted_mta.policy.examination import Examination, PolicySession
from twisted_mta.policy.spf.policy import FAILED, NAME, SPFPolicy
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings

OURS = "192.0.2.1"
OTHER = "198.51.100.1"


class PolicyTestCase(Tidy, SPFTestCase):
    records = """
pass.example      TXT  v=spf1 +all
fail.example      TXT  v=spf1 -all
softfail.example  TXT  v=spf1 ~all
strict.example    TXT  v=spf1 ip4:192.0.2.0/24 -all exp=why.strict.example
why.strict.example TXT  Send it through our own hosts, %{l}
wrong.example     TXT  v=spf1 moo
slow.example      TXT  v=spf1 -all
broken.example    FAILS TXT
"""

    def session(self, address: str | None, helo: str) -> PolicySession:
        view = Session(SessionSettings(hostname="mx.example"), peer=Peer(address))
        view.greeting, view.helo = "EHLO", helo
        return PolicySession(view, is_stranger=True)

    def begin(
        self,
        *,
        sender: str | None = "ann@softfail.example",
        address: str | None = OTHER,
        helo: str = "softfail.example",
        enforces: bool = True,
        session: PolicySession | None = None,
    ) -> Deferred[Reply | None] | None:
        policy = SPFPolicy(self.checker(), enforces=enforces) if session is None else self.policy
        self.policy = policy
        self.asked = self.session(address, helo) if session is None else session
        path = None if sender is None else Mailbox.parse(sender)
        self.asked.examination = Examination(self.asked, path, awaited=(NAME,))
        return policy.mail(self.asked, path)

    def refusal(self, **options: Any) -> str:
        answer = self.begin(**options)
        assert answer is not None
        reply = self.successResultOf(answer)
        return "" if reply is None else str(reply)

    @property
    def found(self) -> list[str]:
        """What was recorded: ``result property=value``."""
        assert self.asked.examination is not None
        return [
            " ".join([each.result, *(f"{name}={value}" for name, value in each.properties)])
            for each in self.asked.examination.results
        ]


class Identities(PolicyTestCase):
    def test_both_are_always_checked_and_the_greeting_comes_first(self) -> None:
        self.refusal(helo="pass.example", sender="ann@fail.example")
        self.assertEqual(
            self.found, ["pass smtp.helo=pass.example", "fail smtp.mailfrom=ann@fail.example"]
        )
        self.refusal(helo="fail.example", sender="ann@pass.example")
        self.assertEqual(
            self.found, ["fail smtp.helo=fail.example", "pass smtp.mailfrom=ann@pass.example"]
        )

    def test_with_a_null_reverse_path_there_is_the_greeting_alone(self) -> None:
        self.refusal(helo="pass.example", sender=None)
        self.assertEqual(self.found, ["pass smtp.helo=pass.example"])

    def test_the_name_in_the_greeting_is_that_of_a_postmaster(self) -> None:
        self.publish("helo.example", "v=spf1 exists:%{l}.%{o}.%{h}.example.com -all")
        self.host("postmaster.helo.example.helo.example.example.com", "127.0.0.2")
        self.refusal(helo="HELO.example.", sender=None)
        self.assertEqual(self.found, ["fail smtp.helo=helo.example"])
        self.refusal(helo="HELO.example", sender=None)
        self.assertEqual(self.found, ["pass smtp.helo=helo.example"])

    def test_a_greeting_that_is_no_full_domain_name_has_no_result_and_no_query(self) -> None:
        for helo in ("[198.51.100.1]", "198.51.100.1", "localhost", "two words", "a..b", "x\u202e"):
            self.refusal(helo=helo, sender=None)
            self.assertEqual(self.found, [f"none smtp.helo={helo}"])
        self.assertEqual(self.resolver.lookups, [])

    def test_a_reverse_path_without_a_domain_name_has_no_result(self) -> None:
        self.refusal(sender="ann@[198.51.100.1]")
        self.assertEqual(self.found[1:], ["none smtp.mailfrom=ann@[198.51.100.1]"])

    def test_international_names_are_looked_up_as_a_labels(self) -> None:
        self.publish("xn--bcher-kva.example", "v=spf1 +all")
        self.refusal(helo="bücher.example", sender="ann@bücher.example")
        self.assertEqual(
            self.found,
            [
                "pass smtp.helo=xn--bcher-kva.example",
                "pass smtp.mailfrom=ann@xn--bcher-kva.example",
            ],
        )

    def test_a_client_without_an_address_has_no_result(self) -> None:
        self.assertEqual(self.refusal(address=None, sender="ann@fail.example"), "")
        self.assertEqual(
            self.found, ["none smtp.helo=softfail.example", "none smtp.mailfrom=ann@fail.example"]
        )

    def test_the_reason_is_recorded(self) -> None:
        self.refusal(sender="ann@strict.example", address=OURS)
        assert self.asked.examination is not None
        _, result = self.asked.examination.results
        self.assertEqual(result.comment, "ip4:192.0.2.0/24 of strict.example")

    def test_the_greeting_is_checked_once_in_a_session(self) -> None:
        self.refusal()
        for _ in range(2):
            self.refusal(session=self.asked)
            self.assertEqual(self.found[0], "softfail smtp.helo=softfail.example")
        self.assertEqual(self.resolver.lookups.count(("TXT", "softfail.example")), 4)
        self.refusal(helo="broken.example")
        self.refusal(session=self.asked)
        self.assertEqual(self.resolver.lookups.count(("TXT", "broken.example")), 2)


class Enforcing(PolicyTestCase):
    def test_a_failing_reverse_path_is_refused(self) -> None:
        self.assertEqual(
            self.refusal(sender="ann@fail.example"),
            "550 5.7.23 198.51.100.1 may not send mail of fail.example, says its SPF record",
        )

    def test_the_explanation_of_the_owner_follows(self) -> None:
        self.assertEqual(
            self.refusal(sender="ann@strict.example"),
            "550 5.7.23 198.51.100.1 may not send mail of strict.example, says its SPF record"
            " strict.example explains: Send it through our own hosts, ann",
        )
        self.assertEqual(self.refusal(sender="ann@strict.example", address=OURS), "")

    def test_a_refusal_is_printable_ascii_in_lines_that_every_client_reads(self) -> None:
        label = "x" * 60
        domain = f"{label}.{label}.{label}.{label}.example"
        self.publish(domain, "v=spf1 -all exp=why.example")
        self.publish("why.example", "%{s}" * 100)
        answer = self.begin(sender=f"{'é' * 300}@{domain}", helo="\u202e\x1b")
        assert answer is not None
        reply = self.successResultOf(answer)
        assert reply is not None
        self.assertTrue(reply.wire.isascii())
        self.assertTrue(all(0x20 <= octet < 0x7F for octet in reply.wire.replace(b"\r\n", b"")))
        for line in reply.wire.split(b"\r\n"):
            self.assertLessEqual(len(line), 510)

    def test_a_failing_greeting_is_refused_unless_the_reverse_path_passes(self) -> None:
        for sender in ("ann@softfail.example", "ann@nowhere.example", None):
            self.assertEqual(
                self.refusal(sender=sender, helo="fail.example"),
                "550 5.7.23 198.51.100.1 may not use the name fail.example, says its SPF record",
            )
        self.assertEqual(self.refusal(sender="ann@pass.example", helo="fail.example"), "")

    def test_no_other_result_refuses(self) -> None:
        for domain in (
            *("pass.example", "softfail.example", "wrong.example", "broken.example"),
            "nowhere.example",
        ):
            self.assertEqual(self.refusal(sender=f"ann@{domain}", helo=domain), "", domain)

    def test_mail_waits_for_the_result(self) -> None:
        self.resolver.hold("slow.example")
        answer = self.begin(sender="ann@slow.example")
        assert answer is not None
        self.assertNoResult(answer)
        self.resolver.release("slow.example")
        self.assertIsInstance(self.successResultOf(answer), Reply)

    def test_no_answer_in_time_refuses_nothing(self) -> None:
        self.resolver.hold("slow.example")
        answer = self.begin(sender="ann@slow.example")
        self.clock.advance(20)
        assert answer is not None
        self.assertIsNone(self.successResultOf(answer))
        self.assertEqual(self.found[1], "temperror smtp.mailfrom=ann@slow.example")

    def test_a_check_that_is_canceled_is_concluded(self) -> None:
        self.resolver.hold("slow.example")
        answer = self.begin(sender="ann@slow.example")
        assert answer is not None
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.found[1], "temperror smtp.mailfrom=ann@slow.example")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Checking(PolicyTestCase):
    def test_mail_neither_waits_nor_is_refused(self) -> None:
        self.resolver.hold("slow.example")
        answer = self.begin(sender="ann@slow.example", helo="fail.example", enforces=False)
        self.assertIsNone(answer)
        self.assertEqual(self.found, [])
        self.resolver.release("slow.example")
        self.assertEqual(
            self.found, ["fail smtp.helo=fail.example", "fail smtp.mailfrom=ann@slow.example"]
        )

    def test_a_fault_of_ours_is_logged_and_recorded(self) -> None:
        self.patch(self.resolver, "text", lambda domain: fail(RuntimeError("broken")))
        greeting = "temperror smtp.helo=softfail.example"
        for sender, expected in (
            (
                "ann@softfail.example",
                [greeting, "temperror smtp.mailfrom=ann@softfail.example"],
            ),
            (None, [greeting]),
        ):
            self.assertIsNone(self.begin(sender=sender, enforces=False))
            self.assertEqual(self.found, expected)
            self.assertEqual(len(self.flushLoggedErrors()), 1)


class InTheChain(PolicyTestCase):
    def chain(self, *, enforces: bool) -> PolicyChain:
        policy = SPFPolicy(self.checker(), enforces=enforces)
        member = Member(
            name=NAME,
            policy=policy,
            timeout=25,
            on_failure=None,
            strangers_only=True,
            concludes=FAILED,
        )
        return PolicyChain([[member]], clock=self.clock)

    def test_the_chain_takes_the_refusal(self) -> None:
        for enforces in (True, False):
            chain = self.chain(enforces=enforces)
            view = Session(SessionSettings(hostname="mx.example"), peer=Peer(OTHER))
            view.greeting, view.helo = "EHLO", "softfail.example"
            session = PolicySession(view)
            sender = Mailbox.parse("ann@fail.example")
            chain.examine(session, sender)
            refusal = self.successResultOf(chain.mail(session, sender))
            self.assertEqual(refusal is not None, enforces)
            assert session.examination is not None
            self.assertEqual(
                [str(each) for each in session.examination.verdicts],
                [
                    "spf=softfail (smtp.helo=softfail.example: ~all of softfail.example)",
                    "spf=fail (smtp.mailfrom=ann@fail.example: -all of fail.example)",
                ],
            )
