"""Settings that are planned and not built yet: refused by name, not as typing errors."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class NotBuilt:
    """A setting that is refused by name. Its entry goes when it is built.

    Attributes:
        doc: what it will mean.
        already: values that are accepted, since they ask for what is so anyhow.
    """

    doc: str
    already: tuple[object, ...] = ()


NOT_BUILT: Mapping[str, Mapping[str, NotBuilt]] = {}
"""By table and key of the file."""

NOT_BUILT_TABLES: Mapping[str, NotBuilt] = {}
"""By table of the file; a table is refused whole."""
