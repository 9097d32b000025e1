"""``[[listener]]``: TLS, client certificates and relay certificates."""

from ipaddress import ip_network

import attrs

from twisted_mta.config import ConfigError, Listener, RelayCertificate
from twisted_mta.mail.tls_facts import TLSFacts

from .loading import ConfigTestCase

PINNED = "0123456789abcdef" * 4
COLONS = ":".join(PINNED[at : at + 2].upper() for at in range(0, 64, 2))


class TLSOfListeners(ConfigTestCase):
    def listener(self, toml: str) -> Listener:
        config = self.load({}, f'[[listener]]\nendpoint = "tcp:25"\n{toml}')
        return config.listeners[0]

    def test_by_default_tls_is_optional_and_no_certificate_is_asked_for(self) -> None:
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

    def test_every_setting_of_tls_is_read_from_the_file(self) -> None:
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

    def test_without_tls_no_setting_may_need_it(self) -> None:
        self.assertEqual(self.listener('tls = "none"').tls, "none")
        submission = self.listener('kind = "submission"\ntls = "none"\nauth = "any"')
        self.assertEqual((submission.tls, submission.auth), ("none", "any"))
        for toml, name in (
            ("require_tls = true", "require_tls"),
            ("implicit_tls = true", "implicit_tls"),
            ('kind = "submissions"\nauth = "any"', "implicit_tls"),
            ('client_certificates = "ask"', "client_certificates"),
            ('require_tls_from = ["192.0.2.0/24"]', "require_tls_from"),
            ("minimum_cipher_bits = 128", "minimum_cipher_bits"),
            ('[[listener.sni]]\nnames = ["a.example"]\ncertificate = "/a.pem"', "sni"),
        ):
            self.assertEqual(
                self.refusal({}, f'[[listener]]\nendpoint = "tcp:25"\ntls = "none"\n{toml}'),
                f'FILE: [[listener]] 1, tls = "none": contradicts {name}; expected tls = "may"',
            )
        for kind in ("smtp", "submission"):
            self.assertEqual(
                self.refusal(
                    {},
                    f'[[listener]]\nendpoint = "tcp:25"\nkind = "{kind}"\ntls = "none"\n'
                    'auth = "tls"',
                ),
                'FILE: [[listener]] 1, tls = "none": auth = "tls" offers AUTH under TLS alone, so'
                ' no user could send; expected auth = "any", which takes passwords in clear',
            )

    def test_local_submission_is_a_unix_socket_without_tls_and_auth(self) -> None:
        (option,) = self.load({"local-submission": ["unix:/run/mta/s.sock"]}, "").listeners
        self.assertEqual(
            (option.kind, option.tls, option.auth), ("local_submission", "none", "off")
        )
        for endpoint, more, part in (
            ("tcp:25", "", "only a UNIX socket tells the user of a program"),
            ("unix:/s", 'auth = "any"', "the user of a program is known by the socket"),
            ("unix:/s", 'xclient_from = ["::1"]', "the user of a program is known by the socket"),
        ):
            toml = f'[[listener]]\nkind = "local_submission"\nendpoint = "{endpoint}"\n{more}'
            self.assertIn(part, self.refusal({}, toml))

    def test_mechanisms_of_auth_are_known_ones_in_any_case(self) -> None:
        listener = self.listener('auth = "tls"\nauth_mechanisms = ["plain", "SCRAM-SHA-256"]')
        self.assertEqual(listener.auth_mechanisms, ("PLAIN", "SCRAM-SHA-256"))
        known = (
            "SCRAM-SHA-256-PLUS, SCRAM-SHA-256, SCRAM-SHA-1, OAUTHBEARER, XOAUTH2, CRAM-MD5,"
            " PLAIN, LOGIN, EXTERNAL"
        )
        for value, auth, problem in (
            ('["PLAIN", "NTLM"]', "tls", f'["PLAIN", "NTLM"]: "NTLM": expected {known}'),
            ("[1]", "tls", f"[1]: found a number, expected one string: one of {known}"),
            ('"PLAIN"', "tls", '"PLAIN": found a string, expected a list of mechanisms'),
            ("[]", "tls", '[]: expected at least one mechanism, or auth = "off"'),
            ('["PLAIN"]', "off", '["PLAIN"]: AUTH is not offered; expected auth = "tls"'),
        ):
            toml = f'[[listener]]\nendpoint = "tcp:25"\nauth = "{auth}"\nauth_mechanisms = {value}'
            self.assertEqual(
                self.refusal({}, toml), f"FILE: [[listener]] 1, auth_mechanisms = {problem}"
            )

    def test_an_error_names_the_listener_and_the_expectation(self) -> None:
        for toml, text in (
            (
                'ciphers = "RC4-FOO"',
                '[[listener]] 1, ciphers = "RC4-FOO": OpenSSL finds no suite of TLS 1.2'
                " in it; expected a list such as ECDHE+AESGCM",
            ),
            (
                'client_certificates = "yes"',
                '[[listener]] 1, client_certificates = "yes": expected "none", "ask" or "require"',
            ),
            (
                'client_certificates = "require"',
                '[[listener]] 1, client_certificates = "require": no certificate can be verified;'
                " expected client_certificate_authorities, a PEM file",
            ),
            (
                'client_certificate_authorities = "/ca.pem"',
                '[[listener]] 1, client_certificate_authorities = "/ca.pem": no client is asked for'
                ' a certificate; expected client_certificates = "ask"',
            ),
            (
                f'relay_certificates = ["{PINNED}"]',
                f'[[listener]] 1, relay_certificates = ["{PINNED}"]: no client is asked for a'
                ' certificate; expected client_certificates = "ask"',
            ),
            (
                'client_certificates = "ask"\n'
                'relay_certificates = [{issuer = "CN=a", subject = "CN=b"}]',
                '[[listener]] 1, relay_certificates = ["issuer CN=a, subject CN=b"]: it cannot be'
                " verified; expected client_certificate_authorities, a PEM file",
            ),
            (
                'implicit_tls = true\n[[listener]]\nendpoint = "ssl:465"\nimplicit_tls = true',
                '[[listener]] 2, endpoint = "ssl:465": TLS twice, since implicit_tls is true;'
                " expected tcp: instead of ssl:",
            ),
            (
                'require_tls_from = ["192.0.2.1/24"]',
                '[[listener]] 1, require_tls_from = ["192.0.2.1/24"]:'
                " bits are set beyond the prefix; expected 192.0.2.0/24",
            ),
            ("minimum_cipher_bits = 512", None),
        ):
            refusal = self.refusal({}, f'[[listener]]\nendpoint = "tcp:25"\n{toml}')
            if text is not None:
                self.assertEqual(refusal, f"FILE: {text}")

    def test_an_invalid_relay_certificate_is_refused(self) -> None:
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
            self.assertIn("expected ", str(error))

    def test_invalid_sni_tables_are_refused(self) -> None:
        for toml, text in (
            ('certificate = "/a.pem"', "names is missing; expected domains"),
            (
                'names = ["a.example"]',
                "certificate is missing; expected PEM file with",
            ),
            ("names = []", "names = []: expected at least one domain, such as"),
            ('names = ["a.*.example"]', 'names = ["a.*.example"]: not a domain name;'),
            ('names = ["*"]', 'names = ["*"]: not a domain name;'),
            ('names = ["[192.0.2.1]"]', "SNI has no address literals;"),
            ("names = 3", "names = 3: found a number, expected a list of domains"),
            ("certificate = 3", "certificate = 3: found a number, expected one string"),
            ('certificat = "a"', "certificat: no such setting; did you mean certificate?"),
            (
                'names = ["a.example", "A.example."]\ncertificate = "a"\n'
                '[[listener.sni]]\nnames = ["a.EXAMPLE"]\ncertificate = "b"',
                '"a.example" has two certificates; expected one',
            ),
        ):
            refusal = self.refusal(
                {}, f'[[listener]]\nendpoint = "tcp:25"\n[[listener.sni]]\n{toml}'
            )
            self.assertIn(text, refusal)
            self.assertTrue(refusal.startswith("FILE: [[listener]] 1, sni: "), refusal)
        self.assertIn(
            "expected tables, each under a line [[listener.sni]]",
            self.refusal({}, '[[listener]]\nendpoint = "tcp:25"\nsni = {names = []}'),
        )

    def test_a_relay_certificate_covers_itself_alone(self) -> None:
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
