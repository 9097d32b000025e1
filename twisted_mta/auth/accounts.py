"""Accounts: names, password verifiers, and the addresses that each account may send as.

An account is one line of a file (`accounts_file`), an object of JSON:

    {"name": "ann", "argon2": "$argon2id$v=19$m=19456,t=2,p=1$…", "scram-sha-256":
     "10000$salt$stored key$server key", "scram-sha-1": "…", "addresses": ["a@example.net"]}

It holds no password, and none can be read out of it. But the keys of SCRAM allow to try passwords
without the server, and to impersonate it: the file is for its owner alone.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
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

SCRAM_ITERATIONS = 10_000
"""Of new SCRAM keys, and of names without an account. A client computes as many at each login;
RFC 7677 §4 asks for 4,096 at least."""

# OWASP's minimum for argon2id: 19 MiB and 2 passes, about 20 ms. Mail clients authenticate on every
# connection, so that is the cost of each connection.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_SALT = 16  # octets
_SCRAM = {"sha256": "scram-sha-256", "sha1": "scram-sha-1"}  # by the name that `hashlib` uses
_KEY = {"sha256": 32, "sha1": 20}  # octets
_FIELDS = ("name", "argon2", *_SCRAM.values(), "addresses", "certificates")
_LONGEST_NAME = 255  # characters

NO_PASSWORD = (
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9ibw"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""The hash that passwords of unknown names are verified against, so that the time shows nothing; no
password for it is known."""


class AccountsError(ValueError):
    """An account, or a file of accounts, that cannot be used; one printable line says why."""


@frozen
class ScramVerifier:
    """The keys by which a server verifies a password with SCRAM (RFC 5802 §3)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def of(cls, algorithm: str, password: str, salt: bytes) -> ScramVerifier:
        """Return the verifier of a prepared password."""
        keys = scram_keys(algorithm, password, salt, SCRAM_ITERATIONS)
        return cls(SCRAM_ITERATIONS, salt, keys.stored, keys.server)

    @classmethod
    def read(cls, algorithm: str, text: str) -> ScramVerifier:
        """Return the verifier that `__str__` has written.

        Raises:
            ValueError: it cannot have.
        """
        iterations, *rest = text.split("$")
        salt, stored, server = (b64decode(each, validate=True) for each in rest)
        if int(iterations) < 1 or not salt or {len(stored), len(server)} != {_KEY[algorithm]}:
            raise ValueError("no password matches this verifier")
        return cls(int(iterations), salt, stored, server)

    def __str__(self) -> str:
        octets = (self.salt, self.stored_key, self.server_key)
        return "$".join((str(self.iterations), *(b64encode(each).decode() for each in octets)))


@frozen
class Account:
    """A user who may authenticate.

    Attributes:
        name: as typed by the user; its case is ignored.
        argon2: hash of the password; None: there is no password.
        scram: verifiers of the password, by the name that `hashlib` has for the algorithm.
        addresses: that mail may be sent as besides the name: mailboxes, ``@domain`` or ``*``.
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
        """Return a new account. Blocks for about 50 ms: a password is slow to hash on purpose.

        Args:
            name: as above.
            password: None: the account authenticates with a certificate alone.
            addresses: as above.
            certificates: fingerprints in either case, with or without colons.
            secret: returns that many random octets.

        Raises:
            AccountsError: an argument is not valid.
        """
        argon2, scram = None, {}
        if password == "":
            raise AccountsError("password: found none, expected at least one character")
        if password is not None:
            password = _prepared("password", password)
            argon2 = _HASHER.hash(password, salt=secret(_SALT))
            scram = {each: ScramVerifier.of(each, password, secret(_SALT)) for each in _SCRAM}
        return cls(
            account_name(name),
            argon2,
            scram,
            tuple(dict.fromkeys(map(sender_address, addresses))),
            tuple(dict.fromkeys(map(_fingerprint, certificates))),
        )

    @classmethod
    def parse(cls, line: str) -> Account:
        """Return the account that `line` has written.

        Raises:
            AccountsError: the line is not valid. The text names the field and never its value,
                against which passwords could be tried.
        """
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise AccountsError(
                "not an object of JSON, as twisted-mta users add writes it to the file"
            )
        for key in entry:
            if key not in _FIELDS:
                raise AccountsError(
                    f"found field {printable(key)}, expected one of {', '.join(_FIELDS)}"
                )
        argon2 = entry.get("argon2")
        if argon2 is not None and not _is_argon2id(argon2):
            raise AccountsError("argon2: expected a hash of argon2id")
        scram = {}
        for algorithm, key in _SCRAM.items():
            if key in entry:
                try:
                    scram[algorithm] = ScramVerifier.read(algorithm, entry[key])
                except (ValueError, AttributeError):
                    raise AccountsError(
                        f"{key}: expected iterations$salt$stored key$server key"
                    ) from None
        return cls(
            account_name(entry.get("name")),
            argon2,
            scram,
            tuple(map(sender_address, _list(entry, "addresses"))),
            tuple(map(_fingerprint, _list(entry, "certificates"))),
        )

    def line(self) -> str:
        """Return the line of the file, without its end."""
        entry: dict[str, Any] = {"name": self.name}
        if self.argon2 is not None:
            entry["argon2"] = self.argon2
        for algorithm, key in _SCRAM.items():
            if algorithm in self.scram:
                entry[key] = str(self.scram[algorithm])
        if self.addresses:
            entry["addresses"] = list(self.addresses)
        if self.certificates:
            entry["certificates"] = list(self.certificates)
        return json.dumps(entry)


class AccountTable(Mapping[str, Account]):
    """Accounts by the `account_key` of their names, kept as tuples of strings.

    50,000 objects would keep a full garbage collection busy for a tenth of a second.
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
        """Add an account, or replace it."""
        scram = tuple(
            (algorithm, each.iterations, each.salt, each.stored_key, each.server_key)
            for algorithm, each in account.scram.items()
        )
        self._packed[account_key(account.name)] = (
            *(account.name, account.argon2, scram, account.addresses, account.certificates),
        )

    def same(self, other: AccountTable, key: str) -> bool:
        """Whether an account is equal in both tables, or missing from both."""
        return self._packed.get(key) == other._packed.get(key)

    def by_certificate(self) -> dict[str, str]:
        """Return the key of the account of each certificate."""
        return {each: key for key, packed in self._packed.items() for each in packed[-1]}


def _table(accounts: Mapping[str, Account]) -> AccountTable:
    return accounts if isinstance(accounts, AccountTable) else AccountTable(accounts)


@frozen
class Accounts:
    """All accounts of a file.

    Attributes:
        by_name: by the `account_key` of the name.
    """

    by_name: AccountTable = field(factory=AccountTable, converter=_table)
    _by_certificate: Mapping[str, str] = field(
        default=Factory(lambda self: self.by_name.by_certificate(), takes_self=True),
        init=False,
        eq=False,
    )

    def get(self, name: str) -> Account | None:
        """Return the account of that name, in any case; None if there is none."""
        return self.by_name.get(account_key(name))

    def with_certificate(self, fingerprint: str) -> Account | None:
        """Return the account of a client certificate; None if there is none."""
        key = self._by_certificate.get(fingerprint)
        return None if key is None else self.by_name[key]

    @property
    def any_certificate(self) -> bool:
        """Whether any account has a certificate."""
        return bool(self._by_certificate)


def verify(argon2: str | None, password: str) -> bool:
    """Whether a prepared password matches a hash. Blocks for about 20 ms.

    Args:
        argon2: None: no account; the answer is False, and takes as long.
        password: prepared with SASLprep.
    """
    try:
        return _HASHER.verify(argon2 or NO_PASSWORD, password) and argon2 is not None
    except (VerificationError, InvalidHashError):
        return False


def account_key(name: str) -> str:
    """Return the key that all spellings of an account's name share."""
    return name.lower()


def account_name(value: Any) -> str:
    """Return a name as an account keeps it.

    Raises:
        AccountsError: it cannot be the name of an account.
    """
    name = _prepared("name", value) if isinstance(value, str) and value else ""
    if not name or not name.isprintable() or len(name) > _LONGEST_NAME or name != name.strip():
        raise AccountsError(
            "name: expected 1 to 255 printable characters, such as ann or ann@example.net"
        )
    return name


def sender_address(value: Any) -> str:
    """Return an address that an account may send as, in its canonical form.

    Args:
        value: a mailbox, ``@domain``, or ``*`` for any address.

    Raises:
        AccountsError: it is none of these.
    """
    found = f"found {printable(value)}, " if isinstance(value, str) else ""
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
            f"addresses: {found}expected an address such as ann@example.net, @example.net (any of a"
            " domain) or * (any)"
        ) from None


def _prepared(what: str, text: str) -> str:
    try:
        return prepared(text)
    except SASLError:
        raise AccountsError(
            f"{what}: found characters that SASLprep (RFC 4013) prohibits, expected letters, digits"
            " and signs"
        ) from None


def _fingerprint(value: Any) -> str:
    digits = value.replace(":", "").lower() if isinstance(value, str) else ""
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise AccountsError("certificates: expected SHA-256 fingerprints of 64 hex digits")
    return digits


def _is_argon2id(value: Any) -> bool:
    try:
        parameters = extract_parameters(value)
    except (InvalidHashError, AttributeError):
        return False
    return parameters.type is Type.ID and parameters.salt_len >= 8 and parameters.hash_len >= 4


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    value = entry.get(key, [])
    if not isinstance(value, list):
        raise AccountsError(f"{key}: expected a list")
    return value
