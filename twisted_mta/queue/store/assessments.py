"""The assessment of a message as a column of the embedded store."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from attrs import astuple

from ...mail.assessment import UNKNOWN, Assessment, Verdict


@lru_cache(maxsize=256)  # mail of users has the same one, again and again
def to_column(assessment: Assessment) -> str | None:
    """Return a JSON object of what is not the default; None: all is."""
    values: dict[str, Any] = {}
    if assessment.verdicts:
        values["verdicts"] = [astuple(verdict) for verdict in assessment.verdicts]
    if assessment.quarantine:
        values["quarantine"] = assessment.quarantine
    if assessment.signs:
        values["signs"] = True
    if assessment.hold:
        values["hold"] = assessment.hold
    if assessment.own:
        values["own"] = True
    return json.dumps(values) if values else None


@lru_cache(maxsize=256)
def from_column(column: str | None) -> Assessment:
    """Return the assessment of a column."""
    if column is None:
        return UNKNOWN
    values = json.loads(column)
    return Assessment(
        verdicts=tuple(Verdict(*each) for each in values.get("verdicts", ())),
        quarantine=values.get("quarantine", ""),
        signs=values.get("signs", False),
        hold=values.get("hold", ""),
        own=values.get("own", False),
    )
