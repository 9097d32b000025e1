"""Every reader of the program as a function of octets, with the words of its grammar.

Only the time of a reader is of interest here, not whether it refuses the octets.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..scaling import Reader
from . import (
    addresses,
    content,
    dane,
    dialogue,
    dmarc,
    mta_sts,
    operator,
    signatures,
    spf,
    tls_report,
)

_ALL = (
    *content.READERS,
    *addresses.READERS,
    *dialogue.READERS,
    *dmarc.READERS,
    *mta_sts.READERS,
    *dane.READERS,
    *operator.READERS,
    *signatures.READERS,
    *spf.READERS,
    *tls_report.READERS,
)

READERS: Mapping[str, Reader] = {reader.name: reader for reader in _ALL}
"""All readers by name."""
