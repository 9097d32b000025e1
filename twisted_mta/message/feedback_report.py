"""Reads reports of complaints about mail of ours: ARF (RFC 5965), as providers send it.

Strangers write them. At most 512 KiB are looked at, 20 parts, and 64 KiB of each; what lies beyond
is not there.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator

from attrs import frozen

from .header import field, values
from .mime.entity import Entity
from .mime.parameters import read_parameters
from .mime.sections import Header, Piece, TooManyParts, sections

_MOST = 512 * 1024  # octets of a report
_MOST_PARTS = 20
_LONGEST_PART = 64 * 1024  # octets
_MOST_IDS = 10
_LONGEST_ID = 1_000  # characters
_LONGEST_WORD = 100  # characters of a value that is kept
# The registered types (RFC 5965 §7.3) have these characters.
_TYPE = re.compile(r"[a-z][a-z-]{0,30}")
_REPORT = "message/feedback-report"
_HEADERS = ("text/rfc822-headers", "message/rfc822-headers")


@frozen
class FeedbackReport:
    """A report.

    Attributes:
        type: of the complaint in lower case: ``abuse``, ``fraud``, ``virus``, ``not-spam``, …;
            ``other`` where it cannot be read.
        ids: the values of CFBL-Feedback-ID fields (RFC 9477 §3.2) in the report and in the header
            of the message that it is about, each once.
        user_agent: of the reporter; not safe to show (see `printable`).
        message_id: of the report itself, likewise; empty without one.
    """

    type: str
    ids: tuple[str, ...]
    user_agent: str = ""
    message_id: str = ""


def read_feedback_report(chunks: Iterable[bytes]) -> FeedbackReport | None:
    """Return the report that a message is; None: it is none.

    Args:
        chunks: of the message, header section first, with CR LF line ends.
    """
    message_id = ""
    types: list[str] = []
    agents: list[str] = []
    ids: dict[str, None] = {}
    for number, entity, octets in _parts(chunks):
        if number == 0:
            if not _is_report(octets):
                return None
            message_id = (field(octets, "message-id") or "")[:_LONGEST_WORD]
            continue
        if entity.type == _REPORT:
            types += values(octets, "feedback-type")
            agents += values(octets, "user-agent")
        for each in values(octets, "cfbl-feedback-id"):
            if len(ids) < _MOST_IDS and 0 < len(each) <= _LONGEST_ID:
                ids[each] = None
    if not types:
        return None
    kind = types[0].lower()
    return FeedbackReport(
        kind if _TYPE.fullmatch(kind) else "other",
        tuple(ids),
        agents[0][:_LONGEST_WORD] if agents else "",
        message_id,
    )


def _is_report(header: bytes) -> bool:
    """Whether a message is a report (RFC 5965 §2)."""
    content_type = read_parameters((field(header, "content-type") or "").encode())
    kind = content_type.parameters.get("report-type", "").lower()
    return content_type.value == "multipart/report" and kind == "feedback-report"


def _parts(chunks: Iterable[bytes]) -> Iterator[tuple[int, Entity, bytes]]:
    """Yield the number, entity and octets of header sections, and of parts that have fields."""
    part: tuple[int, Entity, bytearray] | None = None
    try:
        for section in sections(_first(chunks), _MOST_PARTS):
            if isinstance(section, Header):
                if part is not None:
                    yield _decoded(*part)
                    part = None
                # The header section of the message that the report is about is one of these.
                yield section.number, _NO_REPORT, section.octets
                if section.entity.type in (_REPORT, *_HEADERS):
                    part = section.number, section.entity, bytearray()
            elif (
                part is not None
                and isinstance(section, Piece)
                and section.number == part[0]
                and len(part[2]) < _LONGEST_PART
            ):
                part[2].extend(section.octets[: _LONGEST_PART - len(part[2])])
    except TooManyParts:
        pass
    if part is not None:
        yield _decoded(*part)


_NO_REPORT = Entity("leaf", False, "text/plain", "7bit")


def _decoded(number: int, entity: Entity, octets: bytearray) -> tuple[int, Entity, bytes]:
    content = bytes(octets)
    try:
        if entity.encoding == "base64":
            content = binascii.a2b_base64(content)
        elif entity.encoding == "quoted-printable":
            content = binascii.a2b_qp(content)
    except binascii.Error:
        content = b""
    return number or 1, entity, content


def _first(chunks: Iterable[bytes]) -> Iterator[bytes]:
    left = _MOST
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return
