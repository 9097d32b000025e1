"""What is promised and not built yet: known by name, so that nobody looks for a typing error.

An entry leaves this file when what it names is built.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class NotBuilt:
    """A setting that is refused by name.

    Attributes:
        doc: what it will mean.
        option: its option, without dashes; None where it will have none.
        metavar: what stands for its value.
        already: the values, as option or file give them, that say what is so anyhow.
    """

    doc: str
    option: str | None = None
    metavar: str = ""
    already: tuple[object, ...] = ()


NOT_BUILT: Mapping[str, Mapping[str, NotBuilt]] = {
    "dns": {
        "trust_ad": NotBuilt("whether answers are believed to be validated", already=(False,)),
    },
}

NOT_BUILT_TABLES: tuple[str, ...] = ()
"""Tables of the file that are refused as a whole."""
