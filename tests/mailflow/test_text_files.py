"""Text files that an operator wrote with an editor of Windows: a byte order mark, CR LF."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.tidy import TidyTestCase
from twisted_mta.auth.accounts import Account
from twisted_mta.auth.accounts_file import read_accounts
from twisted_mta.config import Config, Destination, load
from twisted_mta.delivery.credentials import load_credentials
from twisted_mta.dns.hosts_file import read_hosts
from twisted_mta.dns.resolv_conf import read_resolv_conf
from twisted_mta.mail.address import Mailbox
from twisted_mta.routing.alias_file import parse_aliases, read_content
from twisted_mta.testing.tls import certificate
from twisted_mta.tls.certificates import CertifiedKey


class FilesFromWindows(TidyTestCase):
    """Each is read as if it had line feeds alone and no mark."""

    def file(self, text: str, mode: int = 0o600) -> str:
        path = Path(os.path.abspath(self.mktemp()))
        path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
        path.chmod(mode)
        return str(path)

    def test_the_password_of_a_destination_is_read_without_mark_and_line_end(self) -> None:
        file = self.file("opensesame\n")
        loaded = load_credentials(Destination(domain="*", username="us", password_file=file))
        assert loaded is not None
        self.assertEqual(loaded.credentials.password, "opensesame")

    def test_accounts_are_read(self) -> None:
        ann = Account.of("ann", "opensesame", secret=lambda octets: bytes(range(octets)))
        self.assertEqual(read_accounts(self.file(f"{ann.line()}\n")).get("ann"), ann)

    def test_aliases_are_read(self) -> None:
        text = "sales: ann,\n  bob\n\n# none\npostmaster: ann\n"
        read, expected = (
            parse_aliases(content, name="aliases", ours=("us.example",)).find(
                Mailbox.parse("sales@us.example"), bare=True
            )
            for content in (read_content(self.file(text)), text.encode())
        )
        assert expected is not None
        self.assertEqual(read, expected)

    def test_the_settings_are_read(self) -> None:
        file = self.file('[mta]\nhostname = "mx.example.net"\n[queue]\nlifetime = "3 days"\n')
        config = load({}, file)
        self.assertEqual((config.hostname, config.queue.lifetime), ("mx.example.net", 3 * 86400))
        self.assertIsInstance(config, Config)

    def test_a_certificate_and_its_key_are_read(self) -> None:
        made, key = certificate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        file = self.file(f"{pem}{made.public_bytes(Encoding.PEM).decode()}")
        self.assertEqual(CertifiedKey.read(file, file).certificate, made)

    def test_hosts_and_resolv_conf_are_read(self) -> None:
        self.assertEqual(read_hosts(self.file("192.0.2.1 mx\n")), {"mx": ("192.0.2.1",)})
        read = read_resolv_conf(self.file("nameserver 192.0.2.53\n"))
        self.assertEqual([each.name for each in read.nameservers], ["192.0.2.53"])
