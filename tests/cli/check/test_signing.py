"""Findings about the keys that mail is signed with."""

from tests.cli.check.checking import CheckTestCase
from tests.policy.dkim.key_files import write_key
from twisted_mta.config import DKIMKey, PolicySettings, TLSReportSettings

PUBLIC = "tcp:0"


class Signing(CheckTestCase):
    def key(self, kind: str, domain: str = "example.net", mode: int = 0o600) -> DKIMKey:
        name = f"{kind}.{domain}"
        file = write_key(self.path(name), kind, mode=mode)
        return DKIMKey(domain=domain, selector=kind, key=file)

    def of(self, *keys: DKIMKey) -> list[str]:
        return self.found(self.config(dkim_keys=keys))

    def test_good_keys_are_no_finding(self) -> None:
        self.assertEqual(self.of(self.key("rsa-2048")), [])
        self.assertEqual(self.of(self.key("rsa-2048"), self.key("ed25519")), [])
        self.assertEqual(self.of(self.key("rsa-2048", mode=0o640)), [])

    def test_a_file_that_cannot_be_read_is_an_error(self) -> None:
        missing = DKIMKey(domain="example.net", selector="s1", key=self.path("nothing.pem"))
        self.assertEqual(
            self.of(missing, self.key("rsa-2048")),
            ["error: DIR/nothing.pem: cannot be read: No such file or directory"],
        )

    def test_a_file_without_a_key_is_an_error(self) -> None:
        empty = DKIMKey(domain="example.net", selector="s1", key=self.write("empty.pem"))
        self.assertEqual(
            self.of(empty),
            [
                "error: DIR/empty.pem: holds no private key in PEM form; expected a file with"
                " -----BEGIN PRIVATE KEY-----"
            ],
        )

    def test_a_short_key_is_a_warning(self) -> None:
        self.assertEqual(
            self.of(self.key("rsa-1024")),
            [
                "warning: DIR/rsa-1024.example.net: an RSA key of 1024 bits, which some receivers"
                " do not accept; expected 2048"
            ],
        )

    def test_a_key_that_all_users_can_read_is_a_warning(self) -> None:
        (text,) = self.of(self.key("rsa-2048", mode=0o644))
        self.assertIn("all users can read it (mode 0644); expected chmod 0600", text)

    def test_a_domain_without_an_rsa_key_is_a_warning(self) -> None:
        self.assertEqual(
            self.of(self.key("ed25519"), self.key("rsa-2048", "other.example")),
            [
                "warning: [[dkim]] example.net: no key is RSA: to receivers that do not know"
                " Ed25519, its mail is not signed; add one made by twisted-mta dkim new"
            ],
        )

    def test_reports_that_no_key_signs_are_a_warning(self) -> None:
        policy = PolicySettings(dmarc_reports=True, report_from="noc@mx.example.net")
        tls = TLSReportSettings()
        for key, warned in (("other.example", True), ("example.net", False)):
            keys = [self.key("rsa-2048", key)]
            texts = self.found(self.config(policy=policy, tls_report=tls, dkim_keys=keys))
            found = [text for text in texts if "dmarc_reports" in text or "tls_report" in text]
            self.assertEqual(len(found), 2 * warned, texts)
            for text in found:
                self.assertIn("no key signs for mx.example.net, the domain of report_from", text)

    def test_no_key_at_all_is_a_note_where_other_machines_send_mail(self) -> None:
        for endpoint, noted in ((PUBLIC, True), ("tcp:0:interface=127.0.0.1", False)):
            texts = self.found(self.config(endpoint), notes=True)
            self.assertEqual(any("note: [[dkim]]: no key" in text for text in texts), noted)
