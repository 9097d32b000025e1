"""The chain of policies: the order of its groups, and the deadline and default of each policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.tidy import Tidy
from twisted_mta.mail.reply import Reply
from twisted_mta.message.authentication_results import MethodResult
from twisted_mta.message.header import Header
from twisted_mta.policy.answers import EnvelopeView, Mark, Quarantine
from twisted_mta.policy.chain import NO_VERDICT, Member, PolicyChain
from twisted_mta.policy.examination import PolicySession
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings

NO = Reply(550, "5.7.1", "no")
LATER = Reply(450, "4.7.1", "later")
ENVELOPE = EnvelopeView(None, ())
TEMPERROR = (MethodResult("slow", "temperror"),)


class AtMail:
    """A policy that answers at MAIL."""

    def __init__(self, answer: Any = None) -> None:
        self.asked = 0
        self._answer = answer

    def mail(self, session: PolicySession, sender: object) -> Any:
        self.asked += 1
        return self._answer() if callable(self._answer) else self._answer


class Slow:
    """A policy that is asked at MAIL, and concludes later."""

    def __init__(self) -> None:
        self.conclude: Callable[[Sequence[MethodResult]], None]

    def mail(self, session: PolicySession, sender: object) -> None:
        examination = session.examination
        assert examination is not None
        self.conclude = lambda results: examination.conclude("slow", results)


class ChainTestCase(Tidy, SynchronousTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.counted: list[tuple[str, str]] = []

    def chain(self, *groups: Sequence[Member]) -> PolicyChain:
        def count(policy: str, result: str) -> None:
            self.counted.append((policy, result))

        chain = PolicyChain(groups, clock=self.clock, count=count)
        view = Session(SessionSettings(hostname="mta.example"), peer=Peer("192.0.2.7"))
        self.session = PolicySession(view)
        self.examination = chain.examine(self.session, None)
        return chain

    def member(self, policy: object, name: str = "one", **more: Any) -> Member:
        return Member(**{"name": name, "policy": policy, "timeout": 5.0, **more})

    def asked(self, *groups: Sequence[Member]) -> Reply | None:
        return self.successResultOf(self.chain(*groups).mail(self.session, None))


class Order(ChainTestCase):
    def test_the_first_refusal_of_a_group_counts_whichever_comes_first_in_time(self) -> None:
        first: Deferred[Reply] = Deferred()
        chain = self.chain([self.member(AtMail(first)), self.member(AtMail(succeed(LATER)), "two")])
        refusal = ensureDeferred(chain.mail(self.session, None))
        self.assertNoResult(refusal)
        first.callback(NO)
        self.assertIs(self.successResultOf(refusal), NO)

    def test_policies_of_a_group_are_asked_at_the_same_time(self) -> None:
        one, two = AtMail(Deferred), AtMail(Deferred)
        chain = self.chain([self.member(one), self.member(two, "two")])
        refusal = ensureDeferred(chain.mail(self.session, None))
        self.assertEqual((one.asked, two.asked), (1, 1))
        self.clock.advance(5)
        self.assertIs(self.successResultOf(refusal), NO_VERDICT)

    def test_a_group_is_asked_once_the_one_before_has_answered(self) -> None:
        first: Deferred[None] = Deferred()
        later = AtMail(NO)
        chain = self.chain([self.member(AtMail(first))], [self.member(later)])
        refusal = ensureDeferred(chain.mail(self.session, None))
        self.assertEqual(later.asked, 0)
        first.callback(None)
        self.assertIs(self.successResultOf(refusal), NO)

    def test_a_group_behind_a_refusal_is_not_asked(self) -> None:
        later = AtMail()
        self.assertIs(self.asked([self.member(AtMail(NO))], [self.member(later)]), NO)
        self.assertEqual(later.asked, 0)
        self.assertEqual(self.counted, [("one", "refuse")])

    def test_replies_that_accept_go_on(self) -> None:
        later = AtMail()
        accepting = Reply(250, "2.0.0", "fine")
        self.assertIsNone(self.asked([self.member(AtMail(accepting))], [self.member(later)]))
        self.assertEqual(later.asked, 1)

    def test_several_answers_of_one_policy_count_in_their_order(self) -> None:
        answers = [Mark(["X-One: 1"]), Quarantine("first"), None, Quarantine("second")]
        self.assertIsNone(self.asked([self.member(AtMail(lambda: answers))]))
        self.assertEqual(self.examination.opinion.fields, [b"X-One: 1\r\n"])
        self.assertEqual(self.examination.opinion.quarantine, "first")
        self.assertEqual(
            [str(each) for each in self.examination.verdicts],
            ["one=mark", "one=quarantine (first)", "one=quarantine (second)"],
        )

    def test_what_is_about_strangers_is_not_asked_about_others(self) -> None:
        strangers, everyone = AtMail(NO), AtMail()
        chain = self.chain(
            [self.member(strangers, strangers_only=True), self.member(everyone, "two")]
        )
        self.session.is_stranger = False
        self.assertIsNone(self.successResultOf(chain.mail(self.session, None)))
        self.assertEqual((strangers.asked, everyone.asked), (0, 1))
        only = self.chain([self.member(strangers, strangers_only=True)])
        self.session.is_stranger = False
        self.assertFalse(only.concerns(self.session))


class Faults(ChainTestCase):
    def test_each_policy_has_a_deadline_and_a_default_of_its_own(self) -> None:
        chain = self.chain(
            [
                self.member(AtMail(Deferred), on_failure=None, timeout=1.0),
                self.member(AtMail(Deferred), "two", on_failure=NO, timeout=2.0),
            ]
        )
        refusal = ensureDeferred(chain.mail(self.session, None))
        self.clock.advance(1.9)
        self.assertNoResult(refusal)
        self.clock.advance(0.1)
        self.assertIs(self.successResultOf(refusal), NO)

    def test_a_policy_that_fails_concludes_with_its_default(self) -> None:
        def fails() -> None:
            raise RuntimeError

        member = self.member(AtMail(fails), "slow", on_failure=None, concludes=TEMPERROR)
        self.assertIsNone(self.asked([member]))
        self.assertEqual(self.examination.results, list(TEMPERROR))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_reader_of_the_body_that_fails_harms_no_other(self) -> None:
        read: list[bytes] = []

        class Broken:
            def body(self, *about: object) -> Callable[[bytes], object]:
                return lambda octets: 1 / 0

        class Sound:
            def body(self, *about: object) -> Callable[[bytes], object]:
                return read.append

        class Without:
            def body(self, *about: object) -> None:
                return None

        class Failing:
            def body(self, *about: object) -> None:
                raise RuntimeError

        chain = self.chain(
            [
                self.member(Broken(), "slow", concludes=TEMPERROR),
                self.member(Failing(), "three"),
                self.member(Without(), "four"),
                self.member(Sound(), "two"),
            ]
        )
        readers = chain.body_readers(self.session, ENVELOPE, Header(b""))
        for octets in (b"a", b"b"):
            for reader in readers:
                reader(octets)
        self.assertEqual(read, [b"a", b"b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(self.examination.is_concluded("slow"))

    def test_a_policy_that_fails_at_the_body_defers_the_message_unless_it_is_to_go_on(self) -> None:
        def reading(octets: bytes) -> None:
            raise RuntimeError

        async def later() -> None: ...

        for given in (reading, 7, NO, later()):

            class Body:
                def body(self, *about: object, given: object = given) -> object:
                    return given

            for on_failure in (NO_VERDICT, None):
                chain = self.chain([self.member(Body(), on_failure=on_failure)])
                for reader in chain.body_readers(self.session, ENVELOPE, Header(b"")):
                    reader(b"a")
                decided = ensureDeferred(chain.message(self.session, ENVELOPE, BytesIO))
                self.assertIs(self.successResultOf(decided), on_failure)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError, TypeError)), 2)


class AtEnd:
    """A policy that is asked about the whole message, and reads it."""

    def __init__(self) -> None:
        self.read: list[bytes | None] = []

    def message(self, session: PolicySession, envelope: object, content: Any) -> None:
        self.read.append(None if content is None else content.read())
        if content is not None:
            content.seek(0)


class Contents(ChainTestCase):
    def test_the_content_is_opened_once_and_for_policies_that_read_it_alone(self) -> None:
        opened: list[BytesIO] = []

        def open_content() -> BytesIO:
            opened.append(BytesIO(b"content"))
            return opened[-1]

        first, second, third = AtEnd(), AtEnd(), AtEnd()
        standard = self.member(first, reads_content=False)
        readers = [[self.member(second)], [self.member(third)]]
        for groups in ([[standard]], [[standard], *readers]):
            chain = self.chain(*groups)
            asked = chain.message(self.session, ENVELOPE, open_content)
            self.assertIsNone(self.successResultOf(ensureDeferred(asked)))
        self.assertEqual(first.read, [None, None])
        self.assertEqual((second.read, third.read), ([b"content"], [b"content"]))
        self.assertEqual([each.closed for each in opened], [True])


class Conclusions(ChainTestCase):
    def test_a_message_waits_for_what_is_still_being_found_out(self) -> None:
        slow, later = Slow(), AtMail()
        chain = self.chain([self.member(slow, "slow", concludes=TEMPERROR)], [self.member(later)])
        self.successResultOf(chain.mail(self.session, None))
        decided = ensureDeferred(chain.message(self.session, ENVELOPE, BytesIO))
        self.assertNoResult(decided)
        found = MethodResult("slow", "pass")
        slow.conclude([found])
        self.assertIsNone(self.successResultOf(decided))
        self.assertEqual(self.examination.results, [found])
        slow.conclude([MethodResult("slow", "fail")])  # too late
        self.assertEqual(self.examination.results, [found])

    def test_the_wait_ends_at_the_deadline(self) -> None:
        slow = Slow()
        chain = self.chain([self.member(slow, "slow", concludes=TEMPERROR)])
        self.successResultOf(chain.mail(self.session, None))
        decided = ensureDeferred(chain.message(self.session, ENVELOPE, BytesIO))
        self.clock.advance(5)
        self.assertIsNone(self.successResultOf(decided))
        self.assertEqual(self.examination.results, list(TEMPERROR))

    def test_several_may_wait_and_one_may_give_up(self) -> None:
        slow = Slow()
        chain = self.chain([self.member(slow, "slow", concludes=TEMPERROR)])
        self.successResultOf(chain.mail(self.session, None))
        one, two = self.examination.concluded("slow"), self.examination.concluded("slow")
        one.addErrback(lambda failure: None)
        one.cancel()
        slow.conclude([])
        self.assertEqual(self.successResultOf(two), ())
        self.assertEqual(self.successResultOf(self.examination.concluded("other")), ())

    def test_spf_of_helo_comes_first_and_of_mail_from_last(self) -> None:
        self.chain()
        for method, name in (("spf", "smtp.mailfrom"), ("dkim", "header.d"), ("spf", "smtp.helo")):
            result = MethodResult(method, "pass", properties=((name, "x.example"),))
            self.examination.conclude(name, [result])
        self.assertEqual(
            [each.properties[0][0] for each in self.examination.results],
            ["smtp.helo", "header.d", "smtp.mailfrom"],
        )
