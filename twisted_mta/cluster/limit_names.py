"""The names of limits in the database."""

from __future__ import annotations

import json

from ..interfaces import LimitKey


def name_of(key: LimitKey) -> str:
    """Return the name of a limit in the database."""
    return json.dumps(key, ensure_ascii=True)


def key_of(name: str) -> LimitKey:
    """Return the limit of a name in the database."""
    return tuple(json.loads(name))
