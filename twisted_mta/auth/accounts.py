"""Accounts: who may authenticate, how that is proved, and as whom they may send.

One account is one line of a file, an object of JSON; empty lines and lines that begin with ``#``
are left alone:

    {"name": "ann", "argon2": "$argon2id$v=19$m=19456,t=2,p=1$…", "scram-sha-256":
     "10000$salt$stored key$server key", "scram-sha-1": "…", "addresses": ["a@example.net"]}

No password is in it, and none can be read out of it; but from the keys of SCRAM whoever has the
file can try passwords, and impersonate the server. So it is for its owner alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import Type
from attrs import Factory, field, frozen

from ..mail.address import AddressError, Mailbox, domain_name, folded
from ..mail.printable import printable
from ..smtp.sasl.exchange import SASLError
from ..smtp.sasl.saslprep import prepared
from ..smtp.sasl.scram import scram_keys
from ..system.slices import Work, finished

# OWASP's least for argon2id: 19 MiB and 2 passes, about 20 ms. Mail clients come with a password
# for every connection, so that this is what a login costs us.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

ITERATIONS = 10_000
"""Of SCRAM's keys. A client has to make as many, at each login; RFC 7677 §4 asks for 4,096."""

_SALT = 16  # octets
_FEW = 8  # accounts that are read between two chances for others to have their turn
_SCRAM = {"sha256": "scram-sha-256", "sha1": "scram-sha-1"}
_KEY = {"sha256": 32, "sha1": 20}  # octets
_FIELDS = ("name", "argon2", *_SCRAM.values(), "addresses", "certificates")

NOBODY = (
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ibw"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""What a name that has no account is checked against, so that it takes as long: nobody knows a
password for it."""


class AccountsError(ValueError):
    """A file of accounts cannot be used, or not be changed so; one printable line that says why."""


@frozen
class ScramVerifier:
    """What a server keeps of a password for SCRAM (RFC 5802 §3)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of(cls, algorithm: str, password: str, salt: bytes) -> ScramVerifier:
        """Return that of a password that is prepared."""
        keys = scram_keys(algorithm, password, salt, ITERATIONS)
        return cls(ITERATIONS, salt, keys.stored, keys.server)

    @classmethod
    def read(cls, algorithm: str, text: str) -> ScramVerifier:
        """Return what `__str__` has written.

        Raises:
            ValueError: it has not.
        """
        iterations, *rest = text.split("$")
        salt, stored, server = (b64decode(each, validate=True) for each in rest)
        if int(iterations) < 1 or not salt or {len(stored), len(server)} != {_KEY[algorithm]}:
            raise ValueError("nobody could come in with that")
        return cls(int(iterations), salt, stored, server)

    def __str__(self) -> str:
        octets = (self.salt, self.stored_key, self.server_key)
        return "$".join((str(self.iterations), *(b64encode(each).decode() for each in octets)))


@frozen
class Account:
    """Somebody who may authenticate.

    Attributes:
        name: what is typed; in any case of letters.
        argon2: the hash of the password, None without one.
        scram: by algorithm, as `hashlib` names it.
        addresses: as whom mail may be sent, besides the name: mailboxes, ``@domain`` or ``*``.
        certificates: SHA-256 fingerprints of client certificates, lower-case hex.
    """

    name: str
    argon2: str | None = field(default=None, repr=False)
    scram: Mapping[str, ScramVerifier] = field(factory=dict, repr=False)
    addresses: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        password: str | None,
        *,
        addresses: Iterable[str] = (),
        certificates: Iterable[str] = (),
        secret: Callable[[int], bytes],
    ) -> Account:
        """Return a new one. Blocks for about 50 ms, for the sake of those who guess.

        Args:
            name: see the attributes.
            password: None: it is used with a certificate alone.
            addresses: see the attributes.
            certificates: likewise; colons are fine.
            secret: returns that many octets that nobody can guess.

        Raises:
            AccountsError: something cannot be.
        """
        argon2, scram = None, {}
        if password == "":
            raise AccountsError("password: it has to have at least one character")
        if password is not None:
            password = _prepared("password", password)
            argon2 = _HASHER.hash(password, salt=secret(_SALT))
            scram = {each: ScramVerifier.of(each, password, secret(_SALT)) for each in _SCRAM}
        return cls(
            account_name(name),
            argon2,
            scram,
            tuple(dict.fromkeys(map(_address, addresses))),
            tuple(dict.fromkeys(map(_certificate, certificates))),
        )

    def line(self) -> str:
        """Return its line of the file, without an end."""
        said: dict[str, Any] = {"name": self.name}
        if self.argon2 is not None:
            said["argon2"] = self.argon2
        for algorithm, key in _SCRAM.items():
            if algorithm in self.scram:
                said[key] = str(self.scram[algorithm])
        if self.addresses:
            said["addresses"] = list(self.addresses)
        if self.certificates:
            said["certificates"] = list(self.certificates)
        return json.dumps(said)


def verify(argon2: str | None, password: str) -> bool:
    """Whether a password that is prepared is the one of a hash. Blocks for about 20 ms.

    Args:
        argon2: None: of nobody, which takes as long.
        password: see there.
    """
    try:
        return _HASHER.verify(argon2 or NOBODY, password) and argon2 is not None
    except (VerificationError, InvalidHashError):
        return False


def key_of(name: str) -> str:
    """Return what two spellings of an account's name have in common."""
    return name.lower()


class AccountTable(Mapping[str, Account]):
    """Accounts by `key_of` their names, kept small: strings in tuples.

    50,000 of them as objects keep a full garbage collection busy for a tenth of a second.
    """

    def __init__(self, accounts: Mapping[str, Account] | None = None) -> None:
        self._packed: dict[str, tuple[Any, ...]] = {}
        for account in (accounts or {}).values():
            self.put(account)

    def __getitem__(self, key: str) -> Account:
        name, argon2, scram, addresses, certificates = self._packed[key]
        verifiers = {algorithm: ScramVerifier(*keys) for algorithm, *keys in scram}
        return Account(name, argon2, verifiers, addresses, certificates)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def put(self, account: Account) -> None:
        """Add an account."""
        scram = tuple(
            (algorithm, one.iterations, one.salt, one.stored_key, one.server_key)
            for algorithm, one in account.scram.items()
        )
        self._packed[key_of(account.name)] = (
            *(account.name, account.argon2, scram, account.addresses, account.certificates),
        )

    def same(self, other: AccountTable, key: str) -> bool:
        """Whether an account is the same in both, or in none."""
        return self._packed.get(key) == other._packed.get(key)

    def by_certificate(self) -> dict[str, str]:
        """Return the key of the account of each certificate."""
        return {one: key for key, packed in self._packed.items() for one in packed[-1]}


def _table(accounts: Mapping[str, Account]) -> AccountTable:
    return accounts if isinstance(accounts, AccountTable) else AccountTable(accounts)


@frozen
class Accounts:
    """All accounts of a file.

    Attributes:
        by_name: by `key_of` the name.
    """

    by_name: AccountTable = field(factory=AccountTable, converter=_table)
    _by_certificate: Mapping[str, str] = field(
        default=Factory(lambda self: self.by_name.by_certificate(), takes_self=True),
        init=False,
        eq=False,
    )

    @classmethod
    def read(cls, path: str) -> Accounts:
        """Return those of a file. Blocks.

        Raises:
            AccountsError: it cannot be used; why, and what would do.
        """
        return finished(parsing_accounts(read_content(path), path))

    def get(self, name: str) -> Account | None:
        """Return the account of that name, in any case of letters."""
        return self.by_name.get(key_of(name))

    def with_certificate(self, fingerprint: str) -> Account | None:
        """Return whose a client certificate is."""
        key = self._by_certificate.get(fingerprint)
        return None if key is None else self.by_name[key]

    @property
    def any_certificate(self) -> bool:
        """Whether anybody can come with one."""
        return bool(self._by_certificate)


@frozen
class Senders:
    """Who may send as whom: each account by its name, and by the addresses that it was given.

    A name without a domain stands for that mailbox in every local domain; sub-addresses
    (``ann+news``) are the mailbox's; local parts are compared as `folded`.

    Attributes:
        accounts: see there; who is not among them has a name alone.
        local_domains: canonical.
    """

    accounts: Accounts
    local_domains: tuple[str, ...]
    _mailboxes: Mapping[str, None] = field(alias="mailboxes")

    @_mailboxes.default
    def _default_mailboxes(self) -> Mapping[str, None]:
        return finished(self._making_mailboxes())

    @classmethod
    def making(cls, accounts: Accounts, local_domains: tuple[str, ...]) -> Work[Senders]:
        """Return what is known of accounts, as the constructor does at once."""
        # The table is made by what needs no table.
        mailboxes = yield from cls(accounts, local_domains, {})._making_mailboxes()
        return cls(accounts, local_domains, mailboxes)

    def _making_mailboxes(self) -> Work[dict[str, None]]:
        mailboxes: dict[str, None] = {}
        for number, account in enumerate(self.accounts.by_name.values()):
            if number % _FEW == 0:
                yield
            mailboxes.update(dict.fromkeys(self._addresses(account.name)))
        return mailboxes

    def may_send_as(self, name: str, mailbox: Mailbox) -> bool:
        """Whether an account may use an address."""
        local_part, domain = folded(mailbox.local_part), mailbox.domain
        # As it is, too: an account may be given a sub-address, and nothing else of its mailbox.
        wanted = ("*", f"@{domain}", f"{_plain(local_part)}@{domain}", f"{local_part}@{domain}")
        return any(each in wanted for each in self._addresses(name))

    def address_of(self, name: str) -> Mailbox | None:
        """Return the address by which an account is to be called, None where it has none."""
        for each in self._addresses(name):
            if each != "*" and each[0] != "@":
                return Mailbox.parse(each)
        return None

    def is_mailbox(self, mailbox: Mailbox) -> bool:
        """Whether an address is somebody's, for mail to come to."""
        return f"{_plain(mailbox.local_part)}@{mailbox.domain}" in self._mailboxes

    def _addresses(self, name: str) -> Sequence[str]:
        own: list[str] = []
        try:
            if "@" in name:
                own.append(_address(name))
            else:
                own += [_address(f"{name}@{domain}") for domain in self.local_domains]
        except AccountsError:
            pass  # a name that is no local part stands for no mailbox
        account = self.accounts.get(name)
        return own if account is None else (*own, *account.addresses)


def _plain(local_part: str) -> str:
    return folded(local_part).partition("+")[0]


# The file.


def read_content(path: str) -> bytes:
    """Return what a file of accounts holds; blocks.

    Raises:
        AccountsError: it cannot be used; why, and what would do.
    """
    try:
        with open(path, "rb", opener=_opener) as file:
            _check_mode(path, os.fstat(file.fileno()))
            return file.read()
    except OSError as error:
        raise AccountsError(
            f"{printable(path)}: {error.strerror}; a file made by twisted-mta users add would do"
        ) from None


def parsing_accounts(content: bytes, path: str) -> Work[Accounts]:
    """Return the accounts that the content of a file holds.

    Args:
        content: UTF-8.
        path: of the file, for people.

    Raises:
        AccountsError: something in it cannot be.
    """
    by_name = AccountTable()
    for number, (_, account) in enumerate(_lines(content, path)):
        if number % _FEW == 0:
            yield
        if account is not None:
            by_name.put(account)
    return Accounts(by_name)


@contextlib.contextmanager
def changing(path: str) -> Iterator[dict[str, Account | None]]:
    """Change a file: yields what it holds, by `key_of` names, to be changed. Blocks.

    Two who change it at once wait for each other, and whoever reads it sees all or nothing of a
    change, after a crash too.

    Raises:
        AccountsError: it cannot be used.
        OSError: it cannot be written.
    """
    with _locked(path) as (descriptor, found):
        with open(descriptor, "rb", closefd=False) as file:
            entries = list(_lines(file.read(), path))
        before = {key_of(account.name): account for _, account in entries if account is not None}
        held: dict[str, Account | None] = dict(before)
        yield held
        lines = [
            line
            if account is None or held.get(key_of(account.name)) == account
            else _line(held.get(key_of(account.name)))
            for line, account in entries
        ]
        lines += [_line(account) for key, account in held.items() if key not in before]
        _replace(path, "".join(f"{line}\n" for line in lines if line is not None), found)


def _line(account: Account | None) -> str | None:
    return None if account is None else account.line()


@contextlib.contextmanager
def _locked(path: str) -> Iterator[tuple[int, os.stat_result]]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            found = os.fstat(descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(found, os.stat(path)):
                    _check_mode(path, found)
                    yield descriptor, found
                    return
            # Somebody has put another file in its place while we waited.
        finally:
            os.close(descriptor)


def _replace(path: str, text: str, like: os.stat_result) -> None:
    path = os.path.realpath(path)
    name = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)  # of one that crashed: we have the lock
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _opener(path: str, flags: int) -> int:
    # A pipe is not waited for: `_check_mode` says that it is no file.
    return os.open(path, flags | os.O_NONBLOCK)


def _check_mode(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise AccountsError(f"{printable(path)}: no file")
    if found.st_mode & 0o027:
        raise AccountsError(
            f"{printable(path)}: others may read or write it (mode"
            f" {stat.S_IMODE(found.st_mode):04o}); chmod 0600 would do"
        )


def _lines(content: bytes, path: str) -> Iterator[tuple[str, Account | None]]:
    """Yield each line with its account, None where it is none.

    Raises:
        AccountsError: something in it cannot be.
    """
    seen: dict[str, int] = {}
    for number, octets in enumerate(BytesIO(content), 1):
        try:
            line = octets.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise AccountsError(f"{printable(path)}: not UTF-8") from None
        if not line.strip() or line.startswith("#"):
            yield line, None
            continue
        account = _account(line, f"{printable(path)}: line {number}")
        key = key_of(account.name)
        if key in seen:
            raise AccountsError(
                f"{printable(path)}: line {number}: {printable(account.name)} is in line"
                f" {seen[key]} already; one of the two would do"
            )
        seen[key] = number
        yield line, account


def _account(line: str, where: str) -> Account:
    # Errors say the field and never its value, which may be what a password can be tried on.
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise AccountsError(f"{where}: no object of JSON; twisted-mta users add writes them")
    for key in said:
        if key not in _FIELDS:
            raise AccountsError(f"{where}: {printable(key)} is no such field; {', '.join(_FIELDS)}")
    try:
        argon2 = said.get("argon2")
        if argon2 is not None and not _is_hash(argon2):
            raise AccountsError("argon2: no hash of argon2id")
        scram = {}
        for algorithm, key in _SCRAM.items():
            if key in said:
                try:
                    scram[algorithm] = ScramVerifier.read(algorithm, said[key])
                except (ValueError, AttributeError):
                    raise AccountsError(f"{key}: iterations$salt$key$key would do") from None
        return Account(
            account_name(said.get("name")),
            argon2,
            scram,
            tuple(map(_address, _list(said, "addresses"))),
            tuple(map(_certificate, _list(said, "certificates"))),
        )
    except AccountsError as error:
        raise AccountsError(f"{where}: {error}") from None


def _is_hash(value: Any) -> bool:
    try:
        found = extract_parameters(value)
    except (InvalidHashError, AttributeError):
        return False
    return found.type is Type.ID and found.salt_len >= 8 and found.hash_len >= 4


def _list(said: Mapping[str, Any], key: str) -> list[Any]:
    value = said.get(key, [])
    if not isinstance(value, list):
        raise AccountsError(f"{key}: a list would do")
    return value


def account_name(value: Any) -> str:
    """Return a name as it is kept.

    Raises:
        AccountsError: it can be none.
    """
    name = _prepared("name", value) if isinstance(value, str) and value else ""
    if not name or not name.isprintable() or len(name) > 255 or name != name.strip():
        raise AccountsError(
            "name: 1 to 255 characters that can be seen, such as ann or ann@example.net, would do"
        )
    return name


def _prepared(what: str, text: str) -> str:
    try:
        return prepared(text)
    except SASLError:
        raise AccountsError(
            f"{what}: it has characters that cannot be typed alike everywhere"
        ) from None


def _address(value: Any) -> str:
    problem = f"no address: {printable(value)}; " if isinstance(value, str) else ""
    try:
        if value == "*":
            return "*"
        if value[0] == "@":
            return "@" + domain_name(value[1:])
        mailbox = Mailbox.parse(value)
        if not mailbox.domain:
            raise AddressError("it has no domain")
        return str(Mailbox(folded(mailbox.local_part), mailbox.domain))
    except (AddressError, IndexError, TypeError):
        raise AccountsError(
            f"addresses: {problem}ann@example.net, @example.net (all of a domain) or * (any)"
            " would do"
        ) from None


def _certificate(value: Any) -> str:
    digits = value.replace(":", "").lower() if isinstance(value, str) else ""
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise AccountsError(
            "certificates: SHA-256 fingerprints, which have 64 hex digits, would do"
        )
    return digits
