"""The record and the policy of a domain (RFC 8461 §3), and the hosts that it allows; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, cast

from attrs import frozen

from ...mail.address import AddressError, domain_name
from ...mail.printable import printable

Mode = Literal["enforce", "testing", "none"]
"""What becomes of mail for a host that does not fulfill the policy (RFC 8461 §5)."""

LARGEST = 65_536
"""Octets of a policy at the most (RFC 8461 §3.3)."""

LONGEST_AGE = 31_557_600
"""Seconds that a policy is kept at the most (RFC 8461 §3.2)."""

_MODES = ("enforce", "testing", "none")
_RECORD = re.compile(rb"v=STSv1[ \t]*;")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
# RFC 8461 §3.1, §3.2: sts-ext-name and sts-policy-ext-name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_TEXT = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e]+")  # RFC 8461 §3.1: sts-ext-value
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LONGEST_RECORD = 4_096  # octets
_MOST_LINES = 2_000  # of a policy: read in 10 ms; others have ten
_SHOWN = 40  # characters of a wrong value in an error


class PolicyError(ValueError):
    """A record or a policy that cannot be used: "found …, expected …", printable."""


def record_id(texts: Sequence[bytes]) -> str | None:
    """Return the id in the TXT records of ``_mta-sts.DOMAIN`` (RFC 8461 §3.1).

    Args:
        texts: the records, each with its strings joined, in any order.

    Returns:
        None: the domain has no record, and so no policy.

    Raises:
        PolicyError: there are several records, or the only one cannot be read.
    """
    # Other records are discarded before they are counted.
    records = [text for text in texts if _RECORD.match(text)]
    if not records:
        return None
    if len(records) > 1:
        raise PolicyError(f"found {len(records)} records with v=STSv1, expected one")
    [record] = records
    if len(record) > _LONGEST_RECORD:
        raise PolicyError(
            f"found a record of {len(record)} octets, expected {_LONGEST_RECORD} at most"
        )
    fields = [field.strip(" \t") for field in record.decode("latin-1").split(";")[1:]]
    if not fields[-1]:
        fields.pop()  # the optional semicolon behind the last field
    found = None
    for field in fields:
        name, equals, value = field.partition("=")
        if not (equals and _NAME.fullmatch(name) and _TEXT.fullmatch(value)):
            raise PolicyError(f"found {_shown(field)} in the record, expected name=value")
        # Of a field that is there twice, the first counts.
        if name == "id" and found is None:
            if not _ID.fullmatch(value):
                raise PolicyError(
                    f"found id={_shown(value)} in the record,"
                    " expected 1 to 32 letters and digits without others"
                )
            found = value
    if found is None:
        raise PolicyError("found a record without an id, expected v=STSv1; id=…;")
    return found


@frozen
class Policy:
    """A policy (RFC 8461 §3.2).

    Attributes:
        mode: what becomes of mail for a host that does not fulfill it.
        max_age: seconds that it may be kept.
        patterns: the hosts that it allows, in lower-case A-labels: ``mx.example.net``, or
            ``*.example.net`` for all names with one label more. Empty only in mode ``none``.
    """

    mode: Mode
    max_age: int
    patterns: tuple[str, ...] = ()

    @classmethod
    def parse(cls, body: bytes) -> Policy:
        """Read a policy; unknown fields are ignored.

        Raises:
            PolicyError: it is no policy, or a field that it needs is missing.
        """
        if len(body) > LARGEST:
            raise PolicyError(f"found {len(body)} octets, expected {LARGEST} at most")
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            raise PolicyError("found octets that are not UTF-8, expected a policy") from None
        lines = text.split("\n")
        if len(lines) > _MOST_LINES:
            raise PolicyError(f"found {len(lines)} lines, expected {_MOST_LINES} at most")
        single: dict[str, str] = {}
        patterns: dict[str, None] = {}
        for line in lines:
            # RFC 8461 §3.2: sts-policy-term = LF / CRLF.
            line = line.removesuffix("\r").rstrip(" \t")
            if not line:
                continue
            name, colon, value = line.partition(":")
            value = value.lstrip(" \t")
            if not (colon and _NAME.fullmatch(name)) or _CONTROL.search(value):
                raise PolicyError(f"found the line {_shown(line)}, expected name: value")
            if name == "mx":
                patterns[_pattern(value)] = None
            else:
                single.setdefault(name, value)  # of a field that is there twice, the first counts
        if single.get("version") != "STSv1":
            raise PolicyError(f"found {_field(single, 'version')}, expected version: STSv1")
        mode, max_age = single.get("mode"), single.get("max_age", "")
        if mode not in _MODES:
            raise PolicyError(
                f"found {_field(single, 'mode')}, expected mode: enforce, testing or none"
            )
        if not (max_age.isascii() and max_age.isdigit() and len(max_age) <= 10):
            raise PolicyError(
                f"found {_field(single, 'max_age')}, expected max_age: with a number of seconds"
            )
        if not patterns and mode != "none":
            raise PolicyError("found no mx, expected one at least")
        return cls(cast(Mode, mode), min(int(max_age), LONGEST_AGE), tuple(patterns))

    @property
    def lines(self) -> list[str]:
        """The lines of the policy, without line ends."""
        return [
            "version: STSv1",
            f"mode: {self.mode}",
            *(f"mx: {pattern}" for pattern in self.patterns),
            f"max_age: {self.max_age}",
        ]

    @property
    def body(self) -> bytes:
        """The policy as it is published."""
        return "".join(f"{line}\r\n" for line in self.lines).encode("ascii")

    def allows(self, host: str) -> bool:
        """Whether an exchanger is one of the hosts of the policy (RFC 8461 §4.1).

        Args:
            host: a name in A-labels, in any case.
        """
        name = host.removesuffix(".").lower()
        first, _, parent = name.partition(".")
        # The asterisk stands for the whole left-most label, and for no more.
        return name in self.patterns or (bool(first) and f"*.{parent}" in self.patterns)


def _pattern(value: str) -> str:
    """Return an ``mx`` in its canonical form."""
    rest = value.removeprefix("*.")
    try:
        if rest.startswith("[") or not rest.isascii():
            raise AddressError("neither a name nor in A-labels")
        name = domain_name(rest)
    except AddressError:
        raise PolicyError(
            f"found mx: {_shown(value)}, expected a host name in A-labels, or *. and one"
        ) from None
    return f"*.{name}" if value.startswith("*.") else name


def _field(fields: dict[str, str], name: str) -> str:
    return f"{name}: {_shown(fields[name])}" if name in fields else f"no {name}"


def _shown(text: str) -> str:
    return printable(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
