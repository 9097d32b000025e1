"""The header of a message for signatures: which fields are signed, and in what form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from .canonicalization import Canonicalization, relaxed_fields, split_fields

_WHITE_SPACE = b" \t\r\n"


class SignedHeader:
    """The fields of a header section by name, in canonical forms.

    Args:
        section: the header section, without the empty line behind it.
    """

    def __init__(self, section: bytes) -> None:
        self._section = section
        self._relaxed: list[bytes] = []
        self._numbers: dict[bytes, list[int]] = {}
        for number, (name, field) in enumerate(relaxed_fields(section)):
            self._relaxed.append(field)
            if name in self._numbers:
                self._numbers[name].append(number)
            else:
                self._numbers[name] = [number]

    @cached_property
    def _fields(self) -> Sequence[bytes]:
        """The fields as they came, each with its CR LF."""
        return split_fields(self._section)

    @property
    def names(self) -> Iterable[bytes]:
        """The names of the fields in lower case, each once, in order."""
        return self._numbers.keys()

    def has_any(self, names: Iterable[bytes]) -> bool:
        """Whether there is a field with any of these names (lower case)."""
        return not self._numbers.keys().isdisjoint(names)

    def numbers(self, name: bytes) -> Sequence[int]:
        """Return the places of the fields with a name (lower case), from the top."""
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
        fields = self._relaxed if canonicalization == "relaxed" else self._fields
        left: dict[bytes, list[int]] = {}
        selected = []
        for name in [name for name in names if name in self._numbers]:
            if name not in left:
                left[name] = [n for n in self._numbers[name] if n != without]
            if left[name]:
                selected.append(fields[left[name].pop()])
        return selected

    def field(self, number: int, canonicalization: Canonicalization) -> bytes:
        """Return a field in canonical form, with its CR LF (RFC 6376 §3.4.1, §3.4.2)."""
        return self._relaxed[number] if canonicalization == "relaxed" else self._fields[number]

    def value(self, number: int) -> bytes:
        """Return the value of a field, unfolded, with single spaces."""
        return self._relaxed[number].partition(b":")[2]


def unsigned_field(field: bytes) -> bytes:
    """Return a field that holds a signature, in canonical form, in the form in which it is signed.

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
    return start + colon + b";".join(tags)
