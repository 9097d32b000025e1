"""All targets by their names."""

from __future__ import annotations

from collections.abc import Mapping

from . import Target
from .address import ADDRESS
from .client import CLIENT
from .data import DATA
from .header import HEADER
from .milter import MILTER
from .policy_service import POLICY_SERVICE
from .scaling import SCALING
from .session import SESSION

_ALL = (SESSION, ADDRESS, DATA, HEADER, CLIENT, MILTER, POLICY_SERVICE, SCALING)

TARGETS: Mapping[str, Target] = {target.name: target for target in _ALL}
