"""The files of ACME in the state directory: accounts, the certificate with its key, the schedule.

Each is written beside its name, synced, and then takes the place of the one before: a crash leaves
the old file or the new one, whole. All have mode 0600.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from typing import Any

from attrs import asdict, frozen

from ...config.unreadable import unreadable
from ...interfaces import Files
from ...mail.printable import printable
from ..certificate_files import CERTIFICATE, acme_directory, certificate_file
from ..certificates import CertificateError, CertifiedKey
from .issuance import Account
from .jws import AccountKey
from .schedule import Window

_STATUS = "renewal.json"
_LARGEST = 65_536  # octets of a file that is read, but for the certificate

REFUSED = ".unusable"
"""The end of the name of a certificate that was set aside."""


@frozen(kw_only=True)
class Status:
    """How renewal stands.

    Attributes:
        directory: the URL of the authority that has issued the certificate; empty: none yet.
        names: that were asked for; the authority may have added others.
        issued_at: wall time at which it came.
        window: in which it wants the certificate renewed; None: it does not say.
        problem: why the last attempt has failed; empty: it has not.
        failures: attempts that have failed in a row.
        failed_at: wall time of the last.
        next_try: wall time before which no other is made.
    """

    directory: str = ""
    names: tuple[str, ...] = ()
    issued_at: float = 0.0
    window: Window | None = None
    problem: str = ""
    failures: int = 0
    failed_at: float = 0.0
    next_try: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self)

    @classmethod
    def from_json(cls, written: Any) -> Status:
        """Read what `to_json` returned.

        Raises:
            ValueError: it has another shape.
        """
        try:
            window = written["window"]
            return cls(
                directory=str(written["directory"]),
                names=tuple(map(str, written["names"])),
                issued_at=float(written["issued_at"]),
                window=None
                if window is None
                else Window(*(float(window[name]) for name in ("start", "end", "chosen"))),
                problem=printable(str(written["problem"])),
                failures=int(written["failures"]),
                failed_at=float(written["failed_at"]),
                next_try=float(written["next_try"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not the state of a renewal: {error!r}") from None


class Store:
    """Reads and writes the files. Every method blocks.

    Args:
        state_dir: the state directory.
        files: the disk.
    """

    def __init__(self, state_dir: str, files: Files) -> None:
        self._state_dir = state_dir
        self._directory = acme_directory(state_dir)
        self._files = files

    def certificate(self) -> CertifiedKey | None:
        """Return the certificate from the authority with its key; None: there is none.

        Raises:
            CertificateError: it cannot be used.
        """
        path = certificate_file(self._state_dir)
        return CertifiedKey.read(path, path) if os.path.exists(path) else None

    def set_aside(self) -> str:
        """Rename a certificate that cannot be used; return its new path."""
        path = certificate_file(self._state_dir)
        aside = f"{path}{REFUSED}"
        self._files.replace(path, aside)
        return aside

    def save_certificate(self, key_and_chain: bytes) -> None:
        """Let a certificate take the place of the one before.

        Raises:
            OSError: it cannot be written; the one before stays.
        """
        self._write(CERTIFICATE, key_and_chain)

    def account(self, url: str) -> Account:
        """Return our account at an authority; its key is made, and kept, where there is none.

        Args:
            url: of the authority's directory.

        Raises:
            OSError: the file can be neither read nor made.
            ValueError: the file has something else in it.
        """
        name = _account_file(url)
        try:
            written = self._read(name)
        except FileNotFoundError:
            account = Account(key=AccountKey.new())
            self.save_account(url, account)
            return account
        try:
            found = json.loads(written)
            account_url, contact = found["account"], found["contact"]
            return Account(
                key=AccountKey.from_pem(found["key"]),
                url=None if account_url is None else str(account_url),
                contact=tuple(map(str, contact)),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            path = printable(os.path.join(self._directory, name))
            raise ValueError(
                f"{path}: not an account; if the file is removed, a new account is made"
            ) from None

    def save_account(self, url: str, account: Account) -> None:
        """Keep our account at an authority.

        Raises:
            OSError: it cannot be written.
        """
        content = {
            "directory": url,
            "account": account.url,
            "contact": list(account.contact),
            "key": account.key.pem(),
        }
        self._write(_account_file(url), json.dumps(content, indent=2).encode("ascii") + b"\n")

    def status(self) -> Status:
        """Return how renewal stands; what cannot be read counts as nothing."""
        return _status(self._read)

    def save_status(self, status: Status) -> None:
        """Keep how renewal stands.

        Raises:
            OSError: it cannot be written.
        """
        self._write(_STATUS, json.dumps(status.to_json(), indent=2).encode("ascii") + b"\n")

    def _read(self, name: str) -> bytes:
        with self._files.open(os.path.join(self._directory, name)) as opened:
            content: bytes = opened.read(_LARGEST)
        return content

    def _write(self, name: str, content: bytes) -> None:
        path = os.path.join(self._directory, name)
        self._files.make_directories(self._directory)
        new = f"{path}.new"
        self._files.unlink(new)  # left by a crash
        file = self._files.create(new)
        try:
            file.write(content)
            file.sync()
        except BaseException:
            with suppress(OSError):
                self._files.unlink(new)
            raise
        finally:
            file.close()
        self._files.replace(new, path)
        self._files.sync_directory(self._directory)


def read_status(state_dir: str) -> Status:
    """Return how renewal stands, for a program beside the MTA. Blocks."""

    def read(name: str) -> bytes:
        with open(os.path.join(acme_directory(state_dir), name), "rb") as opened:
            return opened.read(_LARGEST)

    return _status(read)


def _status(read: Any) -> Status:
    try:
        return Status.from_json(json.loads(read(_STATUS)))
    except (OSError, ValueError, RecursionError):
        return Status()


def read_binding_key(file: str) -> str:
    """Return the content of a file with a key for external account binding. Blocks.

    Raises:
        CertificateError: it cannot be read.
    """
    try:
        with open(file, "rb") as opened:
            return opened.read(4096).decode("ascii")
    except (OSError, ValueError) as error:
        problem = "not a key in base64url" if isinstance(error, UnicodeDecodeError) else ""
        raise CertificateError(f"{printable(file)}: {problem or unreadable(file, error)}") from None


def _account_file(url: str) -> str:
    return f"account-{hashlib.sha256(url.encode('utf-8')).hexdigest()[:16]}.json"
