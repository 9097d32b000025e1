"""Key records: in the forms that people paste, and as the DNS has them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ...mail.printable import printable
from ...policy.dkim.key_record import KeyRecord, KeyRecordError, record_text
from ...policy.dkim.signing_keys import SigningKey
from ..questions import Questions

_STRING = 255  # RFC 1035 §3.3: the octets of a <character-string>


def record_of(key: SigningKey) -> str:
    """Return the text of the record of a key."""
    return record_text(key.private.public_key())


def zone_lines(key: SigningKey) -> list[str]:
    """Return the record of a key as lines of a zone file (RFC 1035 §5.1)."""
    text = record_of(key)
    strings = [text[at : at + _STRING] for at in range(0, len(text), _STRING)]
    if len(strings) == 1:
        return [f'{key.record_name}. IN TXT "{text}"']
    return [f"{key.record_name}. IN TXT (", *(f'    "{string}"' for string in strings), "    )"]


@frozen
class Published:
    """What the DNS has of a key.

    Attributes:
        same: whether it has the key, and it alone.
        text: what it has, in words; printable.
        found: its records; printable.
    """

    same: bool
    text: str
    found: tuple[str, ...] = ()


def published(key: SigningKey, questions: Questions) -> Published:
    """Look the record of a key up, and compare it. Blocks.

    Raises:
        NoAnswer: no name server gives a usable answer.
        TooLate: the deadline has passed.
    """
    answer = questions.lookup(f"{key.record_name}.", "TXT")
    if not answer.exists:
        return Published(False, "there is no such name")
    return compared(key, [b"".join(record.strings) for record in answer.records])


def compared(key: SigningKey, records: Sequence[bytes]) -> Published:
    """Return whether the TXT records of a key's name are its record.

    Args:
        key: ours.
        records: the strings of each joined.
    """
    found = tuple(printable(record.decode("latin-1")) for record in records)
    if not records:
        return Published(False, "there is no TXT record")
    if len(records) > 1:
        # RFC 6376 §3.6.2.2: the result of several records is undefined.
        return Published(False, f"found {len(records)} TXT records, expected one", found)
    try:
        record = KeyRecord.parse(records[0])
    except KeyRecordError as error:
        return Published(False, printable(str(error)), found)
    if record.key != key.private.public_key():
        return Published(False, f"found another key ({record.type}, {record.bits} bits)", found)
    text = f"the same key ({record.type}, {record.bits} bits)"
    if record.testing:
        # RFC 6376 §3.6.1: verifiers do not treat such mail differently from unsigned mail.
        text += "; its t=y says that the signatures do not count yet"
    return Published(True, text, found)
