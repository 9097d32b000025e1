"""Settings: what is so by default, what wins, and what an error tells."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from ipaddress import ip_network

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config import (
    Config,
    ConfigError,
    Listener,
    QueueSettings,
    RelayCertificate,
    load,
)
from twisted_mta.config.endpoint import Endpoint, endpoint
from twisted_mta.config.setting import duration, duration_text, size, size_text
from twisted_mta.mail.next_hop import Host
from twisted_mta.mail.tls_facts import TLSFacts

Options = Mapping[str, Sequence[str] | str]


class ConfigTestCase(SynchronousTestCase):
    def load(
        self,
        options: Options | None = None,
        toml: str | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        machine: str = "mail.example.net",
    ) -> Config:
        self.file = None
        if toml is not None:
            directory = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, directory)
            self.file = os.path.join(directory, "mta.toml")
            with open(self.file, "w", encoding="utf-8") as written:
                written.write(toml)
        return load(
            options or {}, self.file, environment=environment or {}, machine_name=lambda: machine
        )

    def refusal(self, options: Options | None = None, toml: str | None = None) -> str:
        """Return what an error says, with the path of the file as FILE."""
        error = self.assertRaises(ConfigError, self.load, options, toml)
        text = str(error)
        self.assertNotIn("\n", text)
        return text.replace(str(self.file), "FILE")


class Listening(ConfigTestCase):
    def kinds(self, *given: object) -> list[tuple[str, str]]:
        return [(one.kind, one.endpoint) for one in self.load(*given).listeners]  # type: ignore[arg-type]

    def test_an_option_for_lmtp_stands_for_the_default_listener(self) -> None:
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

    def test_lmtp_in_the_file_and_off(self) -> None:
        self.assertEqual(self.kinds({}, '[mta]\nlmtp = "tcp:24"'), [("lmtp", "tcp:24")])
        default = [("smtp", "tcp:2525:interface=127.0.0.1")]
        self.assertEqual(self.kinds({"lmtp": ["off"]}, '[mta]\nlmtp = "tcp:24"'), default)

    def test_lmtp_is_not_spoken_where_smtp_is_expected(self) -> None:
        self.assertEqual(
            self.refusal({"lmtp": ["tcp:25"]}),
            'endpoint = "tcp:25": port 25 is for SMTP alone; tcp:24 would do',
        )

    def test_lmtp_grants_no_relaying(self) -> None:
        toml = (
            '[[listener]]\nkind = "lmtp"\nendpoint = "tcp:24"\nclient_certificates = "ask"\n'
            f'relay_certificates = ["{"ab" * 32}"]'
        )
        self.assertIn(
            'lmtp takes mail for local mailboxes alone; kind = "smtp"', self.refusal({}, toml)
        )


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

    def test_the_machines_name_counts_when_others_can_know_it(self) -> None:
        for machine, hostname in (
            ("mail.example.net", "mail.example.net"),
            ("vm", "localhost"),
            ("not a name.at all", "localhost"),
        ):
            self.assertEqual(self.load(machine=machine).hostname, hostname)

    def test_a_hostname_that_is_given_is_taken_as_it_is(self) -> None:
        config = self.load({"hostname": "MX1"})
        self.assertEqual((config.hostname, config.helo), ("MX1", "MX1"))
        self.assertEqual(config.local_domains, ("localhost", "mx1"))

    def test_the_state_directory_of_systemd_comes_before_the_default(self) -> None:
        environment = {"STATE_DIRECTORY": "/var/lib/mta:/var/lib/other"}
        self.assertEqual(self.load(environment=environment).state_dir, "/var/lib/mta")
        config = self.load({"state-dir": "/srv/mta"}, environment=environment)
        self.assertEqual((config.state_dir, config.maildir), ("/srv/mta", "/srv/mta/maildir"))

    def test_every_local_part_exists_only_while_others_cannot_reach_us(self) -> None:
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

    def test_the_key_is_in_the_file_of_the_certificate_unless_said(self) -> None:
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

    def test_limits_hold_for_all_listeners_unless_one_has_its_own(self) -> None:
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

    def test_the_file_says_the_rest(self) -> None:
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
            """,
        )
        self.assertEqual(
            config.routes, (("*", "smtp://relay.example.net:2525"), (".example.org", "discard:"))
        )
        self.assertEqual(config.relay_from[1], ip_network("2001:db8::/32"))
        self.assertEqual((config.queue.retry_minimum, config.queue.lifetime), (30.0, 172800.0))
        self.assertEqual((config.log.format, Config().log.format), ("json", "text"))
        self.assertEqual((config.helo, config.delivery.tls), ("out.example.net", "encrypt"))
        self.assertEqual(
            config.dns.nameservers,
            (Host("127.0.0.1", 5353), Host("::1", 53), Host("2001:db8::1", 54)),
        )

    def test_each_kind_of_route_is_taken(self) -> None:
        for url in (
            "smtp://a,b:2525",
            "smtps://a",
            "lmtp://127.0.0.1:24",
            "lmtp+unix:/run/lmtp",
            "maildir:",
            "discard:",
        ):
            self.assertEqual(self.load({"route": [f"*={url}"]}).routes, (("*", url),))

    def test_virtual_domains_have_aliases_and_are_not_local(self) -> None:
        toml = '[mta]\nvirtual_domains = ["A.example."]\n'
        self.assertEqual(
            self.refusal({}, toml),
            'FILE: virtual_domains = ["a.example"]: no mailbox exists there;'
            " aliases with a file of them would do",
        )
        config = self.load({}, f'{toml}aliases = "/etc/aliases"')
        self.assertEqual(config.virtual_domains, ("a.example",))
        self.assertEqual(config.aliases, "/etc/aliases")
        self.assertIn(
            "a.example is among local_domains as well",
            self.refusal({"local-domain": ["a.example"]}, f'{toml}aliases = "f"'),
        )

    def test_one_domain_at_least_is_local(self) -> None:
        self.assertEqual(
            self.refusal({}, "[mta]\nlocal_domains = []\n"),
            'FILE: local_domains = []: at least one, such as ["mail.example.net"], would do',
        )

    def test_notices_come_back_to_a_domain_that_others_can_find(self) -> None:
        for local_domains, toml, expected in (
            (["localhost", "a.example", "b.example"], "", "a.example"),
            (["localhost", "[192.0.2.1]"], "", None),
            (["a.example"], 'srs_domain = "off"', None),
            (["a.example"], 'srs_domain = "SRS.example"', "srs.example"),
        ):
            config = self.load({"local-domain": local_domains}, f"[mta]\n{toml}")
            self.assertEqual(config.srs_domain, expected)

    def test_a_route_option_has_its_pattern_before_the_first_equals_sign(self) -> None:
        config = self.load({"route": ["example.net=error:5.1.1 gone = away"]})
        self.assertEqual(config.routes, (("example.net", "error:5.1.1 gone = away"),))

    def test_python_takes_what_the_file_takes(self) -> None:
        self.assertEqual(QueueSettings(lifetime="5 days"), QueueSettings(lifetime=432000.0))
        error = self.assertRaises(ConfigError, QueueSettings, lifetime="soon")
        self.assertIn('lifetime = "soon": not a duration; "30 s"', str(error))
        error = self.assertRaises(ConfigError, Config, listeners=["tcp:25"])
        self.assertIn("a list of Listener would do", str(error))


class Refusals(ConfigTestCase):
    def test_they_name_file_key_and_value_and_what_would_do(self) -> None:
        for toml, text in (
            (
                '[queue]\nlifetime = "5 dys"',
                'FILE: [queue] lifetime = "5 dys": not a duration;'
                ' "30 s", "5 min", "1 h" or "5 days" would do',
            ),
            (
                "[mta]\nhostname = 3",
                "FILE: [mta] hostname = 3: a domain name such as mail.example.net would do",
            ),
            (
                '[mta]\nrelay_from = ["10.0.0.0/8", "10.1.2.3/16"]',
                'FILE: [mta] relay_from = ["10.0.0.0/8", "10.1.2.3/16"]: "10.1.2.3/16":'
                " it has bits set beyond its prefix; 10.1.0.0/16 would do",
            ),
            (
                '[mta]\nlocal_domains = "example.net"',
                'FILE: [mta] local_domains = "example.net": a list of domains would do',
            ),
            (
                '[[listener]]\nendpoint = "tcp:1"\n[[listener]]\nendpoint = "unix:/a"\n'
                "max_hops = true",
                "FILE: [[listener]] 2, max_hops = true: a whole number from 1 to 10000 would do",
            ),
            ("[mta]\nmaildir = 3", "FILE: [mta] maildir = 3: the path of a directory would do"),
            (
                '[[listener]]\nkind = "smtp"',
                "FILE: [[listener]] 1 has no endpoint;"
                ' endpoint = "tcp:2525:interface=127.0.0.1" would do',
            ),
            (
                '[delivery]\ntls = "always"',
                'FILE: [delivery] tls = "always": "none", "may", "encrypt" or "verify" would do',
            ),
            (
                '[mta]\nroutes = {"*" = "smpt://a"}',
                'FILE: [mta] routes = {"*": "smpt://a"}: "smpt://a" is no route;'
                " smtp:, smtps:, lmtp:, lmtp+unix:, maildir:, discard:, error: with what belongs to"
                " it would do",
            ),
            (
                '[queue]\nretry_minimum = "2 h"',
                'FILE: retry_minimum = "2 h": longer than retry_maximum = "1 h";'
                " at most as long would do",
            ),
            ("mta = 3", "FILE: mta = 3: a table, under a line [mta], would do"),
            (
                '[listener]\nendpoint = "tcp:1"',
                'FILE: listener = {"endpoint": "tcp:1"}:'
                " tables, each under a line [[listener]], would do",
            ),
        ):
            self.assertEqual(self.refusal({}, toml), text)

    def test_they_name_the_option(self) -> None:
        for options, text in (
            (
                {"smtp": ["tpc:25"]},
                '--smtp tpc:25: "tpc" is no kind of endpoint; did you mean tcp:?',
            ),
            (
                {"web": "tcp:80800"},
                '--web tcp:80800: "80800" is no port from 0 to 65535;'
                " tcp:25, tcp:2525:interface=127.0.0.1 or unix:/run/mta.sock would do",
            ),
            (
                {"smtp": ["off", "tcp:25"]},
                '--smtp off tcp:25: "off" stands alone; leave it out, or all the others',
            ),
            (
                {"route": ["example.net"]},
                '--route example.net: "example.net": PATTERN=URL has an equals sign;'
                ' "*=smtp://relay.example.net:25" would do',
            ),
            (
                {"local-domain": ["a\x1bb"]},
                "--local-domain a\\x1bb: not a domain name; one such as mail.example.net would do",
            ),
        ):
            self.assertEqual(self.refusal(options), text)

    def test_a_name_that_is_not_known_is_answered_with_one_that_is(self) -> None:
        for toml, text in (
            (
                '[mta]\nhostnam = "a"',
                '[mta] hostnam = "a": no such setting; did you mean hostname?',
            ),
            (
                '[mta]\nlifetime = "1 h"',
                '[mta] lifetime = "1 h": it belongs in [queue] or [[destination]]',
            ),
            ("[queue]\nmax_hops = 3", "[queue] max_hops = 3: it belongs in [mta] or [[listener]]"),
            (
                "[dns]\nq = 3",
                "[dns] q = 3: no such setting; there are nameservers, timeout, trust_ad",
            ),
            ('hostname = "a"', 'hostname = "a": it stands in no table; below [mta] it would do'),
            ("[qeue]\na = 1", "[qeue] is no table; did you mean queue?"),
        ):
            self.assertEqual(self.refusal({}, toml), f"FILE: {text}")
        self.assertEqual(
            self.refusal({"local-domains": ["a"]}),
            "--local-domains: no such option; did you mean --local-domain?",
        )

    def test_what_is_not_built_yet_is_refused_by_name(self) -> None:
        for toml, text in (
            (
                '[mta]\nqueue = "postgresql://db/mail"',
                '[mta] queue = "postgresql://db/mail": postgresql is not built yet;'
                ' "sqlite:" would do',
            ),
            (
                '[delivery]\ntls = "dane"',
                '[delivery] tls = "dane": "dane" is not built yet;'
                ' "none", "may", "encrypt" or "verify" would do',
            ),
        ):
            self.assertEqual(self.refusal({}, toml), f"FILE: {text}")

    def test_two_on_one_endpoint_are_refused(self) -> None:
        self.assertEqual(
            self.refusal({"smtp": ["tcp:25"], "web": "tcp:25"}),
            'web = "tcp:25": smtp listens there already; another endpoint would do',
        )
        self.assertEqual(len(self.load({"smtp": ["tcp:0"], "web": "tcp:0"}).listeners), 1)

    def test_colons_within_an_address_are_escaped(self) -> None:
        self.assertEqual(
            self.refusal({"smtp": ["tcp6:25:interface=::1"]}),
            r"--smtp tcp6:25:interface=::1: a colon within an address is written \:, as in"
            r" tcp6:25:interface=\:\:1",
        )

    def test_a_key_needs_its_certificate(self) -> None:
        self.assertEqual(
            self.refusal({"tls-key": "/key.pem"}),
            'tls_key = "/key.pem": a key without tls_certificate; both, or neither, would do',
        )

    def test_two_routes_of_one_pattern_are_refused_however_it_is_written(self) -> None:
        self.assertIn(
            '"example.net" has two routes',
            self.refusal({"route": ["Example.net=discard:", "example.NET.=maildir:"]}),
        )

    def test_a_file_that_is_no_toml_says_where(self) -> None:
        self.assertIn("FILE: not TOML: ", self.refusal({}, "[mta\n"))
        self.assertIn("(at line 1, ", self.refusal({}, "[mta\n"))
        self.assertIn("FILE: not TOML that can be read: ", self.refusal({}, "a = " + "[" * 5000))

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        error = self.assertRaises(ConfigError, load, {}, "/nowhere/mta.toml")
        self.assertIn("--config /nowhere/mta.toml: No such file or directory; ", str(error))


PINNED = "0123456789abcdef" * 4
COLONS = ":".join(PINNED[at : at + 2].upper() for at in range(0, 64, 2))


class TLSOfListeners(ConfigTestCase):
    def listener(self, toml: str) -> Listener:
        config = self.load({}, f'[[listener]]\nendpoint = "tcp:25"\n{toml}')
        return config.listeners[0]

    def test_by_default_nothing_is_demanded(self) -> None:
        plain = Listener(endpoint="tcp:25")
        self.assertEqual(
            (plain.require_tls, plain.implicit_tls, plain.minimum_tls, plain.minimum_cipher_bits),
            (False, False, "1.2", 0),
        )
        self.assertEqual(
            (plain.client_certificates, plain.client_certificate_authorities), ("none", None)
        )
        self.assertEqual((plain.ciphers, plain.sni), (None, ()))
        self.assertEqual((plain.relay_certificates, plain.require_tls_from), ((), ()))

    def test_the_file_says_all_of_it(self) -> None:
        listener = self.listener(
            f"""
            implicit_tls = true
            minimum_cipher_bits = 128
            ciphers = "ECDHE+AESGCM"
            client_certificates = "require"
            client_certificate_authorities = "/etc/mta/clients.pem"
            require_tls_from = ["192.0.2.0/24", "2001:db8::1"]
            relay_certificates = [
                "{COLONS}",
                {{issuer = "CN=CA,O=Example", subject = "CN=a\\\\,b"}},
            ]
            [[listener.sni]]
            names = ["Mail.example.org", "*.example.org"]
            certificate = "/etc/mta/org.pem"
            [[listener.sni]]
            names = ["bücher.example"]
            certificate = "/etc/mta/b.pem"
            key = "/etc/mta/b.key"
            """
        )
        self.assertTrue(listener.implicit_tls)
        self.assertEqual((listener.ciphers, listener.minimum_cipher_bits), ("ECDHE+AESGCM", 128))
        self.assertEqual(
            (listener.client_certificates, listener.client_certificate_authorities),
            ("require", "/etc/mta/clients.pem"),
        )
        self.assertEqual(
            listener.require_tls_from, (ip_network("192.0.2.0/24"), ip_network("2001:db8::1"))
        )
        self.assertEqual(
            listener.relay_certificates,
            (RelayCertificate(PINNED), RelayCertificate(None, "CN=CA,O=Example", "CN=a\\,b")),
        )
        self.assertEqual(
            [(each.names, each.certificate, each.key) for each in listener.sni],
            [
                (("mail.example.org", "*.example.org"), "/etc/mta/org.pem", "/etc/mta/org.pem"),
                (("xn--bcher-kva.example",), "/etc/mta/b.pem", "/etc/mta/b.key"),
            ],
        )

    def test_what_cannot_be_is_refused_with_what_would_do(self) -> None:
        for toml, text in (
            (
                'ciphers = "RC4-FOO"',
                '[[listener]] 1, ciphers = "RC4-FOO": OpenSSL knows no suite of TLS 1.2 by it;'
                " ECDHE+AESGCM would do",
            ),
            (
                'client_certificates = "yes"',
                '[[listener]] 1, client_certificates = "yes": "none", "ask" or "require" would do',
            ),
            (
                'client_certificates = "require"',
                'client_certificates = "require": no certificate could verify;'
                " client_certificate_authorities with a PEM file would do",
            ),
            (
                'client_certificate_authorities = "/ca.pem"',
                'client_certificate_authorities = "/ca.pem": no client is asked for a certificate;'
                ' client_certificates = "ask" would do',
            ),
            (
                f'relay_certificates = ["{PINNED}"]',
                f'relay_certificates = ["{PINNED}"]: no client is asked for a certificate;'
                ' client_certificates = "ask" would do',
            ),
            (
                'client_certificates = "ask"\n'
                'relay_certificates = [{issuer = "CN=a", subject = "CN=b"}]',
                'relay_certificates = ["issuer CN=a, subject CN=b"]: it could not verify;'
                " client_certificate_authorities with a PEM file would do",
            ),
            (
                'implicit_tls = true\n[[listener]]\nendpoint = "ssl:465"\nimplicit_tls = true',
                'endpoint = "ssl:465": TLS twice, since implicit_tls is true;'
                " tcp: instead of ssl: would do",
            ),
            (
                'require_tls_from = ["192.0.2.1/24"]',
                '[[listener]] 1, require_tls_from = ["192.0.2.1/24"]:'
                " it has bits set beyond its prefix; 192.0.2.0/24 would do",
            ),
            ("minimum_cipher_bits = 512", None),
        ):
            refusal = self.refusal({}, f'[[listener]]\nendpoint = "tcp:25"\n{toml}')
            if text is not None:
                self.assertEqual(refusal, f"FILE: {text}")

    def test_a_certificate_that_relays_is_one_or_is_refused(self) -> None:
        for value in (
            PINNED[:40],
            PINNED + "00",
            PINNED.replace("0", "g"),
            COLONS.replace(":", "", 1),
            "",
            3,
            {"issuer": "CN=a"},
            {"issuer": "CN=a", "subject": "CN=b", "serial": "1"},
            {"issuer": "CN=a", "subject": "mail.example.net"},
            {"issuer": "CN=a", "subject": ""},
            {"issuer": "CN=a", "subject": 3},
        ):
            error = self.assertRaises(
                ConfigError,
                Listener,
                endpoint="tcp:25",
                client_certificates="ask",
                client_certificate_authorities="/ca.pem",
                relay_certificates=[value],
            )
            self.assertIn("would do", str(error))

    def test_sni_tables_that_are_none_are_refused(self) -> None:
        for toml, text in (
            ('certificate = "/a.pem"', "names is missing: "),
            ('names = ["a.example"]', "certificate is missing: PEM file with the certificate"),
            ("names = []", "names = []: at least one, such as"),
            ('names = ["a.*.example"]', 'names = ["a.*.example"]: not a domain name;'),
            ('names = ["*"]', 'names = ["*"]: not a domain name;'),
            ('names = ["[192.0.2.1]"]', "clients ask for no address literal;"),
            ("names = 3", "names = 3: a list of domains would do"),
            ("certificate = 3", "certificate = 3: the path of a file would do"),
            ('certificat = "a"', "certificat is no such setting; did you mean certificate?"),
            (
                'names = ["a.example", "A.example."]\ncertificate = "a"\n'
                '[[listener.sni]]\nnames = ["a.EXAMPLE"]\ncertificate = "b"',
                '"a.example" has two certificates; one would do',
            ),
        ):
            refusal = self.refusal(
                {}, f'[[listener]]\nendpoint = "tcp:25"\n[[listener.sni]]\n{toml}'
            )
            self.assertIn(text, refusal)
            self.assertTrue(refusal.startswith("FILE: [[listener]] 1, sni = [{"), refusal)
        self.assertIn(
            "tables, each under a line [[listener.sni]], would do",
            self.refusal({}, '[[listener]]\nendpoint = "tcp:25"\nsni = {names = []}'),
        )

    def test_a_relay_certificate_covers_itself_and_nothing_else(self) -> None:
        facts = TLSFacts(
            "TLSv1.3",
            "",
            256,
            peer_subject="CN=b",
            peer_issuer="CN=a",
            peer_fingerprint=PINNED,
            peer_verified=True,
        )
        nobody = TLSFacts("TLSv1.3", "", 256)
        pinned, named = RelayCertificate(PINNED), RelayCertificate(None, "CN=a", "CN=b")
        unverified = attrs.evolve(facts, peer_verified=False)
        self.assertEqual(
            [one.covers(facts) for one in (pinned, named, RelayCertificate(None, "CN=a", "CN=c"))],
            [True, True, False],
        )
        self.assertEqual([one.covers(unverified) for one in (pinned, named)], [True, False])
        empty = RelayCertificate()
        self.assertEqual([one.covers(nobody) for one in (pinned, named, empty)], [False] * 3)
        self.assertFalse(empty.covers(attrs.evolve(nobody, peer_verified=True)))


class Amounts(SynchronousTestCase):
    def test_durations_read_as_people_write_them(self) -> None:
        for text, seconds in (
            ("30 s", 30), ("5 min", 300), ("1h", 3600), ("5 days", 432000), ("1 day", 86400),
            ("1.5 h", 5400), ("90", 90), (90, 90), (0.25, 0.25), (" 2 weeks ", 1209600),
        ):  # fmt: skip
            self.assertEqual(duration(text), seconds, text)

    def test_sizes_read_as_people_write_them(self) -> None:
        for text, octets in (
            ("50 MiB", 50 << 20), ("64KiB", 65536), ("1 GiB", 1 << 30), ("1.5 KiB", 1536),
            ("50 MB", 50_000_000), ("10", 10), (65536, 65536), ("1 octet", 1),
        ):  # fmt: skip
            self.assertEqual(size(text), octets, text)

    def test_neither_takes_anything_else(self) -> None:
        for text in ("", "s", "-1", "5 mib", "1 month", "1e3", "٣ s", True, None, float("nan"), -1):
            self.assertRaises(ValueError, duration, text)
        for text in ("", "MiB", "-1", "5 min", "0", 0, "1.5 octets", True, None, float("inf")):
            self.assertRaises(ValueError, size, text)

    @given(st.integers(0, 10**10) | st.floats(0, 10**6))
    def test_a_duration_shown_reads_as_the_same(self, seconds: float) -> None:
        if "e" not in repr(float(seconds)):  # 1e-07 s is nothing that we would write
            self.assertEqual(duration(duration_text(seconds)), seconds)

    @given(st.integers(1, 1 << 61))
    def test_a_size_shown_reads_as_the_same(self, octets: int) -> None:
        self.assertEqual(size(size_text(octets)), octets)


class Endpoints(SynchronousTestCase):
    def test_they_are_taken_apart_as_twisted_does(self) -> None:
        self.assertEqual(
            Endpoint.parse(r"tcp6:port=25:interface=\:\:1:a=b=c"),
            Endpoint("tcp6", (), {"port": "25", "interface": "::1", "a": "b=c"}),
        )
        self.assertEqual(Endpoint.parse(r"unix:/a\:b\=c").arguments, ("/a:b=c",))

    def test_kinds_of_twisted_and_its_plugins_are_known(self) -> None:
        for description in (
            "tcp:0", "tcp:port=25", r"tcp6:25:interface=\:\:", "unix:/run/a:mode=666",
            "systemd:domain=INET:name=mta", "stdio:", "TCP:25",
        ):  # fmt: skip
            self.assertEqual(endpoint(description), description)

    def test_others_are_not(self) -> None:
        for description in (
            "", "tcp", "tcp:", "tcp:smtp", "tcp:65536", "tcp:-1", "unix:", "25",
            "tcp6:25:interface=127.0.0.1", "tcp:25\n", "http:80",
        ):  # fmt: skip
            self.assertRaises(ValueError, endpoint, description)
