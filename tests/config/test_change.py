"""Differences of configurations: those a reload applies, and those only a start can."""

from __future__ import annotations

from copy import copy
from ipaddress import ip_network
from typing import Any

import attrs
from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta import Config
from twisted_mta.config import (
    DNSBL,
    AccountLimit,
    AccountLimits,
    ConfigError,
    DKIMKey,
    Listener,
    MilterSettings,
    PolicyServiceSettings,
    ReplyAction,
    SourceAddress,
    SourcePool,
    WebhookSettings,
)
from twisted_mta.config.change import changes, fixed
from twisted_mta.config.checker import checker_spec
from twisted_mta.config.destination import Destination
from twisted_mta.mail.address import Mailbox

NETWORK = ip_network("192.0.2.0/24")

FIXED = {
    "": {
        "hostname",
        "state_dir",
        "acme",
        "web",
        "capture",
        "local_submission_directory",
        "workers",
        "maildir",
        "message_memory",
    },
    "queue": {"url", "small_body", "commit_messages", "commit_octets"},
    "delivery": {"port"},
    "dns": {"nameservers", "timeout", "trust_ad", "signed_name", "bogus_name"},
    "log": {"format"},
    "web_page": {"hosts", "tls"},
    "mta_sts": ("publish",),
    "listener": {"endpoint", "implicit_tls", "proxy_protocol_from", "proxy_protocol_timeout"},
}
"""Settings that only a start applies. All others are read when they are used, or handed over by
`Agent.prepare`."""

ONE_VALUE = {("listener", "kind")}
"""Settings with only one possible value so far."""


def another(name: str, value: Any) -> Any:
    """Return another value of a setting."""
    named: dict[str, Any] = {
        "hostname": "other.example",
        "url": "postgresql://other.example/mta",
        "web": "tcp:8025",
        "endpoint": "tcp:26",
        "recipients": "any" if value == "existing" else "existing",
        "minimum_tls": "1.3",
        "client_certificates": "ask",
        "bare_newlines": "normalize",
        "long_lines": "reject",
        "format": "json",
        "tls": "encrypt",
        "tls_memory": "require",
        "eight_bit_headers": "send",
        "routes": (("*", "discard:"),),
        "destinations": (Destination(domain="far.example", connections=1),),
        "account_limits": AccountLimits(messages_per_hour=5),
        "limits_of_accounts": (AccountLimit(account="ann", messages_per_hour=5),),
        "milters": (MilterSettings(endpoint="unix:/run/filter.sock"),),
        "policy_services": (PolicyServiceSettings(endpoint="unix:/run/postgrey.sock"),),
        "webhooks": (WebhookSettings(url="https://a.example/", secret_file="/w"),),
        "dkim_keys": (DKIMKey(domain="far.example", selector="s", key="/s.pem"),),
        "dnsbl": (DNSBL(zone="list.example"),),
        "spf": "enforce",
        "dkim": "off",
        "dmarc": "enforce",
        "arc": "off",
        "report_from": Mailbox("bob", "other.example"),
        "local_domains": ("other.example",),
        "virtual_domains": ("virtual.example",),
        "srs_domain": "srs.example",
        "helo": "helo.example",
        "source_address": ("192.0.2.1",),
        "nameservers": ("192.0.2.1",),
        "relay_certificates": ("ab" * 32,),
        "hosts": ("page.example",),
        "source_pool": "first",
        "source_pools": (SourcePool(name="second", address=[SourceAddress(address="192.0.2.2")]),),
        "reply_actions": (ReplyAction(code="4", action="fail"),),
        "sni": ({"names": ["a.example"], "certificate": "a.pem"},),
    }
    if name in named:
        return named[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if name.endswith("_from"):
        return (NETWORK,)
    return "/elsewhere"


def settings() -> Config:
    return Config(
        state_dir="/state",
        hostname="mta.example",
        maildir="/mail",
        aliases="/aliases",
        tls_certificate="/a.pem",
        tls_key="/a.pem",
        listeners=(Listener(endpoint="tcp:25"),),
    )


def one_by_one(before: Config) -> list[tuple[str, str, Config]]:
    """Return (table, setting, configuration with another value of it), for each setting."""
    found: list[tuple[str, str, Config]] = []
    for field in attrs.fields(Config):
        value = getattr(before, field.name)
        if field.name == "listeners":
            (listener,) = value
            for inner in attrs.fields(Listener):
                if ("listener", inner.name) not in ONE_VALUE:
                    other = another(inner.name, getattr(listener, inner.name))
                    changed = (changed_table(listener, inner.name, other),)
                    found.append(("listener", inner.name, evolve(before, listeners=changed)))
        elif attrs.has(type(value)):
            for inner in attrs.fields(type(value)):
                if (field.name, inner.name) not in ONE_VALUE:
                    other = another(inner.name, getattr(value, inner.name))
                    table = changed_table(value, inner.name, other)
                    changes_one = changed_table(before, field.name, table)
                    found.append((field.name, inner.name, changes_one))
        else:
            other = another(field.name, value)
            found.append(("", field.name, changed_table(before, field.name, other)))
    return found


def changed_table(table: Any, name: str, value: Any) -> Any:
    """Return a table with another value, without the checks against other settings."""
    changed = copy(table)
    object.__setattr__(changed, name, value)
    return changed


class Change(TidyTestCase):
    def test_each_setting_is_applied_by_a_reload_or_fixed(self) -> None:
        before = settings()
        for table, name, after in one_by_one(before):
            refused, said = fixed(before, after), changes(before, after)
            is_fixed = name in FIXED.get(table, ())
            self.assertEqual((len(refused), len(said)), (is_fixed, not is_fixed), (table, name))
            (line,) = refused + said
            self.assertIn(name, line)
            self.assertIn("; before: ", line)
            self.assertTrue(line.isprintable(), line)

    def test_every_setting_is_compared(self) -> None:
        there = {(table, name) for table, name, _ in one_by_one(settings())}
        for table, names in FIXED.items():
            for name in names:
                self.assertIn((table, name), there)

    def test_equal_settings_are_no_difference(self) -> None:
        self.assertEqual(fixed(settings(), settings()) + changes(settings(), settings()), [])

    def test_a_difference_of_auth_shows_no_secret(self) -> None:
        before, after = (
            evolve(settings(), auth=checker_spec(f"memory:ann:{password}"))
            for password in ("opensesame", "tuesday")
        )
        (line,) = changes(before, after)
        self.assertEqual(line, 'auth = "memory:..."; before: "memory:..."')

    def test_a_difference_of_a_list_in_the_dns_shows_no_key(self) -> None:
        before, after = (
            evolve(settings(), dnsbl=[DNSBL(zone=f"{key}.zen.example", name="zen.example")])
            for key in ("sesame", "tuesday")
        )
        (line,) = changes(before, after)
        self.assertEqual(line, 'dnsbl "zen.example of client": zone = ...; before: ...')
        self.assertEqual(
            changes(settings(), after), ['dnsbl = ["zen.example of client"]; before: []']
        )

    def test_a_difference_of_webhooks_shows_no_query(self) -> None:
        def config(*urls: str, **settings: Any) -> Config:
            hooks = [WebhookSettings(url=url, secret_file="/w", **settings) for url in urls]
            return Config(webhooks=tuple(hooks))

        url = "https://a.example/?token=verysecret"
        self.assertEqual(
            changes(config(url), config("https://b.example/?verysecret", url)),
            [
                'webhooks = ["https://b.example/", "https://a.example/"]; before:'
                ' ["https://a.example/"]'
            ],
        )
        [line] = changes(config(url), config(url, timeout=5.0))
        self.assertTrue(line.startswith('webhook "https://a.example/": timeout = '), line)
        for wrong in ((url, url), (url,)):
            with self.assertRaises(ConfigError) as caught:
                config(*wrong, timeout=90.0 if len(wrong) == 1 else 5.0)
            self.assertNotIn("verysecret", str(caught.exception))

    def test_all_differences_are_listed(self) -> None:
        before = settings()
        after = evolve(before, hostname="other.example", drain_timeout=1.0, recipients="any")
        self.assertEqual(len(fixed(before, after)), 1)
        self.assertEqual(
            changes(before, after),
            [
                'recipients = "any"; before: "existing"',
                "drain_timeout = 1.0; before: 10.0",
            ],
        )

    def test_number_and_endpoints_of_listeners_are_fixed(self) -> None:
        before = settings()
        two = evolve(before, listeners=(*before.listeners, Listener(endpoint="tcp:26")))
        self.assertEqual(fixed(before, two), ["2 listeners; before: 1"])
        self.assertEqual(fixed(two, before), ["1 listener; before: 2"])
        self.assertEqual(changes(before, two), [])

    def test_a_difference_of_a_destination_names_it(self) -> None:
        before = evolve(
            settings(),
            destinations=(Destination(domain="a.example"), Destination(domain="b.example")),
        )
        after = evolve(
            before,
            destinations=(
                Destination(domain="c.example"),
                Destination(domain="b.example", connections=7),
            ),
        )
        self.assertEqual(fixed(before, after), [])
        self.assertEqual(
            changes(before, after),
            [
                'destinations = ["c.example", "b.example"]; before: ["a.example", "b.example"]',
                'destination "b.example": connections = 7; before: none',
            ],
        )

    def test_a_difference_of_a_dkim_key_names_it(self) -> None:
        first, second, third = (
            DKIMKey(domain="a.example", selector=each, key="/key.pem") for each in ("1", "2", "3")
        )
        before = evolve(settings(), dkim_keys=(first, second))
        after = evolve(before, dkim_keys=(evolve(second, key="/other.pem"), third))
        self.assertEqual(fixed(before, after), [])
        self.assertEqual(
            changes(before, after),
            [
                'dkim_keys = ["2._domainkey.a.example", "3._domainkey.a.example"];'
                ' before: ["1._domainkey.a.example", "2._domainkey.a.example"]',
                'DKIM key "2._domainkey.a.example": key = "/other.pem"; before: "/key.pem"',
            ],
        )

    def test_a_difference_of_a_listener_names_it(self) -> None:
        before = settings()
        after = evolve(before, listeners=(Listener(endpoint="tcp:25", max_recipients=7),))
        self.assertEqual(
            changes(before, after),
            ['listener "tcp:25": max_recipients = 7; before: 1000'],
        )
