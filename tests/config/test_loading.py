"""Loading: defaults, what wins, what adds up, and the texts of errors."""

import os
import pydoc
from ipaddress import ip_network

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

from twisted_mta import config, service
from twisted_mta.config import Config, ConfigError, Listener, QueueSettings, load
from twisted_mta.config.loading import load_leniently
from twisted_mta.mail.next_hop import Host

from .loading import ConfigTestCase


class Listening(ConfigTestCase):
    def kinds(self, *given: object) -> list[tuple[str, str]]:
        return [(one.kind, one.endpoint) for one in self.load(*given).listeners]  # type: ignore[arg-type]

    def test_an_option_for_lmtp_replaces_the_default_listener(self) -> None:
        self.assertEqual(
            self.kinds({"lmtp": ["tcp:24", "unix:/run/mta.lmtp"]}),
            [("lmtp", "tcp:24"), ("lmtp", "unix:/run/mta.lmtp")],
        )

    def test_listeners_of_all_kinds_add_up(self) -> None:
        self.assertEqual(
            self.kinds(
                {"smtp": ["tcp:25"], "lmtp": ["tcp:24"]},
                '[[listener]]\nkind = "lmtp"\nendpoint = "tcp:26"',
            ),
            [("smtp", "tcp:25"), ("lmtp", "tcp:24"), ("lmtp", "tcp:26")],
        )

    def test_the_option_lmtp_off_wins_over_the_file(self) -> None:
        self.assertEqual(self.kinds({}, '[mta]\nlmtp = "tcp:24"'), [("lmtp", "tcp:24")])
        default = [("smtp", "tcp:2525:interface=127.0.0.1")]
        self.assertEqual(self.kinds({"lmtp": ["off"]}, '[mta]\nlmtp = "tcp:24"'), default)

    def test_lmtp_is_refused_on_port_25(self) -> None:
        self.assertEqual(
            self.refusal({"lmtp": ["tcp:25"]}),
            'endpoint = "tcp:25": port 25 is for SMTP alone; expected another, such as tcp:24',
        )

    def test_lmtp_with_relay_certificates_is_refused(self) -> None:
        toml = (
            '[[listener]]\nkind = "lmtp"\nendpoint = "tcp:24"\nclient_certificates = "ask"\n'
            f'relay_certificates = ["{"ab" * 32}"]'
        )
        self.assertIn('lmtp does not relay; expected kind = "smtp"', self.refusal({}, toml))


class Defaults(ConfigTestCase):
    def test_in_python_nothing_listens(self) -> None:
        config = Config()
        self.assertEqual((config.listeners, config.web), ((), None))
        self.assertEqual((config.hostname, config.local_domains), ("localhost", ("localhost",)))

    def test_without_options_smtp_and_the_page_are_on_loopback(self) -> None:
        config = self.load()
        self.assertEqual(config.listeners, (Listener(endpoint="tcp:2525:interface=127.0.0.1"),))
        self.assertEqual(config.web, "tcp:8025:interface=127.0.0.1")
        self.assertEqual(config.relay_from, (ip_network("127.0.0.0/8"), ip_network("::1/128")))
        self.assertEqual(config.local_domains, ("localhost", "mail.example.net"))
        self.assertEqual(config.state_dir, os.path.abspath("mta-state"))
        self.assertEqual(config.maildir, os.path.abspath("mta-state/maildir"))

    def test_an_application_can_do_without_the_default_ports(self) -> None:
        config = load({}, None, machine_name=lambda: "mail.example.net", default_ports=False)
        self.assertEqual((config.listeners, config.web), ((), None))
        given = load({"smtp": ["tcp:25"], "web": "tcp:80"}, None, default_ports=False)
        self.assertEqual([each.endpoint for each in given.listeners], ["tcp:25"])
        self.assertEqual(given.web, "tcp:80")

    def test_help_on_the_names_of_python_does_not_show_the_environment(self) -> None:
        os.environ["MTA_TEST_SECRET"] = "hunter2"
        self.addCleanup(os.environ.pop, "MTA_TEST_SECRET")
        for name in (config, service):
            self.assertFalse("hunter2" in pydoc.render_doc(name), name)

    def test_the_machines_name_is_the_hostname_only_if_it_is_a_full_name(self) -> None:
        for machine, hostname in (
            ("mail.example.net", "mail.example.net"),
            ("vm", "localhost"),
            ("not a name.at all", "localhost"),
        ):
            self.assertEqual(self.load(machine=machine).hostname, hostname)

    def test_a_given_hostname_is_used_as_written(self) -> None:
        config = self.load({"hostname": "MX1"})
        self.assertEqual((config.hostname, config.helo), ("MX1", "MX1"))
        self.assertEqual(config.local_domains, ("localhost", "mx1"))

    def test_the_state_directory_of_systemd_is_the_default(self) -> None:
        environment = {"STATE_DIRECTORY": "/var/lib/mta:/var/lib/other"}
        self.assertEqual(self.load(environment=environment).state_dir, "/var/lib/mta")
        config = self.load({"state-dir": "/srv/mta"}, environment=environment)
        self.assertEqual((config.state_dir, config.maildir), ("/srv/mta", "/srv/mta/maildir"))

    def test_any_local_part_exists_only_if_all_listeners_are_on_loopback(self) -> None:
        for places, recipients in (
            (["tcp:2525:interface=127.0.0.1", "unix:/run/mta.sock"], "any"),
            ([r"tcp6:2525:interface=\:\:1", "tcp:25:interface=localhost"], "any"),
            (["tcp:2525:interface=127.0.0.1", "tcp:25"], "existing"),
            (["tcp:25:interface=192.0.2.1"], "existing"),
            (["systemd:domain=INET:index=0"], "existing"),
            (["off"], "any"),
        ):
            self.assertEqual(self.load({"smtp": places}).recipients, recipients, places)
        config = self.load({"smtp": ["tcp:25"], "recipients": "any"})
        self.assertEqual(config.recipients, "any")

    def test_the_key_is_in_the_file_of_the_certificate_by_default(self) -> None:
        config = self.load({"tls-certificate": "/etc/mta.pem"})
        self.assertEqual(config.tls_key, "/etc/mta.pem")


class Sources(ConfigTestCase):
    def test_an_option_wins_over_the_file(self) -> None:
        toml = '[mta]\nhostname = "a.example"\nlocal_domains = ["a.example"]\nqueue = "sqlite:"\n'
        config = self.load(
            {"hostname": "b.example", "local-domain": ["B.example.", "bücher.example"]}, toml
        )
        self.assertEqual(config.hostname, "b.example")
        self.assertEqual(config.local_domains, ("b.example", "xn--bcher-kva.example"))
        self.assertEqual(self.load({}, toml).local_domains, ("a.example",))

    def test_listener_options_and_tables_add_up(self) -> None:
        toml = '[[listener]]\nendpoint = "tcp:25"\n[[listener]]\nendpoint = "tcp:26"\n'
        for options, places in (
            ({}, ["tcp:25", "tcp:26"]),
            ({"smtp": ["tcp:27"]}, ["tcp:27", "tcp:25", "tcp:26"]),
            ({"smtp": ["off"]}, ["tcp:25", "tcp:26"]),
        ):
            config = self.load(options, toml)
            self.assertEqual([listener.endpoint for listener in config.listeners], places)

    def test_off_listens_nowhere(self) -> None:
        config = self.load({"smtp": ["off"], "web": "off"})
        self.assertEqual((config.listeners, config.web), ((), None))
        config = self.load({}, '[mta]\nsmtp = "off"\nweb = "off"\nlmtp = "off"\nworkers = 1\n')
        self.assertEqual((config.listeners, config.web), ((), None))

    def test_limits_of_the_mta_table_apply_to_listeners_without_their_own(self) -> None:
        config = self.load(
            {"smtp": ["tcp:27"]},
            """
            [mta]
            max_message_size = "10 MiB"
            command_timeout = "1 min"
            [[listener]]
            endpoint = "tcp:25"
            max_message_size = "1 GiB"
            """,
        )
        limits = [(one.max_message_size, one.command_timeout) for one in config.listeners]
        self.assertEqual(limits, [(10 << 20, 60.0), (1 << 30, 60.0)])

    def test_the_file_gives_settings_of_all_tables(self) -> None:
        config = self.load(
            {},
            """
            [mta]
            routes = {"*" = "smtp://relay.example.net:2525", ".Example.ORG" = "discard:"}
            relay_from = ["192.0.2.0/24", "2001:db8::/32"]
            [queue]
            retry_minimum = 30
            lifetime = "2 days"
            [delivery]
            helo = "out.example.net"
            tls = "encrypt"
            [dns]
            nameservers = ["127.0.0.1:5353", "::1", "[2001:db8::1]:54"]
            [log]
            format = "json"
            [web]
            hosts = ["Page.example", "b\u00fccher.example"]
            """,
        )
        self.assertEqual(
            config.routes, (("*", "smtp://relay.example.net:2525"), (".example.org", "discard:"))
        )
        self.assertEqual(config.relay_from[1], ip_network("2001:db8::/32"))
        self.assertEqual((config.queue.retry_minimum, config.queue.lifetime), (30.0, 172800.0))
        self.assertEqual((config.log.format, Config().log.format), ("json", "text"))
        self.assertEqual(config.web_page.hosts, ("Page.example", "xn--bcher-kva.example"))
        self.assertEqual((config.helo, config.delivery.tls), ("out.example.net", "encrypt"))
        self.assertEqual(
            config.dns.nameservers,
            (Host("127.0.0.1", 5353), Host("::1", 53), Host("2001:db8::1", 54)),
        )

    def test_each_kind_of_route_is_accepted(self) -> None:
        for url in (
            "smtp://a,b:2525",
            "smtps://a",
            "lmtp://127.0.0.1:24",
            "lmtp+unix:/run/lmtp",
            "maildir:",
            "discard:",
        ):
            self.assertEqual(self.load({"route": [f"*={url}"]}).routes, (("*", url),))

    def test_virtual_domains_need_aliases_and_are_not_local(self) -> None:
        toml = '[mta]\nvirtual_domains = ["A.example."]\n'
        self.assertEqual(
            self.refusal({}, toml),
            'FILE: virtual_domains = ["a.example"]: no aliases exist;'
            " expected aliases, the path of a file",
        )
        config = self.load({}, f'{toml}aliases = "/etc/aliases"')
        self.assertEqual(config.virtual_domains, ("a.example",))
        self.assertEqual(config.aliases, "/etc/aliases")
        self.assertIn(
            "a.example is one of local_domains too; expected it in one of the two",
            self.refusal({"local-domain": ["a.example"]}, f'{toml}aliases = "f"'),
        )

    def test_an_empty_list_of_local_domains_is_refused(self) -> None:
        self.assertEqual(
            self.refusal({}, "[mta]\nlocal_domains = []\n"),
            'FILE: local_domains = []: expected at least one, such as ["mail.example.net"]',
        )

    def test_the_domain_of_srs_is_the_first_local_domain_with_a_dot(self) -> None:
        for local_domains, toml, expected in (
            (["localhost", "a.example", "b.example"], "", "a.example"),
            (["localhost", "[192.0.2.1]"], "", None),
            (["a.example"], 'srs_domain = "off"', None),
            (["a.example"], 'srs_domain = "SRS.example"', "srs.example"),
        ):
            config = self.load({"local-domain": local_domains}, f"[mta]\n{toml}")
            self.assertEqual(config.srs_domain, expected)

    def test_the_pattern_of_a_route_option_ends_at_the_first_equals_sign(self) -> None:
        config = self.load({"route": ["example.net=error:5.1.1 gone = away"]})
        self.assertEqual(config.routes, (("example.net", "error:5.1.1 gone = away"),))

    def test_python_accepts_the_same_values_as_the_file(self) -> None:
        self.assertEqual(QueueSettings(lifetime="5 days"), QueueSettings(lifetime=432000.0))
        error = self.assertRaises(ConfigError, QueueSettings, lifetime="soon")
        self.assertIn('lifetime = "soon": not a duration; expected one such as "30 s"', str(error))
        error = self.assertRaises(ConfigError, Config, listeners=["tcp:25"])
        self.assertIn("expected a list of Listener", str(error))


class Refusals(ConfigTestCase):
    def test_an_error_names_file_key_value_and_expectation(self) -> None:
        for toml, text in (
            (
                '[queue]\nlifetime = "5 dys"',
                'FILE: [queue] lifetime = "5 dys": not a duration;'
                ' expected one such as "30 s", "5 min", "1 h" or "5 days"',
            ),
            (
                "[mta]\nhostname = 3",
                "FILE: [mta] hostname = 3: found a number, expected one string:"
                " a domain name such as mail.example.net",
            ),
            (
                '[mta]\nrelay_from = ["10.0.0.0/8", "10.1.2.3/16"]',
                'FILE: [mta] relay_from = ["10.0.0.0/8", "10.1.2.3/16"]: "10.1.2.3/16":'
                " bits are set beyond the prefix; expected 10.1.0.0/16",
            ),
            (
                '[mta]\nlocal_domains = "example.net"',
                'FILE: [mta] local_domains = "example.net": found a string,'
                " expected a list of domains",
            ),
            (
                '[[listener]]\nendpoint = "tcp:1"\n[[listener]]\nendpoint = "unix:/a"\n'
                "max_hops = true",
                "FILE: [[listener]] 2, max_hops = true: found true,"
                " expected a whole number from 1 to 10000",
            ),
            (
                "[mta]\nmaildir = 3",
                "FILE: [mta] maildir = 3: found a number,"
                " expected one string: the path of a directory",
            ),
            (
                '[mta]\nmaildir = "~/Maildir"',
                'FILE: [mta] maildir = "~/Maildir": only a shell replaces ~;'
                f" expected the whole path, such as {os.path.expanduser('~/Maildir')}",
            ),
            (
                '[mta]\naliases = "$HOME/aliases"',
                'FILE: [mta] aliases = "$HOME/aliases": only a shell replaces variables;'
                " expected the whole path",
            ),
            (
                '[mta]\nsmtp = "unix:~nobody-of-that-name/mta.sock"',
                'FILE: [mta] smtp = "unix:~nobody-of-that-name/mta.sock": only a shell replaces ~;'
                " expected the whole path, such as /home/nobody-of-that-name/mta.sock",
            ),
            (
                '[[listener]]\nkind = "smtp"',
                "FILE: [[listener]] 1 has no endpoint;"
                ' expected one such as endpoint = "tcp:2525:interface=127.0.0.1"',
            ),
            (
                '[delivery]\ntls = "always"',
                'FILE: [delivery] tls = "always": expected "auto", "none", "may", "encrypt",'
                ' "verify", "dane" or "mta-sts"',
            ),
            (
                '[mta]\nroutes = {"*" = "smpt://a"}',
                'FILE: [mta] routes = {"*": "smpt://a"}: "smpt://a" is not a route;'
                " expected a URL of smtp:, smtps:, lmtp:, lmtp+unix:, maildir:, discard:, deliver:"
                " or error:",
            ),
            (
                '[queue]\nretry_minimum = "2 h"',
                'FILE: [queue] retry_minimum = "2 h": longer than retry_maximum = "1 h";'
                " expected at most as long",
            ),
            ("mta = 3", "FILE: mta = 3: found a number, expected a table, below a line [mta]"),
            (
                '[listener]\nendpoint = "tcp:1"',
                'FILE: listener = {"endpoint": "tcp:1"}:'
                " found a table, expected tables, each below a line [[listener]]",
            ),
        ):
            self.assertEqual(self.refusal({}, toml), text)

    def test_a_value_of_the_wrong_type_says_what_was_found(self) -> None:
        for value, name in (
            ("5", "a number"),
            ("2.5", "a number"),
            ("true", "true"),
            ("[]", "a list"),
            ("{}", "a table"),
            ("2026-01-01", "a date or time"),
        ):
            for table, key in (
                ("mta", "hostname"),
                ("mta", "recipients"),
                ("mta", "users"),
                ("mta", "queue"),
                ("mta", "auth"),
                ("dns", "nameservers"),
                ("delivery", "helo"),
                ("log", "format"),
            ):
                if (key, value) not in (("nameservers", "[]"),):
                    refusal = self.refusal({}, f"[{table}]\n{key} = {value}")
                    self.assertIn(f": found {name}, expected ", refusal)
        for value, name in (("[]", "a list"), ("{}", "a table"), ("true", "true")):
            for table, key in (
                ("mta", "workers"),
                ("mta", "message_memory"),
                ("mta", "max_message_size"),
                ("queue", "lifetime"),
                ("delivery", "port"),
            ):
                refusal = self.refusal({}, f"[{table}]\n{key} = {value}")
                self.assertIn(f" = {value}: found {name}, expected ", refusal)

    def test_a_checker_that_is_an_object_is_told_where_to_go(self) -> None:
        checker = InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")
        error = self.assertRaises(ConfigError, Config, auth=checker)
        self.assertIn("MailTransferAgent(checkers=[...])", str(error))
        self.assertNotIn("secret", str(error))

    def test_an_error_names_the_option(self) -> None:
        for options, text in (
            (
                {"smtp": ["tpc:25"]},
                '--smtp tpc:25: "tpc" is not a kind of endpoint; did you mean tcp:?',
            ),
            (
                {"web": "tcp:80800"},
                '--web tcp:80800: "80800" is not a port from 0 to 65535;'
                " expected tcp:25, tcp:2525:interface=127.0.0.1 or unix:/run/mta.sock",
            ),
            (
                {"smtp": ["off", "tcp:25"]},
                '--smtp off tcp:25: "off" beside endpoints;'
                ' expected "off" alone, or endpoints alone',
            ),
            (
                {"route": ["example.net"]},
                '--route example.net: "example.net": PATTERN=URL without an equals'
                ' sign; expected one such as "*=smtp://relay.example.net:25"',
            ),
            (
                {"local-domain": ["a\x1bb"]},
                "--local-domain a\\x1bb: not a domain name; expected one such as mail.example.net",
            ),
        ):
            self.assertEqual(self.refusal(options), text)

    def test_an_unknown_name_gets_a_suggestion(self) -> None:
        for toml, text in (
            (
                '[mta]\nhostnam = "a"',
                '[mta] hostnam = "a": no such setting; did you mean hostname?',
            ),
            (
                '[mta]\nlifetime = "1 h"',
                '[mta] lifetime = "1 h": not a setting of this table;'
                " expected below [queue] or [[destination]] or [[webhook]]",
            ),
            (
                "[queue]\nmax_hops = 3",
                "[queue] max_hops = 3: not a setting of this table;"
                " expected below [mta] or [[listener]]",
            ),
            (
                "[dns]\nq = 3",
                "[dns] q = 3: no such setting; expected nameservers, timeout, trust_ad,"
                " signed_name, bogus_name",
            ),
            ('hostname = "a"', 'hostname = "a": outside of all tables; expected below [mta]'),
            ("[qeue]\na = 1", "[qeue]: no such table; did you mean queue?"),
        ):
            self.assertEqual(self.refusal({}, toml), f"FILE: {text}")
        self.assertEqual(
            self.refusal({"local-domains": ["a"]}),
            "--local-domains: no such option; did you mean --local-domain?",
        )

    def test_the_queue_is_here_or_in_a_database_without_a_password_in_its_url(self) -> None:
        url = "postgresql://mta@db.example/mta?sslmode=verify-full"
        self.assertEqual(self.load({"queue": url}).queue.database, url)
        self.assertIsNone(self.load({}).queue.database)
        for url, text in (
            ("postgres:", 'expected "sqlite:", the database in the state directory, or'),
            ("postgresql://mta:secret@db/mta", "a password is in it; expected none: libpq reads"),
            ("postgresql://db/mta?password=secret", "a password is in it; expected none: libpq"),
        ):
            refusal = self.refusal({"queue": url})
            self.assertIn(text, refusal)
            self.assertNotIn("secret", refusal)
        self.assertEqual(self.load({"queue": "postgresql:///mta", "workers": "2"}).workers, 2)

    def test_two_listeners_on_one_endpoint_are_refused(self) -> None:
        self.assertEqual(
            self.refusal({"smtp": ["tcp:25"], "web": "tcp:25"}),
            'web = "tcp:25": smtp listens there; expected another endpoint',
        )
        self.assertEqual(len(self.load({"smtp": ["tcp:0"], "web": "tcp:0"}).listeners), 1)

    def test_unescaped_colons_within_an_address_are_refused(self) -> None:
        self.assertEqual(
            self.refusal({"smtp": ["tcp6:25:interface=::1"]}),
            r"--smtp tcp6:25:interface=::1: unescaped colons within an address; expected \:, as in"
            r" tcp6:25:interface=\:\:1",
        )

    def test_a_key_needs_its_certificate(self) -> None:
        self.assertEqual(
            self.refusal({"tls-key": "/key.pem"}),
            'tls_key = "/key.pem": tls_certificate is missing; expected both or neither',
        )

    def test_two_routes_of_one_canonical_pattern_are_refused(self) -> None:
        self.assertIn(
            '"example.net" has two routes',
            self.refusal({"route": ["Example.net=discard:", "example.NET.=maildir:"]}),
        )

    def test_a_refused_key_is_not_said_to_be_missing(self) -> None:
        for toml in (
            '[acme]\ndirectory = "ftp://x"',
            '[feedback]\naddress = "fbl"',
            '[[reply_action]]\naction = "fail"\ncode = "9"',
            '[[destination]]\ndomain = "a.example"\nusername = "me"\ntoken_command = "\'x"',
            '[[listener]]\nendpoint = "tcp:2525"\nclient_certificate_authorities = 3\n'
            'client_certificates = "require"',
        ):
            error = self.assertRaises(ConfigError, self.load, {}, toml)
            self.assertEqual([str(each) for each in error.others], [], toml)
            _, errors = load_leniently({}, self.file)
            self.assertEqual(len(errors), 1, errors)

    def test_an_error_in_toml_names_the_line(self) -> None:
        self.assertIn("FILE: not TOML: ", self.refusal({}, "[mta\n"))
        self.assertIn("(at line 1, ", self.refusal({}, "[mta\n"))
        self.assertIn("FILE: not readable TOML: ", self.refusal({}, "a = " + "[" * 5000))

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        error = self.assertRaises(ConfigError, load, {}, "/nowhere/mta.toml")
        self.assertIn(
            "--config /nowhere/mta.toml: cannot be read: No such file or directory; ", str(error)
        )
