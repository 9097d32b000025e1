"""A file of clients, senders and recipients that mail of strangers is allowed or denied by.

::

    # comment
    192.0.2.7                  # a client, by its address
    192.0.2.0/24
    2001:db8::/32
    client:mail.example.net    # by its reverse name, confirmed by a forward look-up
    client:.dynamic.example    # any name below it
    helo:friend                # by its name in EHLO
    helo:.example.net
    ann@example.net            # a sender, by the reverse-path
    example.net                # all senders in the domain
    .example.net               # all senders in domains below it
    to:bob@us.example          # a recipient
    to:us.example
    to:.us.example

Each entry is found by a few look-ups in tables, however many there are: one for each length of a
network that occurs, and one for each label of a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal

from attrs import field, frozen

from ...mail.address import AddressError, Mailbox, domain_name, folded
from ...system.large_table import LargeTable
from ...system.line_file import emptying, found, parsing
from ...system.work import Work

Subject = Literal["client", "helo", "sender", "to"]
"""What an entry is about."""

_SUBJECTS: tuple[Subject, ...] = ("client", "helo", "sender", "to")
_NETWORK = re.compile(r"[0-9.]+(?:/.*)?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%.*)?(?:/.*)?")
_PREFIX = re.compile(r"(client|helo|to):\s*", re.IGNORECASE)
_HELO = re.compile(r"[!-~]{1,255}")  # clients give names that are no domain names
_EXPECTED = (
    "an address, a network, a domain, .domain, a mailbox, or one of these behind to:, or a name"
    " behind client: or helo:"
)


@frozen
class Entry:
    """An entry of the file.

    Attributes:
        line: its number.
        subject: what it is about; an address or network is about the client.
        text: the entry in its canonical form.
    """

    line: int
    subject: Subject
    text: str


@frozen(eq=False)
class AccessList:
    """The entries of a file.

    Attributes:
        name: the path of the file; empty: there is none.
    """

    name: str = ""
    _names: dict[Subject, LargeTable[int]] = field(
        factory=lambda: {each: LargeTable() for each in _SUBJECTS}
    )
    _networks: dict[tuple[int, int], dict[int, int]] = field(factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self._names.values())) + sum(map(len, self._networks.values()))

    def has(self, subject: Subject) -> bool:
        """Whether there are entries about a subject."""
        return bool(self._names[subject])

    def address(self, address: str | None) -> Entry | None:
        """Return the entry with the longest network that has an address."""
        if address is None or not self._networks:
            return None
        parsed = ip_address(address.partition("%")[0])
        mapped = parsed.ipv4_mapped if parsed.version == 6 else None
        client = mapped or parsed
        number, bits = int(client), client.max_prefixlen
        for length in range(bits, -1, -1):
            networks = self._networks.get((client.version, length))
            if networks is not None:
                start = number >> (bits - length) << (bits - length)
                line = networks.get(start)
                if line is not None:
                    text = str(ip_network((start, length)))
                    return Entry(line, "client", text.removesuffix(f"/{bits}"))
        return None

    def host(self, subject: Literal["client", "helo"], name: str) -> Entry | None:
        """Return the entry about a name of a client: the name itself, or the longest above it."""
        names = self._names[subject]
        for each in _with_those_above(name.lower().removesuffix(".")) if names else ():
            if each in names:
                return Entry(names[each], subject, f"{subject}:{each}")
        return None

    def sender(self, mailbox: Mailbox) -> Entry | None:
        """Return the entry about a reverse-path."""
        return self._mailbox("sender", mailbox, (folded(mailbox.local_part),))

    def recipient(self, mailbox: Mailbox) -> Entry | None:
        """Return the entry about a recipient, also without the tag of its local part."""
        whole = folded(mailbox.local_part)
        return self._mailbox("to", mailbox, (whole, whole.partition("+")[0]))

    def _mailbox(
        self, subject: Subject, mailbox: Mailbox, local_parts: tuple[str, ...]
    ) -> Entry | None:
        names = self._names[subject]
        if not names:
            return None
        prefix = "to:" if subject == "to" else ""
        for local_part in local_parts:
            key = f"{local_part}@{mailbox.domain}"
            if key in names:
                return Entry(names[key], subject, prefix + key)
        for key in _with_those_above(mailbox.domain):
            if key in names:
                return Entry(names[key], subject, prefix + key)
        return None

    def put(self, text: str, line: int) -> None:
        """Add an entry of the file.

        Raises:
            ValueError: it is none; the text says what was found, and what was expected.
        """
        match = _PREFIX.match(text)
        subject: Subject = match[1].lower() if match else "sender"  # type: ignore[assignment]
        rest = text[match.end() :] if match else text
        try:
            if _NETWORK.fullmatch(rest):
                if match:
                    raise ValueError(f"an address; expected it without {match[1]}:")
                self._put_network(_network(rest), line)
            else:
                names, key = self._names[subject], _key(subject, rest)
                if key not in names:
                    names[key] = line
        except ValueError as error:  # AddressError is one
            expected = "" if "expected" in str(error) else f"; expected {_EXPECTED}"
            raise ValueError(f"{found(text)}: {error}{expected}") from None

    def _put_network(self, network: IPv4Network | IPv6Network, line: int) -> None:
        key = network.version, network.prefixlen
        self._networks.setdefault(key, {}).setdefault(int(network.network_address), line)

    def empty(self) -> Work[None]:
        """Free the memory of a list that is no longer used."""
        for names in self._names.values():
            yield from names.emptying()
        yield from emptying(*self._networks.values())


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        wider = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("not a network; expected 192.0.2.0/24 or 2001:db8::/32") from None
    raise ValueError(f"bits are set beyond the prefix; expected {wider}")


def _key(subject: Subject, text: str) -> str:
    """Return the canonical form of a name or mailbox."""
    if subject in ("sender", "to") and "@" in text:
        if text.startswith("@"):
            raise ValueError(f"no local part; expected {text[1:]} for all of a domain")
        mailbox = Mailbox.parse(text)
        return f"{folded(mailbox.local_part)}@{mailbox.domain}"
    dot = "." if text.startswith(".") else ""
    name = text.removeprefix(".")
    if subject == "helo" and not dot and _HELO.fullmatch(name):
        try:
            return domain_name(name)
        except AddressError:
            return name.lower()
    return dot + domain_name(name)


def _with_those_above(name: str) -> Iterator[str]:
    """Yield a name, then ``.`` and each name above it, the longest first."""
    yield name
    if name.startswith("["):
        return  # an address literal has no domains above it
    at = name.find(".")
    while at >= 0:
        yield name[at:]
        at = name.find(".", at + 1)


def parse_in_slices(content: bytes, path: str, settings: None = None) -> Work[AccessList]:
    """Return the entries of a file. Of two equal ones the first counts.

    Args:
        content: UTF-8.
        path: of the file, for people.
        settings: none.

    Raises:
        LineFileError: a line is wrong.
    """
    entries = AccessList(path)
    yield from parsing(content, name=path, take=entries.put)
    return entries
