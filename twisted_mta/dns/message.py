"""Questions and answers of the DNS on the wire (RFC 1035 §4), as far as a stub resolver has them.

An answer is read with bounds on everything that another can make large: how many records are
looked at and kept, how long a chain of aliases is, and how often a name may jump. Names are in wire
form without compression, in lower case.
"""

from __future__ import annotations

from struct import Struct, error

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from attrs import frozen

A, NS, CNAME, SOA, PTR, MX, AAAA, OPT = 1, 2, 5, 6, 12, 15, 28, 41
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

# https://www.dnsflagday.net/2020/: what passes every path without fragments.
PAYLOAD = 1232

MOST_RECORDS = 500  # of the type asked for that are kept; what follows is passed over
_MOST_WALKED = 1500  # records looked at
_MOST_ALIASES = 16  # followed within one answer
_MOST_JUMPS = 32  # of one name; an honest one has one for each of its labels at the most
_LONGEST_NAME = 255

_IN = 1
_HEADER = Struct("!HHHHHH")
_TYPE_AND_CLASS = Struct("!HH")
_RECORD = Struct("!HHIH")
_RESPONSE, _TRUNCATED, _RD, _AD = 0x8000, 0x0200, 0x0100, 0x0020
_OPCODE = 0x7800
# RFC 6891 §6.1.2, §6.1.3: the root, OPT, our payload, no extended code, version 0, no options.
_OPT_RECORD = b"\0" + _RECORD.pack(OPT, PAYLOAD, 0, 0)


class NotOurs(ValueError):
    """A message that is no answer to the question: another id, another name; not to be believed."""


class Garbled(ValueError):
    """An answer that cannot be read to its end."""


@frozen
class Answer:
    """What a name server says to one question.

    Attributes:
        rcode: with its extension.
        records: rdata of the type asked for, behind any aliases, names in it not compressed.
        alias: where a chain of aliases leads whose end it does not tell, the name itself where that
            is in a circle; None: it tells.
        authenticated: whether it says that it validated this (AD).
        ttl: seconds for which it may be kept; None: it does not say.
        truncated: whether there is more, to be had by TCP (TC).
        knows_edns: whether it has an OPT record.
        refers: whether it only names other servers (RFC 2308 §2.2), which is no answer.
    """

    rcode: int
    records: tuple[bytes, ...] = ()
    alias: bytes | None = None
    authenticated: bool = False
    ttl: int | None = None
    truncated: bool = False
    knows_edns: bool = False
    refers: bool = False

    @property
    def usable(self) -> bool:
        """Whether it says something of the name."""
        return (self.rcode == NOERROR and not self.refers) or self.rcode == NXDOMAIN

    @property
    def lacks_edns(self) -> bool:
        """Whether the question may be answered without an OPT record (RFC 6891 §6.2.2, §7).

        A server that knows EDNS has one in every answer to a question with one (§6.1.1), so that
        an error without, or nothing at all, may be due to it.
        """
        if self.rcode in (FORMERR, NOTIMP, BADVERS):
            return True
        if self.knows_edns or self.truncated or self.rcode == NXDOMAIN:
            return False
        return self.rcode != NOERROR or not (self.records or self.alias or self.ttl is not None)


def wire_name(domain: str) -> bytes:
    """Return a domain (A-labels) in wire form.

    Raises:
        ValueError: it is not a name that the DNS could hold.
    """
    labels = domain.lower().split(".")
    if domain.isascii() and "\\" not in domain:
        if all(0 < len(label) < 64 for label in labels) and len(domain) < _LONGEST_NAME - 1:
            return b"".join(bytes((len(each),)) + each.encode("ascii") for each in labels) + b"\0"
        raise ValueError(f"not a name that the DNS could hold: {domain!r}")
    try:
        return dns.name.from_text(f"{domain}.").to_wire().lower()  # type: ignore[union-attr]
    except dns.exception.DNSException as wrong:
        raise ValueError(f"not a name that the DNS could hold: {domain!r}") from wrong


def text_name(name: bytes) -> str:
    """Return a name in wire form as text, without its last dot; that of the root is empty."""
    labels = []
    at = 0
    while (length := name[at]) != 0:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    text = b".".join(labels)
    plain = text.replace(b"-", b"").replace(b"_", b"").replace(b".", b"").isalnum()
    if plain and text.count(b".") == len(labels) - 1:
        return text.decode("ascii")
    parsed, _ = dns.name.from_wire(name, 0)
    return "" if not labels else parsed.to_text(omit_final_dot=True)


def rdata(type: int, octets: bytes) -> dns.rdata.Rdata:
    """Return a record of an `Answer` as dnspython has it.

    Raises:
        Garbled: it is none of its type.
    """
    kind = dns.rdatatype.RdataType.make(type)
    try:
        return dns.rdata.from_wire(dns.rdataclass.IN, kind, octets, 0, len(octets))
    except (dns.exception.DNSException, ValueError) as wrong:
        raise Garbled(f"no {dns.rdatatype.to_text(kind)} record: {wrong}") from wrong


def query(id: int, name: bytes, type: int, *, edns: bool) -> bytes:
    """Return a question.

    Args:
        id: to know its answer by.
        name: in wire form.
        type: of the records asked for.
        edns: whether with an OPT record.
    """
    # RFC 6840 §5.7: AD here asks for AD there.
    head = _HEADER.pack(id, _RD | _AD, 1, 0, 0, edns)
    return head + name + _TYPE_AND_CLASS.pack(type, _IN) + (_OPT_RECORD if edns else b"")


def read(wire: bytes, id: int, name: bytes, type: int) -> Answer:
    """Return what an answer to a question says.

    Raises:
        NotOurs: it is none to this question.
        Garbled: it is, and cannot be read.
    """
    if len(wire) < 2 or wire[0] << 8 | wire[1] != id:
        raise NotOurs("another id")
    try:
        return _read(wire, name, type)
    except (IndexError, error) as short:
        raise Garbled("it ends too early") from short


def _read(wire: bytes, name: bytes, type: int) -> Answer:
    _, flags, questions, answers, authority, additional = _HEADER.unpack_from(wire)
    if not flags & _RESPONSE or flags & _OPCODE:
        raise NotOurs("not a response to a query")
    rcode = flags & 0xF
    at = _HEADER.size
    if questions == 1:
        asked, at = _name(wire, at)
        if asked != name or _TYPE_AND_CLASS.unpack_from(wire, at) != (type, _IN):
            raise NotOurs("another question")
        at += _TYPE_AND_CLASS.size
    elif questions or rcode not in (FORMERR, SERVFAIL, NOTIMP, REFUSED):
        raise Garbled(f"{questions} questions, not one")
    truncated = bool(flags & _TRUNCATED)
    if truncated and rcode in (NOERROR, NXDOMAIN):
        # What it holds counts for nothing (RFC 2181 §9).
        return Answer(rcode, truncated=True)
    reading = _Reading(wire, type)
    for section, count in enumerate((answers, authority, additional)):
        for _ in range(count):
            at = reading.record(at, section)
            if reading.walked >= _MOST_WALKED:
                break
        else:
            continue
        break
    return reading.answer(rcode, name, bool(flags & _AD))


class _Reading:
    """What was found while the records of an answer are walked through."""

    def __init__(self, wire: bytes, type: int) -> None:
        self.walked = 0
        self._wire = wire
        self._type = type
        self._owned: dict[bytes, list[tuple[int, bytes]]] = {}  # TTL and rdata by owner
        self._kept = 0
        self._followed = 0
        self._aliases: dict[bytes, tuple[int, bytes]] = {}
        self._negative_ttl: int | None = None
        self._names_servers = False
        self._extended = 0
        self._knows_edns = False

    def record(self, at: int, section: int) -> int:
        """Take one record of a section in; return where the next one begins."""
        wire = self._wire
        self.walked += 1
        start = at
        at = _past_name(wire, at)
        type, kind, ttl, length = _RECORD.unpack_from(wire, at)
        at += _RECORD.size
        end: int = at + length
        if end > len(wire):
            raise Garbled("a record is longer than the answer")
        if section == 2:
            if type == OPT:
                self._knows_edns = True
                self._extended = ttl >> 24
            return end
        if ttl >> 31:
            ttl = 0  # RFC 2181 §8
        if kind != _IN:
            return end
        if section == 1:
            if type == SOA and length > 20:
                # RFC 2308 §5: the smaller one of its own TTL and its last field
                minimum = int.from_bytes(wire[end - 4 : end], "big")
                self._negative_ttl = min(ttl, minimum)
            elif type == NS:
                self._names_servers = True
        elif type == self._type and self._kept < MOST_RECORDS:
            owner, _ = _name(wire, start)
            self._owned.setdefault(owner, []).append((ttl, self._rdata(at, end)))
            self._kept += 1
        elif type == CNAME and self._followed < _MOST_ALIASES:
            self._followed += 1
            owner, _ = _name(wire, start)
            self._aliases.setdefault(owner, (ttl, _name(wire, at)[0]))
        return end

    def _rdata(self, at: int, end: int) -> bytes:
        """Return rdata with whole names. RFC 3597 §4: only old types may have others."""
        wire = self._wire
        if self._type in (MX, NS, CNAME, PTR):
            before = wire[at : at + 2] if self._type == MX else b""
            target, behind = _name(wire, at + len(before))
            if behind != end:
                raise Garbled("a name longer or shorter than its record")
            return before + target
        if self._type == SOA:
            primary, at = _name(wire, at)
            mailbox, at = _name(wire, at)
            return primary + mailbox + wire[at:end]
        if (self._type == A and end - at != 4) or (self._type == AAAA and end - at != 16):
            raise Garbled("an address of a wrong length")
        return wire[at:end]

    def answer(self, rcode: int, name: bytes, authenticated: bool) -> Answer:
        """Put together what the answer says of a name."""
        rcode |= self._extended << 4
        ttls: list[int] = []
        owner = name
        for _ in range(_MOST_ALIASES + 1):
            found = self._owned.get(owner)
            alias = self._aliases.get(owner)
            if found is not None or alias is None:
                break
            ttls.append(alias[0])
            owner = alias[1]
        else:
            return Answer(rcode, alias=name)  # a circle
        if found is not None:
            ttls += [ttl for ttl, _ in found]
            return Answer(
                rcode,
                tuple(octets for _, octets in found),
                authenticated=authenticated,
                ttl=min(ttls),
                knows_edns=self._knows_edns,
            )
        leads_on = owner if owner != name and rcode == NOERROR else None
        if self._negative_ttl is not None:
            ttls.append(self._negative_ttl)
        elif leads_on is None:
            ttls.clear()  # RFC 2308 §5: without a SOA there is no time for it
        return Answer(
            rcode,
            alias=None if self._negative_ttl is not None else leads_on,
            authenticated=authenticated,
            ttl=min(ttls, default=None),
            knows_edns=self._knows_edns,
            refers=leads_on is None and self._names_servers and self._negative_ttl is None,
        )


def _past_name(wire: bytes, at: int) -> int:
    """Return what stands behind a name."""
    while length := wire[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _name(wire: bytes, at: int) -> tuple[bytes, int]:
    """Return a name in wire form, in lower case, and what stands behind it."""
    pieces: list[bytes] = []
    octets = 1
    jumps = 0
    behind = 0
    while True:
        start = at
        while 0 < (length := wire[at]) < 0x40:
            at += 1 + length
        pieces.append(wire[start:at])
        octets += at - start
        if octets > _LONGEST_NAME or at > len(wire):
            raise Garbled("a name too long")
        if not length:
            break
        if length < 0xC0:
            raise Garbled("a label of no known kind")
        target = (length & 0x3F) << 8 | wire[at + 1]
        behind = behind or at + 2
        jumps += 1
        if jumps > _MOST_JUMPS or target >= start:
            raise Garbled("a name that leads to itself")
        at = target
    pieces.append(b"\0")
    # No length of a label is that of a letter.
    return b"".join(pieces).lower(), behind or at + 1


def rcode_text(rcode: int) -> str:
    """Return the mnemonic of a response code."""
    return dns.rcode.to_text(dns.rcode.Rcode.make(rcode))
