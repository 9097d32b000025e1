"""The suppression list; ``[suppression]``."""

from __future__ import annotations

import attrs
from attrs import frozen

from . import readers as read
from .amounts import period
from .setting import about, setting, settings


@frozen(kw_only=True, field_transformer=settings)
class SuppressionSettings:
    """Turns on the list of addresses that bounce for good; ``[suppression]``."""

    bounces: int = setting(
        read.number(1, 1000),
        "days with a bounce after which an address is on the list; the table turns this on",
        default=3,
    )
    within: float = attrs.field(
        default=30 * 86_400.0,
        converter=period,
        metadata=about("the time in which these days are", default_text="30 days"),
    )
    keep: float = attrs.field(
        default=90 * 86_400.0,
        converter=period,
        metadata=about("how long an address stays on the list", default_text="90 days"),
    )
