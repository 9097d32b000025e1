"""The results of TLS sessions as rows of the counters: bounded, whatever a peer has published."""

from __future__ import annotations

import json
from typing import Any

from attrs import astuple, evolve, fields

from ...mail.tls_result import TLSResult
from ..counters import RowForm, as_text

_MOST_STRINGS = 20  # of one policy
_LONGEST = 300  # characters of a text
_NAMES = tuple(field.name for field in fields(TLSResult))


def row_of(result: TLSResult) -> TLSResult:
    """Return what results of one row have in common, with the texts of peers cut.

    Sessions that succeeded share a row whatever their host: a report has only their number.
    """
    result = evolve(
        result, policy_strings=_cut(result.policy_strings), mx_patterns=_cut(result.mx_patterns)
    )
    if result.result is None:
        return evolve(
            result,
            receiving_mx=None,
            receiving_ip=None,
            sending_ip=None,
            reason_code="",
            information="",
        )
    return evolve(
        result,
        reason_code=result.reason_code[:_LONGEST],
        information=result.information[:_LONGEST],
    )


def _cut(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:_LONGEST] for text in texts[:_MOST_STRINGS])


def _text(row: TLSResult) -> str:
    return as_text(astuple(row))


def _row(text: str) -> TLSResult:
    values: list[Any] = [tuple(v) if isinstance(v, list) else v for v in json.loads(text)]
    return TLSResult(**dict(zip(_NAMES, values, strict=True)))


ROWS: RowForm[TLSResult] = RowForm(_text, _row)
"""The form of `TLSResult`."""
