"""A resolver that reports lookups that fail in a row."""

from collections.abc import Sequence
from typing import Literal

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.dns import LookupFailed, NoSuchDomain
from twisted_mta.dns.monitored import MonitoredResolver


class Names:
    def __init__(self) -> None:
        self.failure: Exception | None = LookupFailed("a.example", "MX", "no answer\x1b")

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        return fail(self.failure) if self.failure else succeed(())

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        return fail(self.failure) if self.failure else succeed(())

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        return fail(self.failure) if self.failure else succeed(())

    def pointers(self, address: str) -> Deferred[Sequence[str]]:
        return fail(self.failure) if self.failure else succeed(())

    def family_addresses(self, host: str, family: Literal[4, 6]) -> Deferred[Sequence[str]]:
        return fail(self.failure) if self.failure else succeed(())


class Monitoring(TidyTestCase):
    def setUp(self) -> None:
        self.names = Names()
        self.clock = Clock()
        self.resolver = MonitoredResolver(self.names, self.clock)

    def ask(self, times: int) -> None:
        for _ in range(times):
            self.failureResultOf(self.resolver.mail_exchangers("a.example"))

    def test_failures_in_a_row_are_reported(self) -> None:
        self.ask(2)
        self.assertEqual(self.resolver.trouble, "")
        self.failureResultOf(self.resolver.addresses("mx.a.example"), LookupFailed)
        self.assertEqual(
            self.resolver.trouble,
            "the last 3 DNS lookups have failed: MX of a.example: no answer\\x1b",
        )

    def test_any_answer_ends_the_report(self) -> None:
        for answer in (None, NoSuchDomain("b.example", "MX", "NXDOMAIN")):
            self.names.failure = LookupFailed("a.example", "MX", "no answer")
            self.ask(5)
            self.assertIn("last 5", self.resolver.trouble)
            self.names.failure = answer
            self.resolver.addresses("b.example").addErrback(lambda _: None)
            self.assertEqual(self.resolver.trouble, "")

    def test_a_rate_of_failures_is_reported_until_it_is_long_ago(self) -> None:
        for _ in range(5):  # every other lookup fails: never three in a row
            self.names.failure = LookupFailed("a.example", "MX", "no answer")
            self.ask(1)
            self.assertEqual(self.resolver.trouble, "")
            self.names.failure = None
            self.successResultOf(self.resolver.mail_exchangers("b.example"))
            self.clock.advance(10)
        self.assertEqual(
            self.resolver.trouble,
            "5 of 10 DNS lookups of the last 5 min have failed: MX of a.example: no answer",
        )
        self.assertEqual((self.resolver.answered, self.resolver.failed), (5, 5))
        for _ in range(11):
            self.successResultOf(self.resolver.mail_exchangers("b.example"))
        self.assertEqual(self.resolver.trouble, "")
        self.names.failure = LookupFailed("a.example", "MX", "no answer")
        self.ask(2)
        self.names.failure = None
        self.successResultOf(self.resolver.mail_exchangers("b.example"))
        self.assertIn("7 of 24", self.resolver.trouble)
        self.clock.advance(300)
        self.assertEqual(self.resolver.trouble, "")

    def test_failing_name_servers_of_strangers_are_no_trouble_of_ours(self) -> None:
        self.ask(2)
        for _ in range(5):
            self.failureResultOf(self.resolver.text("stranger.example"), LookupFailed)
            self.failureResultOf(self.resolver.pointers("192.0.2.1"), LookupFailed)
            self.failureResultOf(self.resolver.family_addresses("a.example", 4), LookupFailed)
        self.assertEqual(self.resolver.trouble, "")
        self.ask(1)
        self.assertIn("last 3", self.resolver.trouble)

    def test_an_answer_about_a_stranger_shows_that_name_servers_answer(self) -> None:
        for answer in (None, NoSuchDomain("b.example", "TXT", "NXDOMAIN")):
            self.names.failure = LookupFailed("a.example", "MX", "no answer")
            self.ask(5)
            self.names.failure = answer
            self.resolver.text("b.example").addErrback(lambda _: None)
            self.assertEqual(self.resolver.trouble, "")
