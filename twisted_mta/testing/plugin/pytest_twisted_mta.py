"""The plug-in of pytest: the fixtures ``mta`` and ``memory_mta``, for programs that send mail.

Installed, it is a module at the top, outside of the package (``pyproject.toml``): a test run that
uses no fixture imports nothing of ``twisted_mta``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from twisted_mta.testing import MemoryMTA, RunningMTA


@pytest.fixture(scope="session")
def mta_options() -> Mapping[str, Any]:
    """The arguments of ``running()`` for the fixture ``mta``: override it to have others."""
    return {}


@pytest.fixture(scope="session")
def _running_mta(mta_options: Mapping[str, Any]) -> Iterator[RunningMTA]:
    from twisted_mta.testing import running

    with running(**mta_options) as server:
        yield server


@pytest.fixture
def mta(_running_mta: RunningMTA) -> RunningMTA:
    """A mail server on a loopback port, without any message; one for a session, or xdist worker."""
    _running_mta.clear()
    return _running_mta


@pytest.fixture
def memory_mta() -> Iterator[MemoryMTA]:
    """A mail transfer agent in memory, on a clock that the test moves."""
    from twisted_mta.testing import MemoryMTA

    with MemoryMTA() as agent:
        yield agent
