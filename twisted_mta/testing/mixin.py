"""A mixin for test cases of trial and unittest: a real server for each test that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from .running_mta import RunningMTA, running


class MTAMixin:
    """Give each test a server of its own, ``self.mta``; it starts at the first use.

    It comes before the test case among the bases::

        class SignUp(MTAMixin, SynchronousTestCase): ...

    In a test on the reactor, `RunningMTA.wait_for` would block that reactor: read ``mta.inbox``
    once the client has its reply, or call ``wait_for`` in a thread.

    Attributes:
        addCleanup: of the test case; the server is stopped by it.
        mta_options: arguments of `running`, of the class.
    """

    addCleanup: Callable[..., Any]
    mta_options: Mapping[str, Any] = MappingProxyType({})

    @cached_property
    def mta(self) -> RunningMTA:
        """A server with an empty inbox, which is stopped after the test."""
        server = running(**self.mta_options)
        self.addCleanup(server.stop)
        return server
