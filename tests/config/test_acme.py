"""``[acme]``: certificates from an authority."""

from __future__ import annotations

from tests.config.loading import ConfigTestCase

DIRECTORY = 'directory = "https://ca.example/directory"\n'


class ACME(ConfigTestCase):
    def test_the_directory_is_enough(self) -> None:
        config = self.load({"hostname": "Mx.Example.test"}, f"[acme]\n{DIRECTORY}")
        assert config.acme is not None
        self.assertEqual(config.acme.endpoint, "tcp:80")
        self.assertFalse(config.acme.new_key)
        self.assertEqual(config.certificate_names, ("mx.example.test",))
        self.assertIsNone(self.load().acme)

    def test_without_a_directory(self) -> None:
        self.assertEqual(
            self.refusal({"hostname": "mx.example.test"}, "[acme]"),
            "FILE: [acme] directory is missing; expected one such as"
            " https://acme-v02.api.letsencrypt.org/directory",
        )

    def test_values_that_are_refused(self) -> None:
        for line, problem in (
            ('directory = "http://ca.example/"', "found no URL of HTTPS, expected one such as"),
            ('directory = "https://"', "found no URL of HTTPS"),
            ('directory = "https://a:b@ca.example/"', "found a user or a fragment in it"),
            ('contact = "postmaster@example.test"', "expected one such as mailto:postmaster@"),
            ('contact = "mailto:a@b.example?subject=x"', "found no such contact"),
            ('contact = ["mailto:a@b.example,c@d.example"]', "found no such contact"),
            ('names = ["*.example.test"]', "found a wildcard, expected the name of a host"),
            ('names = ["[192.0.2.1]"]', "an address literal"),
            ('names = "mx.example.test"', "found a string, expected a list of host names"),
            ('key_type = "dsa"', 'expected "ecdsa" or "rsa"'),
            ("new_key = 1", "found a number, expected true or false"),
            ('endpoint = "80"', "is not a kind of endpoint"),
        ):
            more = "" if line.startswith("directory") else DIRECTORY
            self.assertIn(problem, self.refusal({}, f"[acme]\n{more}{line}"), line)

    def test_values_that_contradict_each_other(self) -> None:
        host = {"hostname": "mx.example.test"}
        self.assertIn(
            "found one of eab_key_id and eab_key_file, expected both or neither",
            self.refusal(host, f'[acme]\n{DIRECTORY}eab_key_id = "x"'),
        )
        self.assertIn(
            "found [acme] too; expected one of them",
            self.refusal(host, f'[mta]\ntls_certificate = "/a.pem"\n[acme]\n{DIRECTORY}'),
        )
        self.assertIn(
            "expected names that the authority can look up",
            self.refusal({"hostname": "localhost"}, f"[acme]\n{DIRECTORY}"),
        )
