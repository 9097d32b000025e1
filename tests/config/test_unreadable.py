"""Files of settings that cannot be read: which file, by which user, and why."""

import os
import shutil
import tempfile
from collections.abc import Callable

from tests.tidy import TidyTestCase
from twisted_mta.auth.accounts import AccountsError
from twisted_mta.auth.accounts_file import read_accounts
from twisted_mta.config import ConfigError, load
from twisted_mta.config.checker import checker_spec
from twisted_mta.config.destination import Destination
from twisted_mta.delivery.credentials import load_credentials
from twisted_mta.routing.alias_file import AliasError, read_aliases
from twisted_mta.tls.certificates import CertificateError, CertifiedKey, read_certificates

_OTHER_USER = 65534


def _credentials(path: str) -> None:
    load_credentials(Destination(domain="a.example", username="me", password_file=path))


REFUSALS = (CertificateError, AccountsError, AliasError, ConfigError)
READERS: tuple[Callable[[str], object], ...] = (
    read_certificates,
    lambda path: CertifiedKey.read(path, path),
    read_accounts,
    lambda path: read_aliases(path, ours=("example.net",)),
    _credentials,
    lambda path: load({}, path, environment={}),
    lambda path: checker_spec(f"file:{path}").make(),
)


class Unreadable(TidyTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        os.chmod(self.directory, 0o711)
        self.file = os.path.join(self.directory, "closed", "file")
        os.mkdir(os.path.dirname(self.file), 0o700)
        with open(self.file, "w", encoding="ascii"):
            pass
        os.chmod(self.file, 0)

    def refusals(self, path: str) -> list[str]:
        """Return the errors of all readers, as a user without rights."""
        if os.geteuid() == 0:
            self.addCleanup(os.seteuid, 0)
            os.seteuid(_OTHER_USER)
        texts = []
        for read in READERS:
            texts.append(str(self.assertRaises(REFUSALS, read, path)))
        return texts

    def assert_all(self, texts: list[str], *parts: str) -> None:
        for text in texts:
            for part in parts:
                self.assertIn(part, text)

    def test_a_file_without_rights_is_named_with_the_user_and_the_owner(self) -> None:
        os.chmod(os.path.dirname(self.file), 0o711)
        owner = os.stat(self.file).st_uid
        texts = self.refusals(self.file)
        self.assert_all(
            texts,
            "cannot be read by user ",
            f"({os.geteuid()}): Permission denied: {self.file} belongs to user ",
            f"({owner}) and has mode 0000",
        )

    def test_a_directory_that_may_not_be_passed_is_named(self) -> None:
        if os.geteuid() != 0:
            os.chmod(os.path.dirname(self.file), 0)
            self.addCleanup(os.chmod, os.path.dirname(self.file), 0o700)
        self.assert_all(
            self.refusals(self.file), f"Permission denied: {os.path.dirname(self.file)} belongs to"
        )

    def test_a_directory_in_the_place_of_a_file_is_said_to_be_one(self) -> None:
        os.chmod(self.directory, 0o755)
        self.assert_all(
            self.refusals(self.directory), "cannot be read: found a directory, expected a file"
        )

    def test_a_missing_file_is_said_to_be_missing(self) -> None:
        self.assert_all(
            self.refusals(f"{self.directory}/none"), "cannot be read: No such file or directory"
        )
