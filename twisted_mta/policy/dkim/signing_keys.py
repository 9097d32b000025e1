"""The private keys of ours: read from their files, and chosen by the From domain of a message."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Literal

from attrs import field, frozen
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ...config import DKIMKey
from ...mail.printable import printable
from ...system.work import Work
from ...tls.certificates import CertificateError, read_key

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

_LEAST_BITS = 1024  # RFC 8301 §3.2: verifiers treat signatures of shorter keys as invalid
_GOOD_BITS = 2048  # RFC 8301 §3.2: signers should have no shorter keys
_MOST_BITS = 4096  # RFC 8301 §3.2: verifiers need not support longer keys


@frozen
class SigningKey:
    """A private key, with the name under which DNS has its public half.

    Attributes:
        domain: that signs (``d=``), canonical.
        selector: of the key (``s=``), in lower case.
        file: the path of the key.
        private: the key.
        public: the public half, as DER of a SubjectPublicKeyInfo; by it keys are compared.
        warnings: about the key and its file, printable.
    """

    domain: str
    selector: str
    file: str
    private: PrivateKey = field(repr=False, eq=False)
    public: bytes = field(repr=False)
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, settings: DKIMKey) -> SigningKey:
        """Read a key. Blocks, for about 4 ms.

        Raises:
            CertificateError: the file cannot be read, or holds no key that signs; the text has its
                path and the reason.
        """
        file = settings.key
        private = read_key(file)
        if not isinstance(private, PrivateKey):
            raise CertificateError(
                f"{printable(file)}: found a key of another kind; expected RSA or Ed25519"
            )
        if isinstance(private, RSAPrivateKey):
            bits = private.key_size
            if not _LEAST_BITS <= bits <= _MOST_BITS:
                raise CertificateError(
                    f"{printable(file)}: found an RSA key of {bits} bits; expected {_GOOD_BITS}"
                )
        return cls(
            settings.domain,
            settings.selector,
            file,
            private,
            private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            tuple(_warnings(file, private)),
        )

    @property
    def record_name(self) -> str:
        """Where DNS has the public half (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def algorithm(self) -> Literal["rsa", "ed25519"]:
        """The type of the key (RFC 6376 §3.6.1, ``k=``)."""
        return "rsa" if isinstance(self.private, RSAPrivateKey) else "ed25519"

    @property
    def bits(self) -> int:
        """The length of the key."""
        return self.private.key_size if isinstance(self.private, RSAPrivateKey) else 256


def _warnings(file: str, private: PrivateKey) -> Iterable[str]:
    with suppress(OSError):  # it is gone by now
        mode = stat.S_IMODE(os.stat(file).st_mode)
        if mode & stat.S_IROTH:
            yield f"{printable(file)}: all users can read it (mode {mode:04o}); expected chmod 0600"
    if isinstance(private, RSAPrivateKey) and private.key_size < _GOOD_BITS:
        yield (
            f"{printable(file)}: an RSA key of {private.key_size} bits, which some receivers do not"
            f" accept; expected {_GOOD_BITS}"
        )


def load_keys(settings: Iterable[DKIMKey]) -> Work[tuple[SigningKey, ...]]:
    """Read all keys, without any effect.

    Raises:
        CertificateError: a file cannot be used (`SigningKey.read`).
    """
    keys = []
    for each in settings:
        yield
        keys.append(SigningKey.read(each))
    return tuple(keys)


class SigningKeys:
    """The keys in force.

    Args:
        keys: in any order.
    """

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        self._by_domain: Mapping[str, tuple[SigningKey, ...]] = {}
        self.use(keys)

    def __bool__(self) -> bool:
        """Whether there is any key."""
        return bool(self._by_domain)

    def use(self, keys: Iterable[SigningKey]) -> list[str]:
        """Replace all keys.

        Returns:
            A line for each key that is another one in the same file, printable.
        """
        before = {
            (key.record_name, key.file): key
            for several in self._by_domain.values()
            for key in several
        }
        by_domain: dict[str, tuple[SigningKey, ...]] = {}
        lines = []
        for key in keys:
            by_domain[key.domain] = (*by_domain.get(key.domain, ()), key)
            old = before.get((key.record_name, key.file))
            if old is not None and old.public != key.public:
                lines.append(
                    f"{printable(key.file)}: a new key ({key.algorithm}, {key.bits} bits) for"
                    f" {key.record_name}"
                )
        self._by_domain = by_domain
        return lines

    def of(self, domain: str) -> tuple[SigningKey, ...]:
        """Return the keys that sign for a From domain.

        They are those of the domain itself, or else of its closest parent that has any.

        Args:
            domain: canonical.

        Returns:
            All keys of one domain, in the order of the settings; empty: none may sign.
        """
        while True:
            keys = self._by_domain.get(domain)
            if keys is not None:
                return keys
            _, dot, domain = domain.partition(".")
            if not dot:
                return ()
