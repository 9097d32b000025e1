"""The rows of aggregate reports as they are written in the file of counters."""

from __future__ import annotations

import json
from typing import Any

from ...policy.dmarc.handling import Reason
from ...policy.dmarc.identifiers import Signature
from ...policy.dmarc.observation import Row
from ..counters import RowForm, as_text


def _text(row: Row) -> str:
    return as_text(
        [
            row.source,
            row.disposition,
            int(row.dkim),
            int(row.spf),
            [[reason.type, reason.comment] for reason in row.reasons],
            row.header_from,
            row.envelope_from,
            [[one.domain, one.selector, one.result] for one in row.signatures],
            row.spf_domain,
            row.spf_result,
        ]
    )


def _row(text: str) -> Row:
    values: list[Any] = json.loads(text)
    source, disposition, dkim, spf, reasons, header_from, envelope_from, signatures, *rest = values
    return Row(
        source=source,
        disposition=disposition,
        dkim=bool(dkim),
        spf=bool(spf),
        reasons=tuple(Reason(*each) for each in reasons),
        header_from=header_from,
        envelope_from=envelope_from,
        signatures=tuple(Signature(*each) for each in signatures),
        spf_domain=rest[0],
        spf_result=rest[1],
    )


ROWS: RowForm[Row] = RowForm(_text, _row)
"""The form of `Row`."""
