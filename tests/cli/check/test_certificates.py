"""Findings about certificates, keys and authorities."""

import os
from datetime import UTC, datetime

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cli.check.checking import CheckTestCase
from tests.server.authority import Authority, Issued, self_signed
from twisted_mta.cli.check.certificates import covers
from twisted_mta.config import ACMESettings, Listener, MTASTSSettings
from twisted_mta.config.destination import Destination
from twisted_mta.system.files import DiskFiles
from twisted_mta.system.real_world import wall_time
from twisted_mta.tls.acme.store import Status, Store
from twisted_mta.tls.certificates import CertificateError
from twisted_mta.tls.server import ServerContext

HOST = "mail.example.net"
LISTENER = "tcp:0:interface=127.0.0.1"


class CertificateFilesTestCase(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = Authority("Root")
        self.middle = Authority("Middle")
        self.between = self.root.subordinate(self.middle)

    def file(self, issued: Issued, *chain: bytes, name: str = "pair.pem") -> str:
        path = issued.save(self.directory, name)
        with open(path, "ab") as file:
            file.writelines(chain)
        os.chmod(path, 0o600)
        return path

    def good(self, *names: str, **issued: object) -> str:
        leaf = self.middle.issue(HOST, names=names or (HOST,), for_clients=False, **issued)  # type: ignore[arg-type]
        return self.file(leaf, self.between.public_bytes(Encoding.PEM))

    def of(
        self, file: str, *, key: str | None = None, days: float = 0, **values: object
    ) -> list[str]:
        config = self.config(LISTENER, tls_certificate=file, tls_key=key or file, **values)
        return self.found(config, wall_time=lambda: wall_time() + days * 86400)


class Certificates(CertificateFilesTestCase):
    def test_a_good_certificate_is_no_finding(self) -> None:
        self.assertEqual(self.of(self.good()), [])
        self.assertEqual(self.of(self.good("*.example.net", "other.example")), [])

    def test_a_certificate_for_another_host_is_a_warning(self) -> None:
        self.assertEqual(
            self.of(self.good("mx.example.net", "*.mail.example.net")),
            [
                "warning: DIR/pair.pem: the certificate is not for mail.example.net, but for"
                " mx.example.net, *.mail.example.net: clients that verify do not send; get one for"
                " that name too"
            ],
        )

    def test_expired_and_expiring_certificates_are_warnings(self) -> None:
        file = self.good()  # for 30 days
        self.assertEqual(self.of(file, days=15), [])
        (text,) = self.of(file, days=17)
        self.assertIn("warning: DIR/pair.pem: the certificate expires on ", text)
        end = datetime.fromtimestamp(wall_time() + 30 * 86400, UTC)
        leaf, authority = self.of(file, days=31)
        self.assertIn(f"the certificate expired on {end:%Y-%m-%d}; renew it", leaf)
        self.assertIn("certificate 2 of the file, of an authority, expired on", authority)

    def test_a_chain_out_of_order_or_incomplete_is_a_warning(self) -> None:
        leaf = self.middle.issue(HOST, names=[HOST], for_clients=False)
        between, root = (
            each.public_bytes(Encoding.PEM) for each in (self.between, self.root.issued.certificate)
        )
        self.assertEqual(self.of(self.file(leaf, between, root)), [])
        (text,) = self.of(self.file(leaf, root, between))
        self.assertIn("certificate 1 is not signed by certificate 2 of the file", text)
        (text,) = self.of(self.file(leaf))
        self.assertIn("without intermediate certificates", text)
        (text,) = self.of(self.file(self_signed(HOST, names=[HOST])))
        self.assertIn("self-signed: clients that verify refuse it", text)

    def test_keys_and_uses_that_clients_refuse_are_warnings(self) -> None:
        text = "".join(self.of(self.good(key=rsa.generate_private_key(65537, 1024))))
        self.assertIn("an RSA key of 1024 bits, which many clients refuse", text)
        (text,) = self.of(self.good(key=ed25519.Ed25519PrivateKey.generate()))
        self.assertIn("a key of a kind that few mail programs support", text)
        leaf = self.middle.issue(HOST, names=[HOST], for_clients=True)
        (text,) = self.of(self.file(leaf, self.between.public_bytes(Encoding.PEM)))
        self.assertIn("not for servers", text)

    def test_a_key_that_all_users_can_read_is_a_warning(self) -> None:
        file = self.good()
        os.chmod(file, 0o644)
        (text,) = self.of(file)
        self.assertIn("all users can read the key (mode 0644); chmod 0600", text)

    def test_a_certificate_that_openssl_refuses_is_an_error(self) -> None:
        # Which keys OpenSSL accepts depends on its build; a listener accepts the same.
        def refuse(context: ServerContext) -> None:
            raise CertificateError(f"{context.settings.certificate_file}: OpenSSL refuses it; why")

        self.patch(ServerContext, "reload", refuse)
        self.assertEqual(self.of(self.good()), ["error: DIR/pair.pem: OpenSSL refuses it; why"])

    def test_a_missing_file_or_wrong_key_is_an_error(self) -> None:
        other = self.file(self_signed(HOST), name="other.pem")
        (text,) = self.of(self.good(), key=other)
        self.assertIn("error: DIR/other.pem: the key does not match the certificate", text)
        self.assertEqual(
            self.of("/nowhere.pem"),
            ["error: /nowhere.pem: cannot be read: No such file or directory"],
        )

    def test_every_file_is_read_and_each_error_reported_once(self) -> None:
        good = self.good("a.example", HOST)
        listener = Listener(
            endpoint=LISTENER,
            client_certificates="ask",
            client_certificate_authorities="/nobody.pem",
            sni=[
                {"names": ["a.example", "b.example"], "certificate": good},
                {"names": ["c.example"], "certificate": "/nowhere.pem", "key": "/no.key"},
            ],
        )
        config = self.config(
            tls_certificate=good,
            listeners=[listener, evolve(listener, endpoint="tcp:0:interface=127.0.0.2")],
            destinations=[
                Destination(
                    domain="f.example",
                    tls="verify",
                    authorities="/trusted.pem",
                    username="me",
                    password_file="/password",
                    client_certificate="/client.pem",
                    client_key="/client.key",
                ),
            ],
            mta_sts=MTASTSSettings(authorities="/others.pem"),
        )
        self.assertEqual(
            [text[:79] for text in self.found(config, wall_time=wall_time)],
            [
                text[:79]
                for text in (
                    "error: /nobody.pem: cannot be read: No such file or directory",
                    "warning: DIR/pair.pem: the certificate is not for b.example, but for"
                    " a.example, ",
                    "error: /nowhere.pem: cannot be read: No such file or directory",
                    "error: /no.key: cannot be read: No such file or directory",
                    'error: [[destination]] f.example, password_file = "/password": cannot be'
                    " read: No such file",
                    "error: /trusted.pem: cannot be read: No such file or directory",
                    "error: /others.pem: cannot be read: No such file or directory",
                    "error: /client.pem: cannot be read: No such file or directory",
                    "error: /client.key: cannot be read: No such file or directory",
                )
            ],
        )

    def test_expired_client_certificates_are_warnings(self) -> None:
        file = self.file(self.middle.issue("us", for_clients=True))
        config = self.config(destinations=[Destination(domain="*", client_certificate=file)])
        self.assertEqual(self.found(config, wall_time=wall_time), [])
        os.chmod(file, 0o644)
        late, secret = self.found(config, wall_time=lambda: wall_time() + 40 * 86400)
        self.assertIn("warning: DIR/pair.pem: the certificate expired on", late)
        self.assertIn("all users can read the key", secret)

    def test_a_missing_certificate_is_a_note(self) -> None:
        (text, *_) = self.found(self.config(LISTENER), notes=True)
        self.assertTrue(text.startswith("note: [mta] tls_certificate: none is given"), text)


class Names(CheckTestCase):
    def test_an_asterisk_covers_one_whole_label(self) -> None:
        certificate = self_signed("x", names=["*.example.net", "mx.example"]).certificate
        for name in ("mail.example.net", "MAIL.example.net", "*.example.net", "mx.example"):
            self.assertTrue(covers(certificate, name), name)
        for name in ("example.net", "a.mail.example.net", "*.example", "x", "[127.0.0.1]"):
            self.assertFalse(covers(certificate, name), name)


class FromAnAuthority(CertificateFilesTestCase):
    """``[acme]``: certificates that renew themselves."""

    def settings(self, **more: object) -> ACMESettings:
        endpoint = "tcp:0:interface=127.0.0.1"
        values = {"directory": "https://ca.example/directory", "endpoint": endpoint, **more}
        return ACMESettings(**values)  # type: ignore[arg-type]

    def of_acme(self, **more: object) -> list[str]:
        config = self.config(LISTENER, acme=self.settings(**more))
        return [
            line
            for line in self.found(config, wall_time=wall_time, notes=True)
            if "acme" in line or line.startswith(("warning:", "error:"))
            if "authorities fetch the answers" not in line
        ]

    def store(self) -> Store:
        os.makedirs(self.state, mode=0o700, exist_ok=True)
        return Store(self.state, DiskFiles())

    def test_before_the_first_certificate(self) -> None:
        self.assertEqual(
            self.of_acme(),
            [
                "note: [acme]: there is no certificate yet; the self-signed one serves until the"
                " authority has issued one; start the MTA"
            ],
        )

    def test_a_certificate_that_was_issued_is_checked_as_others_are(self) -> None:
        with open(self.good(), "rb") as file:
            self.store().save_certificate(file.read())
        self.assertEqual(self.of_acme(), [])
        found = self.of_acme(names=["mx.example.net"])
        self.assertIn("the certificate is not for mx.example.net", found[0])

    def test_the_reason_why_there_is_no_new_one(self) -> None:
        problem = "429 rateLimited: too many certificates"
        self.store().save_status(Status(problem=problem, failures=1, next_try=1_800_000_000.0))
        [line] = self.of_acme()
        self.assertTrue(line.startswith("warning: [acme]: no new certificate of mail.example.net"))
        self.assertIn(f"{problem}; tried again at 2027-01-15 08:00 UTC", line)
        self.assertIn("mend that, and run twisted-mta reload", line)

    def test_files_that_cannot_be_used(self) -> None:
        key = self.write("eab", "not base64!")
        found = self.of_acme(eab_key_id="1", eab_key_file=key, authorities=self.path("missing"))
        self.assertIn("found no base64url; expected the key alone", " ".join(found))
        self.assertIn("missing: ", " ".join(found))
        self.assertNotIn("not base64!", " ".join(found))

    def test_another_port_is_said(self) -> None:
        config = self.config(LISTENER, acme=self.settings())
        lines = " ".join(self.found(config, wall_time=wall_time, notes=True))
        self.assertIn("fetch the answers to challenges from port 80, and this is port 0", lines)
