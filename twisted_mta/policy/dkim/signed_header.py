"""The header of a message for signatures: which fields are signed, and in what form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .canonicalization import (
    Canonicalization,
    canonical_field,
    field_name,
    relaxed_field,
    split_fields,
)

_WHITE_SPACE = b" \t\r\n"


class SignedHeader:
    """The fields of a header section by name, each canonicalized at most once.

    Args:
        section: the header section, without the empty line behind it.
    """

    def __init__(self, section: bytes) -> None:
        self.fields: Sequence[bytes] = split_fields(section)
        self._numbers: dict[bytes, list[int]] = {}
        for number, field in enumerate(self.fields):
            self._numbers.setdefault(field_name(field), []).append(number)
        self._relaxed: dict[int, bytes] = {}

    @property
    def names(self) -> Iterable[bytes]:
        """The names of the fields in lower case, each once, in order."""
        return self._numbers.keys()

    def numbers(self, name: bytes) -> Sequence[int]:
        """Return the places in `fields` of those with a name (lower case), from the top."""
        return self._numbers.get(name, ())

    def select(
        self,
        names: Iterable[bytes],
        canonicalization: Canonicalization,
        without: int | None = None,
    ) -> list[bytes]:
        """Return the canonical fields that ``h=`` names, in its order.

        A name that is repeated means the next field above (RFC 6376 §5.4.2); one without a field
        is an empty string, so it adds nothing.

        Args:
            names: in lower case.
            canonicalization: of the header.
            without: the place of the field that holds the signature, which ``h=`` never means.
        """
        left: dict[bytes, list[int]] = {}
        selected = []
        for name in names:
            numbers = left.get(name)
            if numbers is None:
                if name not in self._numbers:
                    continue
                numbers = left[name] = [n for n in self._numbers[name] if n != without]
            if numbers:
                selected.append(self._canonical(numbers.pop(), canonicalization))
        return selected

    def _canonical(self, number: int, canonicalization: Canonicalization) -> bytes:
        field = self.fields[number]
        if canonicalization == "simple":
            return field
        if number not in self._relaxed:
            self._relaxed[number] = relaxed_field(field)
        return self._relaxed[number]


def unsigned_field(field: bytes, canonicalization: Canonicalization) -> bytes:
    """Return a field that holds a signature in the form in which it is signed.

    The value of ``b=`` is removed with all white space around it, and so is the CR LF at the end
    (RFC 6376 §3.7).
    """
    start, colon, value = field.removesuffix(b"\r\n").partition(b":")
    tags = value.split(b";")
    for place, tag in enumerate(tags):
        name, equals, _ = tag.partition(b"=")
        if equals and name.strip(_WHITE_SPACE) == b"b":
            tags[place] = name + equals
            break
    unsigned = start + colon + b";".join(tags)
    return canonical_field(unsigned, canonicalization).removesuffix(b"\r\n")
