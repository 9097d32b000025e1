"""``[policy]`` and ``[[dkim]]``: reading them, their defaults, and what is refused."""

from __future__ import annotations

from ipaddress import ip_network

from twisted_mta.config import (
    Config,
    ConfigError,
    DKIMKey,
    GreylistSettings,
    PolicySettings,
    TLSReportSettings,
    loading,
    unbuilt,
)
from twisted_mta.config.loading import load_leniently
from twisted_mta.mail.address import Mailbox

from .loading import ConfigTestCase

KEY = '[[dkim]]\ndomain = "example.net"\nselector = "s1"\nkey = "/etc/mta/s1.pem"\n'


class Policy(ConfigTestCase):
    def test_every_key_is_read(self) -> None:
        toml = """
            [policy]
            spf = "enforce"
            dkim = "check"
            dmarc = "enforce"
            arc = "off"
            authserv_id = "mail.example.net"
            trusted_sealers = ["Lists.Example.ORG"]
            trusted_forwarders = [
                "192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "Forwarder.example", "1.example"
            ]
            dmarc_reports = true
            report_from = "reports@Example.NET"
            organization = "Example, Inc."
        """
        self.assertEqual(
            self.load({}, toml).policy,
            PolicySettings(
                spf="enforce",
                dkim="check",
                dmarc="enforce",
                arc="off",
                authserv_id="mail.example.net",
                trusted_sealers=("lists.example.org",),
                trusted_forwarders=(
                    *map(ip_network, ("192.0.2.0/24", "192.0.2.1/32", "2001:db8::/32")),
                    *("forwarder.example", "1.example"),
                ),
                dmarc_reports=True,
                report_from=Mailbox("reports", "example.net"),
                organization="Example, Inc.",
            ),
        )

    def test_all_is_checked_by_default_and_nothing_is_enforced_or_reported(self) -> None:
        policy = self.load().policy
        self.assertEqual(
            [policy.spf, policy.dkim, policy.dmarc, policy.arc, policy.dmarc_reports],
            ["check", "check", "check", "check", False],
        )
        self.assertEqual((policy.trusted_sealers, policy.trusted_forwarders), ((), ()))

    def test_our_names_in_what_we_write_follow_from_the_hostname_and_the_local_domains(
        self,
    ) -> None:
        config = Config(hostname="mx.example.net", local_domains=["localhost", "example.net"])
        self.assertEqual(config.authserv_id, "mx.example.net")
        self.assertEqual(str(config.report_from), "postmaster@example.net")
        self.assertEqual(config.organization, "example.net")
        other = self.load(
            {},
            '[policy]\nauthserv_id = "mail"\nreport_from = "ann@example.org"\norganization = "Us"',
        )
        self.assertEqual(other.authserv_id, "mail")
        self.assertEqual(str(other.report_from), "ann@example.org")
        self.assertEqual(other.organization, "Us")

    def test_dmarc_needs_spf_and_dkim(self) -> None:
        for other in ("spf", "dkim"):
            self.assertEqual(
                self.refusal({}, f'[policy]\n{other} = "off"\n'),
                f'FILE: [policy] dmarc = "check": it needs the results of {other}, which is off;'
                f' expected {other} = "check", or dmarc = "off"',
            )
            self.load({}, f'[policy]\n{other} = "off"\ndmarc = "off"\n')

    def test_reports_on_dmarc_need_dmarc(self) -> None:
        self.assertEqual(
            self.refusal({}, '[policy]\ndmarc_reports = true\ndmarc = "off"\n'),
            'FILE: [policy] dmarc_reports = true: nothing to report with dmarc = "off";'
            ' expected dmarc = "check"',
        )

    def test_values_that_mean_nothing_are_refused(self) -> None:
        for line, problem in (
            ('spf = "on"', 'spf = "on": expected "off", "check" or "enforce"'),
            ("spf = true", 'found true, expected one string, "off", "check" or "enforce"'),
            ('dkim = "enforce"', 'dkim = "enforce": expected "off" or "check"'),
            ('arc = "seal"', 'arc = "seal": expected "off" or "check"'),
            ('authserv_id = "a b"', "spaces or special characters in it; expected a name such as"),
            ('trusted_sealers = ["[192.0.2.1]"]', "an address literal; expected a domain such as"),
            ('trusted_sealers = ["192.0.2.1"]', "found an address, expected a domain such as"),
            ('trusted_sealers = "a.example"', "found a string, expected a list of domains"),
            ('trusted_forwarders = ["192.0.2.1/24"]', "beyond the prefix; expected 192.0.2.0/24"),
            ('trusted_forwarders = ["a b"]', "not a domain name; expected one such as"),
            ("trusted_forwarders = [1]", "found a number, expected"),
            ('report_from = "postmaster"', "not of the form local-part@domain; expected a mailbox"),
            ('organization = "a\\nb"', "unprintable characters in it; expected a name such as"),
            ('dmark = "off"', "no such setting; did you mean dmarc?"),
        ):
            self.assertIn(problem, self.refusal({}, f"[policy]\n{line}"), line)


class TLSReports(ConfigTestCase):
    def test_the_table_turns_them_on(self) -> None:
        self.assertIsNone(self.load().tls_report)
        self.assertEqual(self.load({}, "[tls_report]").tls_report, TLSReportSettings())

    def test_the_table_has_no_keys(self) -> None:
        self.assertEqual(
            self.refusal({}, "[tls_report]\non = true"),
            "FILE: [tls_report] on = true: no such setting; expected none",
        )
        self.assertIn("found true, expected a table", self.refusal({}, "tls_report = true"))


class NotBuilt(ConfigTestCase):
    def test_tables_of_later_are_refused_by_name(self) -> None:
        self.plan()
        self.assertEqual(
            self.refusal({}, '[later]\na = "b"'),
            "FILE: [later] is not built yet; expected no such table",
        )

    def test_a_value_of_such_a_name_is_outside_of_all_tables(self) -> None:
        self.plan()
        self.assertEqual(
            self.refusal({}, "later = 1"),
            "FILE: later = 1: outside of all tables; expected below [mta]",
        )

    def plan(self) -> None:
        """Have a table that is planned: no real one is at the moment."""
        self.patch(loading, "NOT_BUILT_TABLES", {"later": unbuilt.NotBuilt("a table of later")})


class Greylisting(ConfigTestCase):
    def test_the_table_turns_it_on(self) -> None:
        self.assertIsNone(self.load().greylist)
        self.assertEqual(self.load({}, "[greylist]").greylist, GreylistSettings(delay=300))
        greylist = self.load({}, '[greylist]\ndelay = "1 min"').greylist
        self.assertEqual(greylist, GreylistSettings(delay=60))
        self.assertIn("[greylist] delay = ", self.refusal({}, '[greylist]\ndelay = "soon"'))


class ListsInTheDNS(ConfigTestCase):
    ZONE = '[[dnsbl]]\nzone = "sesame.zen.example"\n'

    def test_the_zone_is_enough(self) -> None:
        (one,) = self.load({}, '[[dnsbl]]\nzone = "Zen.Example."').dnsbl
        self.assertEqual((one.zone, one.name, one.of), ("zen.example", "zen.example", "client"))
        self.assertEqual((one.answers, one.action), ((), "refuse"))

    def test_errors_say_what_was_expected_and_show_no_zone(self) -> None:
        for line, problem in (
            ('answers = ["192.0.2.1"]', "not in 127.0.0.0/8; expected addresses or networks in"),
            ('answers = ["127.255.255.254"]', "127.255.255.0/24 means that a list refuses queries"),
            ('answers = ["127.0.0.1/24"]', "beyond the prefix; expected 127.0.0.0/24"),
            ('answers = ["::1"]', "not a network of IPv4; expected addresses"),
            ('answers = "127.0.0.2"', "found a string, expected a list of answers"),
            ('of = "from"', 'expected "client", "sender" or "helo"'),
            ('action = "drop"', 'expected "refuse", "defer" or "mark"'),
            ('name = "a b"', "not a domain name; expected one such as"),
            (f'name = "zen.example"\n{self.ZONE}', "found two of its zone; expected one, with"),
        ):
            refusal = self.refusal({}, f"{self.ZONE}{line}")
            self.assertIn(problem, refusal, line)
        refusal = self.refusal({}, '[[dnsbl]]\nzone = "ses ame.zen.example"')
        self.assertIn("zone = ...: not a domain name; expected one such as", refusal)
        self.assertIn("has no zone; expected one such as", self.refusal({}, "[[dnsbl]]\n"))


class Keys(ConfigTestCase):
    def test_every_key_is_read_in_canonical_form(self) -> None:
        other = (
            '[[dkim]]\ndomain = "Bücher.example"\nselector = "K1.Sub-2"\n'
            'key = "/etc/mta/../mta/b.pem"\n'
        )
        first, second = self.load({}, KEY + other).dkim_keys
        self.assertEqual(first, DKIMKey(domain="example.net", selector="s1", key="/etc/mta/s1.pem"))
        self.assertEqual(
            second,
            DKIMKey(domain="xn--bcher-kva.example", selector="k1.sub-2", key="/etc/mta/b.pem"),
        )
        self.assertEqual(second.record_name, "k1.sub-2._domainkey.xn--bcher-kva.example")

    def test_a_domain_may_have_several_keys_with_different_selectors(self) -> None:
        keys = self.load({}, KEY + KEY.replace("s1", "s2")).dkim_keys
        self.assertEqual([key.selector for key in keys], ["s1", "s2"])

    def test_two_keys_with_one_domain_and_selector_are_refused(self) -> None:
        self.assertEqual(
            self.refusal({}, KEY + KEY.replace("example.net", "EXAMPLE.net")),
            'FILE: [[dkim]] domain = "example.net", selector = "s1": found two;'
            " expected one key for each selector of a domain",
        )

    def test_each_key_that_is_missing_is_named(self) -> None:
        _, errors = load_leniently({}, self.written('[[dkim]]\ndomain = "example.net"\n'))
        self.assertEqual(
            [str(error).partition(": ")[2] for error in errors],
            [
                '[[dkim]] 1 has no selector; expected one such as selector = "s2026"',
                '[[dkim]] 1 has no key; expected one such as key = "/etc/mta/s2026.pem"',
            ],
        )

    def written(self, toml: str) -> str:
        self.load({}, "")
        assert self.file is not None
        with open(self.file, "w", encoding="utf-8") as file:
            file.write(toml)
        return self.file

    def test_values_that_mean_nothing_are_refused(self) -> None:
        long = ".".join(["a" * 60] * 4)
        for wrong, problem in (
            (KEY.replace("s1", "s_1", 1), "not a selector; expected letters, digits and hyphens"),
            (KEY.replace("s1", "-s1", 1), "not a selector; expected letters, digits and hyphens"),
            (KEY.replace("s1", "s1.", 1), "not a selector; expected letters, digits and hyphens"),
            (
                KEY.replace("s1", "\N{KELVIN SIGN}1", 1),
                "not a selector; expected letters, digits and hyphens",
            ),
            (KEY.replace("s1", "s" * 64, 1), "not a selector"),
            (KEY.replace("example.net", "[192.0.2.1]"), "an address literal; expected a domain"),
            (KEY.replace("example.net", long), "has 257 octets; expected at most 253"),
            (KEY.replace('"/etc/mta/s1.pem"', "1"), "found a number, expected one string: the"),
            (KEY + "bits = 2048", "no such setting; expected domain, selector, key"),
            ("[dkim]\n", "found a table, expected tables, each below a line [[dkim]]"),
        ):
            self.assertIn(problem, self.refusal({}, wrong), wrong)

    def test_the_name_of_the_record_has_at_most_253_octets(self) -> None:
        domain = ".".join(["a" * 59] * 4)  # 239 octets, and s._domainkey. has 13
        key = DKIMKey(domain=domain, selector="s1", key="/s1.pem")
        self.assertEqual(len(key.record_name), 253)
        error = self.assertRaises(
            ConfigError, DKIMKey, domain=domain, selector="s12", key="/s1.pem"
        )
        self.assertIn("has 254 octets; expected at most 253", str(error))

    def test_python_takes_only_keys_of_the_class(self) -> None:
        error = self.assertRaises(ConfigError, Config, dkim_keys=["example.net"])
        self.assertEqual(str(error), 'dkim_keys = ["example.net"]: expected a list of DKIMKey')


class PolicyServices(ConfigTestCase):
    def test_a_service_needs_its_endpoint_alone(self) -> None:
        text = '[[policy_service]]\nendpoint = "unix:/run/postgrey.sock"'
        (service,) = self.load({}, text).policy_services
        self.assertEqual(
            (service.at, service.clients, service.default_action, service.timeout),
            ("rcpt", "strangers", "defer", 30.0),
        )

    def test_endpoints_are_sockets_and_ports(self) -> None:
        for endpoint, text in (
            ("/run/postgrey.sock", "not an endpoint of a policy service"),
            ("unix:postgrey.sock", "no absolute path of a socket"),
            ("tcp:127.0.0.1", "no port from 1 to 65535"),
            ("tcp:127.0.0.1:0", "no port from 1 to 65535"),
            ("tls:mx.example:443", "not an endpoint of a policy service"),
            ("", "expected one such as unix:/run/postgrey.sock or tcp:127.0.0.1:10023"),
        ):
            refusal = self.refusal({}, f'[[policy_service]]\nendpoint = "{endpoint}"')
            self.assertIn(text, refusal)
            self.assertIn("unix:/run/postgrey.sock or tcp:127.0.0.1:10023", refusal)

    def test_one_service_has_a_table_for_each_stage(self) -> None:
        table = '[[policy_service]]\nendpoint = "tcp:host:10023"\n'
        self.assertEqual(len(self.load({}, f'{table}{table}at = "end"').policy_services), 2)
        self.assertIn(
            '[[policy_service]] endpoint = "tcp:host:10023", at = "rcpt": found two',
            self.refusal({}, table * 2),
        )

    def test_a_context_is_one_line(self) -> None:
        text = '[[policy_service]]\nendpoint = "tcp:host:1"\npolicy_context = "a\\nrequest=x"'
        self.assertIn("unprintable characters", self.refusal({}, text))
