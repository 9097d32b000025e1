"""DNS queries and answers on the wire (RFC 1035 §4), as a stub resolver needs them; pure.

Parsing is bounded in everything that a peer can make large: records looked at, records kept, the
length of a CNAME chain, compression pointers of a name. Names are in wire form without compression,
in lower case.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct, error

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from attrs import frozen

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, OPT, TLSA = 1, 2, 5, 6, 12, 15, 16, 28, 41, 52
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

# https://www.dnsflagday.net/2020/: the size that passes every path without fragments.
PAYLOAD = 1232

MOST_RECORDS = 500  # of the queried type that are kept; the rest is skipped
_MOST_PARSED = 1500  # records
_MOST_ALIASES = 16  # CNAME records followed within one answer
_MOST_POINTERS = 32  # of one name; an honest name has at most one for each of its labels
_LONGEST_NAME = 255

_IN = 1
_HEADER = Struct("!HHHHHH")
_TYPE_AND_CLASS = Struct("!HH")
_RECORD = Struct("!HHIH")
_RESPONSE, _TRUNCATED, _RD, _AD = 0x8000, 0x0200, 0x0100, 0x0020
_OPCODE = 0x7800
# RFC 6891 §6.1.2, §6.1.3: the root, OPT, our payload, no extended code, version 0, no options.
_OPT_RECORD = b"\0" + _RECORD.pack(OPT, PAYLOAD, 0, 0)


class Unrelated(ValueError):
    """A message that does not answer the query: another id, another question; not trustworthy."""


class Malformed(ValueError):
    """An answer that cannot be parsed to its end."""


@frozen
class Answer:
    """The answer of a name server to one query.

    Attributes:
        rcode: the response code, with its extension in the OPT record (RFC 6891 §6.1.3).
        records: rdata of the queried type, at the end of any CNAME chain, names not compressed.
        alias: the name at which a CNAME chain leaves the answer; the queried name itself where the
            chain is a circle; None where the chain, if any, ends in the answer.
        name: the end of the CNAME chain within the answer, in wire form; None where there is none.
        authenticated: whether the name server claims to have validated the answer (AD).
        ttl: seconds for which the answer may be cached; None: not at all (RFC 2308 §5).
        truncated: whether the answer is complete over TCP only (TC).
        has_opt: whether it has an OPT record.
        referral: whether it only names other servers (RFC 2308 §2.2).
    """

    rcode: int
    records: tuple[bytes, ...] = ()
    alias: bytes | None = None
    name: bytes | None = None
    authenticated: bool = False
    ttl: int | None = None
    truncated: bool = False
    has_opt: bool = False
    referral: bool = False

    @property
    def usable(self) -> bool:
        """Whether it answers the query, if negatively."""
        return (self.rcode == NOERROR and not self.referral) or self.rcode == NXDOMAIN

    @property
    def may_lack_edns(self) -> bool:
        """Whether the query is to be repeated without an OPT record (RFC 6891 §6.2.2, §7).

        A server that knows EDNS answers a query with OPT with OPT (§6.1.1); so an error without
        one, or an empty answer, may be due to the OPT record.
        """
        if self.rcode in (FORMERR, NOTIMP, BADVERS):
            return True
        if self.has_opt or self.truncated or self.rcode == NXDOMAIN:
            return False
        return self.rcode != NOERROR or not (self.records or self.alias or self.ttl is not None)


@lru_cache(maxsize=4096)  # an answer in the cache costs little more than this
def wire_name(domain: str) -> bytes:
    """Return a domain (A-labels) in wire form (RFC 1035 §3.1).

    Raises:
        ValueError: it is not a valid domain name.
    """
    labels = domain.lower().split(".")
    if domain.isascii() and "\\" not in domain:
        if all(0 < len(label) < 64 for label in labels) and len(domain) < _LONGEST_NAME - 1:
            return b"".join(bytes((len(each),)) + each.encode("ascii") for each in labels) + b"\0"
        raise ValueError(f"not a valid domain name: {domain!r}")
    try:
        return dns.name.from_text(f"{domain}.").to_wire().lower()  # type: ignore[union-attr]
    except dns.exception.DNSException as wrong:
        raise ValueError(f"not a valid domain name: {domain!r}") from wrong


def text_name(name: bytes) -> str:
    """Return a name in wire form as text, without the final dot; the root is empty."""
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


def joined_strings(octets: bytes) -> bytes:
    """Return the strings of a TXT record, joined (RFC 1035 §3.3.14).

    Raises:
        Malformed: the last string is longer than the record.
    """
    if octets and octets[0] == len(octets) - 1:
        return octets[1:]  # most records have one
    strings = []
    at = 0
    while at < len(octets):
        behind = at + 1 + octets[at]
        strings.append(octets[at + 1 : behind])
        at = behind
    if at > len(octets):
        raise Malformed("a string longer than its record")
    return b"".join(strings)


def rdata(type: int, octets: bytes) -> dns.rdata.Rdata:
    """Return a record of an `Answer` as a record of dnspython.

    Raises:
        Malformed: the octets are no record of that type.
    """
    kind = dns.rdatatype.RdataType.make(type)
    try:
        return dns.rdata.from_wire(dns.rdataclass.IN, kind, octets, 0, len(octets))
    except (dns.exception.DNSException, ValueError) as wrong:
        raise Malformed(f"no {dns.rdatatype.to_text(kind)} record: {wrong}") from wrong


def encode_query(id: int, name: bytes, type: int, *, edns: bool) -> bytes:
    """Return a query.

    Args:
        id: repeated in the answer.
        name: in wire form.
        type: of the records.
        edns: whether to add an OPT record.
    """
    # RFC 6840 §5.7: AD in a query asks for AD in the answer.
    head = _HEADER.pack(id, _RD | _AD, 1, 0, 0, edns)
    return head + name + _TYPE_AND_CLASS.pack(type, _IN) + (_OPT_RECORD if edns else b"")


def parse_answer(wire: bytes, id: int, name: bytes, type: int) -> Answer:
    """Parse the answer to the query with this id, name and type.

    Raises:
        Unrelated: the message does not answer this query.
        Malformed: it does, and cannot be parsed.
    """
    if len(wire) < 2 or wire[0] << 8 | wire[1] != id:
        raise Unrelated("another id")
    try:
        return _parse(wire, name, type)
    except (IndexError, error) as short:
        raise Malformed("it ends too early") from short


def _parse(wire: bytes, name: bytes, type: int) -> Answer:
    _, flags, questions, answers, authority, additional = _HEADER.unpack_from(wire)
    if not flags & _RESPONSE or flags & _OPCODE:
        raise Unrelated("not a response to a query")
    rcode = flags & 0xF
    at = _HEADER.size
    if questions == 1:
        question, at = _name(wire, at)
        if question != name or _TYPE_AND_CLASS.unpack_from(wire, at) != (type, _IN):
            raise Unrelated("another question")
        at += _TYPE_AND_CLASS.size
    elif questions or rcode not in (FORMERR, SERVFAIL, NOTIMP, REFUSED):
        raise Malformed(f"{questions} questions, not one")
    truncated = bool(flags & _TRUNCATED)
    if truncated and rcode in (NOERROR, NXDOMAIN):
        # RFC 2181 §9: a truncated answer is ignored; the query is repeated over TCP.
        return Answer(rcode, truncated=True)
    records = _Records(wire, type)
    for section, count in enumerate((answers, authority, additional)):
        for _ in range(count):
            at = records.parse(at, section)
            if records.parsed >= _MOST_PARSED:
                break
        else:
            continue
        break
    return records.answer(rcode, name, bool(flags & _AD))


class _Records:
    """The records of an answer, as they are parsed."""

    def __init__(self, wire: bytes, type: int) -> None:
        self.parsed = 0
        self._wire = wire
        self._type = type
        self._rrsets: dict[bytes, list[tuple[int, bytes]]] = {}  # TTL and rdata by owner
        self._kept = 0
        self._followed = 0
        self._aliases: dict[bytes, tuple[int, bytes]] = {}
        self._negative_ttl: int | None = None
        self._has_ns = False
        self._extended_rcode = 0
        self._has_opt = False

    def parse(self, at: int, section: int) -> int:
        """Parse the record of a section at an offset; return the offset of the next one."""
        wire = self._wire
        self.parsed += 1
        start = at
        at = _past_name(wire, at)
        type, kind, ttl, length = _RECORD.unpack_from(wire, at)
        at += _RECORD.size
        end: int = at + length
        if end > len(wire):
            raise Malformed("a record is longer than the answer")
        if section == 2:
            if type == OPT:
                self._has_opt = True
                self._extended_rcode = ttl >> 24
            return end
        if ttl >> 31:
            ttl = 0  # RFC 2181 §8
        if kind != _IN:
            return end
        if section == 1:
            if type == SOA and length > 20:
                # RFC 2308 §5: the minimum of its TTL and its MINIMUM field
                minimum = int.from_bytes(wire[end - 4 : end], "big")
                self._negative_ttl = min(ttl, minimum)
            elif type == NS:
                self._has_ns = True
        elif type == self._type and self._kept < MOST_RECORDS:
            owner, _ = _name(wire, start)
            self._rrsets.setdefault(owner, []).append((ttl, self._rdata(at, end)))
            self._kept += 1
        elif type == CNAME and self._followed < _MOST_ALIASES:
            self._followed += 1
            owner, _ = _name(wire, start)
            self._aliases.setdefault(owner, (ttl, _name(wire, at)[0]))
        return end

    def _rdata(self, at: int, end: int) -> bytes:
        """Return rdata with its names decompressed.

        RFC 3597 §4: only the types of RFC 1035 may have compressed names.
        """
        wire = self._wire
        if self._type in (MX, NS, CNAME, PTR):
            before = wire[at : at + 2] if self._type == MX else b""
            target, behind = _name(wire, at + len(before))
            if behind != end:
                raise Malformed("a name longer or shorter than its record")
            return before + target
        if self._type == SOA:
            primary, at = _name(wire, at)
            mailbox, at = _name(wire, at)
            return primary + mailbox + wire[at:end]
        if (self._type == A and end - at != 4) or (self._type == AAAA and end - at != 16):
            raise Malformed("an address of a wrong length")
        if self._type == TXT:
            joined_strings(wire[at:end])  # another name server may have a sound answer
        return wire[at:end]

    def answer(self, rcode: int, name: bytes, authenticated: bool) -> Answer:
        """Return the answer for the queried name, following its CNAME chain."""
        rcode |= self._extended_rcode << 4
        ttls: list[int] = []
        owner = name
        for _ in range(_MOST_ALIASES + 1):
            rrset = self._rrsets.get(owner)
            alias = self._aliases.get(owner)
            if rrset is not None or alias is None:
                break
            ttls.append(alias[0])
            owner = alias[1]
        else:
            return Answer(rcode, alias=name)  # a circle
        if rrset is not None:
            ttls += [ttl for ttl, _ in rrset]
            return Answer(
                rcode,
                tuple(octets for _, octets in rrset),
                name=None if owner == name else owner,
                authenticated=authenticated,
                ttl=min(ttls),
                has_opt=self._has_opt,
            )
        leaves_at = owner if owner != name and rcode == NOERROR else None
        if self._negative_ttl is not None:
            ttls.append(self._negative_ttl)
        elif leaves_at is None:
            ttls.clear()  # RFC 2308 §5: a negative answer without SOA is not cached
        return Answer(
            rcode,
            alias=None if self._negative_ttl is not None else leaves_at,
            name=None if owner == name else owner,
            authenticated=authenticated,
            ttl=min(ttls, default=None),
            has_opt=self._has_opt,
            referral=leaves_at is None and self._has_ns and self._negative_ttl is None,
        )


def _past_name(wire: bytes, at: int) -> int:
    """Return the offset behind a name."""
    while length := wire[at]:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _name(wire: bytes, at: int) -> tuple[bytes, int]:
    """Return a name in wire form, in lower case, and the offset behind it."""
    pieces: list[bytes] = []
    octets = 1
    pointers = 0
    behind = 0
    while True:
        start = at
        while 0 < (length := wire[at]) < 0x40:
            at += 1 + length
        pieces.append(wire[start:at])
        octets += at - start
        if octets > _LONGEST_NAME or at > len(wire):
            raise Malformed("a name too long")
        if not length:
            break
        if length < 0xC0:
            raise Malformed("a label of an unknown kind")
        target = (length & 0x3F) << 8 | wire[at + 1]
        behind = behind or at + 2
        pointers += 1
        if pointers > _MOST_POINTERS or target >= start:
            raise Malformed("a name with a loop of pointers")
        at = target
    pieces.append(b"\0")
    # No length of a label is the code of a letter.
    return b"".join(pieces).lower(), behind or at + 1


def rcode_text(rcode: int) -> str:
    """Return the mnemonic of a response code."""
    return dns.rcode.to_text(dns.rcode.Rcode.make(rcode))
