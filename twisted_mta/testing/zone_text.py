"""Records of the DNS from the text of a master file (RFC 1035 §5)."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from attrs import Factory, frozen

_TYPES = ("MX", "A", "AAAA", "TXT", "CNAME", "PTR", "TLSA")
_IGNORED = ("SOA", "NS")  # any whole zone has them


@frozen
class Zone:
    """Records by name, in lower case and without the last dot.

    Attributes:
        mail_exchangers: preference and host of the MX records.
        addresses: of the A and AAAA records.
        texts: of the TXT records.
        pointers: names of the PTR records, by IP address.
        tlsa: usage, selector, matching type and data of the TLSA records.
        aliases: the targets of the CNAME records.
    """

    mail_exchangers: dict[str, list[tuple[int, str]]] = Factory(dict)
    addresses: dict[str, list[str]] = Factory(dict)
    texts: dict[str, list[bytes]] = Factory(dict)
    pointers: dict[str, list[str]] = Factory(dict)
    tlsa: dict[str, list[tuple[int, int, int, bytes]]] = Factory(dict)
    aliases: dict[str, str] = Factory(dict)


def read_zone(text: str) -> Zone:
    """Read a master file.

    Raises:
        ValueError: it cannot be read, or has records of a type that is not in `Zone`.
    """
    # Loaded by tests with a zone alone.
    from dns.exception import DNSException
    from dns.rdataclass import IN
    from dns.rdatatype import to_text
    from dns.tokenizer import Tokenizer
    from dns.zonefile import Reader

    records = _Records()
    # An indented line would be of the name before.
    tokens = Tokenizer(cleandoc(text), "zone")
    try:
        Reader(tokens, IN, records, default_ttl=300).read()  # type: ignore[arg-type]
    except (DNSException, ValueError) as error:
        raise ValueError(
            f"found a zone that cannot be read ({error}), expected a master file"
        ) from error
    zone = Zone()
    for owner, record in records.found:
        type = to_text(record.rdtype)
        if type in _TYPES:
            _add(zone, owner, type, record)
        elif type not in _IGNORED:
            raise ValueError(f"found a record of type {type}, expected one of {', '.join(_TYPES)}")
    return zone


class _Records:
    """What dnspython's reader of master files needs of a transaction: records of any origin.

    Its own transactions take SOA records of one origin alone.
    """

    def __init__(self) -> None:
        self.found: list[tuple[Any, Any]] = []
        self.manager = self

    def origin_information(self) -> tuple[Any, bool, Any]:
        from dns.name import root

        return root, False, root

    def _set_origin(self, origin: Any) -> None:
        pass

    def check_put_rdataset(self, check: object) -> None:
        pass

    def add(self, name: Any, ttl: int, record: Any) -> None:
        self.found.append((name, record))


def _add(zone: Zone, owner: Any, type: str, record: Any) -> None:
    name = _text(owner)
    if type == "MX":
        zone.mail_exchangers.setdefault(name, []).append(
            (record.preference, _text(record.exchange))
        )
    elif type in ("A", "AAAA"):
        zone.addresses.setdefault(name, []).append(record.address)
    elif type == "TXT":
        zone.texts.setdefault(name, []).append(b"".join(record.strings))
    elif type == "CNAME":
        zone.aliases[name] = _text(record.target)
    elif type == "PTR":
        from dns.reversename import to_address

        zone.pointers.setdefault(to_address(owner), []).append(_text(record.target))
    else:
        zone.tlsa.setdefault(name, []).append(
            (record.usage, record.selector, record.mtype, record.cert)
        )


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)).lower()
