"""A resolver that reports lookups that fail in a row."""

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail, succeed

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


class Monitoring(TidyTestCase):
    def setUp(self) -> None:
        self.names = Names()
        self.resolver = MonitoredResolver(self.names)

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
