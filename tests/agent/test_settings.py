"""The settings of parts that follow from several settings of the operator."""

from __future__ import annotations

from tests.tidy import TidyTestCase
from twisted_mta.agent.settings import idle_connections, notice_domain, runner_settings
from twisted_mta.config import Config, DKIMKey
from twisted_mta.system import accepting


class NoticeDomain(TidyTestCase):
    def domain(self, *signing: str, hostname: str = "mx.example.net") -> str:
        keys = tuple(DKIMKey(domain=each, selector="s1", key="/key.pem") for each in signing)
        local_domains = ("localhost", "example.org", "example.com")
        return notice_domain(Config(hostname=hostname, local_domains=local_domains, dkim_keys=keys))

    def test_without_keys_notices_come_from_the_host(self) -> None:
        self.assertEqual(self.domain(), "mx.example.net")

    def test_the_host_is_taken_if_a_key_signs_for_it(self) -> None:
        for domain in ("mx.example.net", "example.net"):
            self.assertEqual(self.domain("example.com", domain), "mx.example.net")
        self.assertEqual(self.domain("example.net", hostname="MX.example.net"), "MX.example.net")

    def test_otherwise_the_first_local_domain_that_a_key_signs_for_is_taken(self) -> None:
        self.assertEqual(self.domain("example.com"), "example.com")
        self.assertEqual(self.domain("example.com", "example.org"), "example.org")

    def test_keys_for_other_domains_leave_notices_with_the_host(self) -> None:
        self.assertEqual(self.domain("a.mx.example.net", "ple.net"), "mx.example.net")


class IdleConnections(TidyTestCase):
    def test_all_connections_that_are_busy_at_once_may_be_kept(self) -> None:
        """Otherwise messages to many next hops close connections that the next one needs."""
        self.patch(accepting, "limit", lambda: 65_536)
        self.assertGreater(idle_connections(), runner_settings(Config()).concurrency)

    def test_they_leave_descriptors_to_others(self) -> None:
        self.patch(accepting, "limit", lambda: 1024)
        self.assertEqual(idle_connections(), 64)
