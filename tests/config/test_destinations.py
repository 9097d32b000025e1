"""``[[destination]]``: reading it, and which destination applies to a domain or next hop."""

import os

from tests.tidy import TidyTestCase
from twisted_mta.config import (
    Config,
    ConfigError,
    DeliverySettings,
    Destination,
    QueueSettings,
    load,
)
from twisted_mta.config.amounts import Rate
from twisted_mta.mail.next_hop import Host


class DestinationTestCase(TidyTestCase):
    def load(self, toml: str) -> Config:
        file = self.mktemp()
        with open(file, "w", encoding="utf-8") as written:
            written.write(toml)
        self.file = file
        return load({}, file, environment={}, machine_name=lambda: "mx.example.net")

    def refusal(self, toml: str) -> str:
        error = self.assertRaises(ConfigError, self.load, toml)
        return str(error).replace(self.file, "FILE")


class Reading(DestinationTestCase):
    def test_every_key_is_read(self) -> None:
        [destination] = self.load(
            """
            [[destination]]
            domain = "Relay.Example.NET:587"
            connections = 3
            recipients_per_message = 50
            messages_per_connection = 7
            rate = "100/min"
            tls = "verify"
            tls_memory = "require"
            eight_bit_headers = "send"
            authorities = "/etc/mta/ca.pem"
            client_certificate = "/etc/mta/us.pem"
            client_key = "/etc/mta/us.key"
            source_address = ["192.0.2.1", "2001:DB8::1"]
            username = "us"
            password_file = "/etc/mta/password"
            retry_minimum = "1 min"
            retry_maximum = "10 min"
            lifetime = "2 days"
            """
        ).destinations
        self.assertEqual(
            destination,
            Destination(
                domain="relay.example.net:587",
                connections=3,
                recipients_per_message=50,
                messages_per_connection=7,
                rate=Rate(100, 60.0),
                tls="verify",
                tls_memory="require",
                eight_bit_headers="send",
                authorities="/etc/mta/ca.pem",
                client_certificate="/etc/mta/us.pem",
                client_key="/etc/mta/us.key",
                source_address=("192.0.2.1", "2001:db8::1"),
                username="us",
                password_file="/etc/mta/password",
                retry_minimum=60.0,
                retry_maximum=600.0,
                lifetime=172800.0,
            ),
        )
        self.assertEqual(str(destination.rate), "100/min")
        self.assertEqual(Rate(100, 60.0).interval, 0.6)

    def test_patterns_are_read_in_canonical_form(self) -> None:
        for written, canonical in (
            ("Example.NET.", "example.net"),
            (".Bücher.example", ".xn--bcher-kva.example"),
            ("*", "*"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[2001:DB8::1]", "[IPv6:2001:db8::1]"),
            ("[2001:db8::1]:2525", "[2001:db8::1]:2525"),
            ("192.0.2.1:2525", "192.0.2.1:2525"),
            ("/run/dovecot/lmtp", "/run/dovecot/lmtp"),
        ):
            self.assertEqual(Destination(domain=written).domain, canonical)

    def test_an_error_names_file_key_value_and_expectation(self) -> None:
        one = '[[destination]]\ndomain = "a.example"\n'
        by_exchanger = '[[destination]]\nexchanger = ".b.example"\n'
        file = "FILE: [[destination]] 1,"
        together = "FILE: [[destination]] a.example,"
        for toml, text in (
            (
                "[[destination]]\n",
                "FILE: [[destination]] 1 has no domain;"
                ' expected one such as domain = "example.net"',
            ),
            (
                "[destination]\ndomain = 'a'",
                'FILE: destination = {"domain": "a"}: found a table, expected tables, each below'
                " a line [[destination]]",
            ),
            (
                '[[destination]]\ndomain = "-"',
                f'{file} domain = "-": not a domain name; expected example.net, .example.net, *,'
                " relay.example.net:587 or deliver:name",
            ),
            (
                f'{one}tls = "strict"',
                f'{file} tls = "strict": expected "auto", "none", "may", "encrypt", "verify",'
                ' "dane" or "mta-sts"',
            ),
            (
                f'{one}rate = "0/min"',
                f'{file} rate = "0/min": not a rate; expected one such as "10/s", "100/min",'
                ' "1000/h" or "5000/day"',
            ),
            (
                f'{one}source_address = ["192.0.2.1", "192.0.2.2"]',
                f'{file} source_address = ["192.0.2.1", "192.0.2.2"]: two addresses of IPv4;'
                " expected at most one of each family",
            ),
            (
                f"{one}conections = 1",
                f"{file} conections = 1: no such setting; did you mean connections?",
            ),
            (
                f'{one}username = "us"',
                f'{together} username = "us": password_file is missing; expected one of'
                " password_file, token_file, token_command, oauth_token_url",
            ),
            (
                f'{one}token_file = "/t"',
                f'{together} token_file = "/t": username is missing; expected both or neither',
            ),
            (
                f'{one}username = "us"\npassword_file = "/p"\ntoken_file = "/t"',
                f'{together} token_file = "/t": password_file is there too; expected one of them',
            ),
            (
                f'{one}oauth_scope = "mail"',
                f'{together} oauth_scope = "mail": oauth_token_url is missing; expected both or'
                " neither",
            ),
            (
                f'{one}username = "us"\noauth_token_url = "https://a.example/t"\n'
                'oauth_client_id = "i"',
                f'{together} oauth_token_url = "https://a.example/t": found neither'
                " oauth_client_secret_file nor oauth_refresh_token_file; expected one or both",
            ),
            (
                f'{one}oauth_token_url = "http://a.example/t"',
                'FILE: [[destination]] 1, oauth_token_url = "http://a.example/t": expected https://host/path'
                " (http:// only for localhost, 127.0.0.1 and [::1])",
            ),
            (
                f"""{one}token_command = "print 'a" """,
                """FILE: [[destination]] 1, token_command = "print 'a": no closing quotation;"""
                " expected a program and its arguments",
            ),
            (
                f'{one}client_key = "/k"',
                f'{together} client_key = "/k": client_certificate is missing;'
                " expected both or neither",
            ),
            (
                f'{one}username = "us"\npassword_file = "/p"\ntls = "none"',
                f'{together} username = "us": not with tls = "none"; expected tls = "encrypt"',
            ),
            (
                f'{one}authorities = "/ca"\ntls = "encrypt"',
                f'{together} authorities = "/ca": nothing is verified; expected tls = "verify"',
            ),
            (
                f'[delivery]\ntls = "may"\n{one}authorities = "/ca"',
                f'{together} authorities = "/ca": nothing is verified; expected tls = "verify"',
            ),
            (
                f'{one}retry_minimum = "2 h"\nretry_maximum = "1 h"',
                f'{together} retry_minimum = "2 h": longer than retry_maximum = "1 h";'
                " expected at most as long",
            ),
            (one + one, 'FILE: [[destination]] domain = "a.example": found two; expected one'),
            (
                by_exchanger + by_exchanger,
                'FILE: [[destination]] exchanger = ".b.example": found two; expected one',
            ),
            (
                f'{by_exchanger}domain = "a.example"',
                'FILE: [[destination]] domain = "a.example", exchanger = ".b.example": found both;'
                " expected one of them",
            ),
            (
                f'{by_exchanger}tls = "may"',
                'FILE: [[destination]] exchanger .b.example, tls = "may": not by exchanger, since'
                " answers of the DNS may be forged; expected in a table with domain",
            ),
            (
                f'{by_exchanger}username = "us"\npassword_file = "/p"',
                'FILE: [[destination]] exchanger .b.example, username = "us": not by exchanger,'
                " since answers of the DNS may be forged; expected in a table with domain",
            ),
            (
                '[[destination]]\nexchanger = "[192.0.2.1]"',
                'FILE: [[destination]] 1, exchanger = "[192.0.2.1]": an address literal; expected a'
                " domain such as example.net",
            ),
        ):
            self.assertEqual(self.refusal(toml), text)


class Finding(TidyTestCase):
    def config(self, *destinations: Destination) -> Config:
        return Config(
            destinations=destinations,
            queue=QueueSettings(retry_minimum=10, retry_maximum=100, connections_per_hop=4),
            delivery=DeliverySettings(tls="encrypt", authorities="/ca.pem", source_address="::1"),
        )

    def test_the_domain_itself_comes_first_then_the_longest_suffix_then_the_star(self) -> None:
        config = self.config(
            *(
                Destination(domain=pattern)
                for pattern in ("*", ".example", ".net.example", "net.example", "[192.0.2.1]")
            )
        )
        for domain, pattern in (
            ("net.example", "net.example"),
            ("mail.net.example", ".net.example"),
            ("org.example", ".example"),
            ("example", "*"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[192.0.2.2]", "*"),
        ):
            self.assertEqual(config.destination_for(domain).domain, pattern, domain)

    def test_a_pattern_that_names_a_host_of_the_route_comes_first(self) -> None:
        """A suffix or the star never matches a host."""
        config = self.config(
            Destination(domain="net.example"),
            Destination(domain="relay.example:587"),
            Destination(domain="relay.example"),
            Destination(domain="[2001:db8::1]"),
            Destination(domain="/run/lmtp"),
            Destination(domain=".example"),
        )
        for host, pattern in (
            (Host("relay.example", 587), "relay.example:587"),
            (Host("relay.example", 25), "relay.example"),
            (Host("2001:db8::1", 25), "[IPv6:2001:db8::1]"),
            (Host("/run/lmtp"), "/run/lmtp"),
            (Host("other.example", 25), "net.example"),
        ):
            self.assertEqual(config.destination_for("net.example", (host,)).domain, pattern)

    def test_an_exchanger_comes_before_the_star_and_keeps_its_tls(self) -> None:
        config = self.config(
            Destination(domain="*", tls="verify", client_certificate="/us.pem", connections=9),
            Destination(domain=".exact.example"),
            Destination(exchanger=".provider.example"),
            Destination(exchanger=".big.provider.example", connections=2),
            Destination(exchanger="mx.example"),
        )
        for host, exchanger in (
            ("mx.provider.example", ".provider.example"),
            ("mx.big.provider.example", ".big.provider.example"),
            ("mx.example", "mx.example"),
            ("provider.example", ""),
            ("a.mx.example", ""),
        ):
            self.assertEqual(config.exchanger_of("a.example", host), exchanger, host)
            self.assertEqual(config.exchanger_of("a.exact.example", host), "", host)
        found = config.destination_for("a.example", (), ".big.provider.example")
        self.assertEqual((found.connections, found.tls), (2, "verify"))
        self.assertEqual(found.client_certificate, "/us.pem")
        wider = config.destination_for("a.example", (), ".provider.example")
        self.assertEqual((wider.connections, wider.authorities), (4, "/ca.pem"))

    def test_missing_settings_are_those_of_all_other_domains(self) -> None:
        config = self.config(
            Destination(domain="a.example", tls="verify", retry_minimum=1000),
            Destination(domain="b.example", tls="may", username="us", password_file="/password"),
        )
        first, second, others = config.all_destinations
        self.assertEqual((first.authorities, first.connections), ("/ca.pem", 4))
        self.assertEqual((first.retry_minimum, first.retry_maximum), (1000, 1000))
        self.assertEqual(first.source_address, ("::1",))
        self.assertEqual((second.tls, second.authorities), ("encrypt", None))
        self.assertEqual((others.tls, others.retry_maximum), ("encrypt", 100))
        self.assertIs(config.destination_for("c.example"), others)

    def test_relative_paths_start_in_the_working_directory(self) -> None:
        destination = Destination(domain="*", username="us", password_file="password")
        self.assertEqual(destination.password_file, os.path.abspath("password"))
