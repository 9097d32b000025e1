"""What an agent works with: what it has open is closed at its stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.testing import MemoryReactorClock

from tests.tidy import TidyTestCase, descriptors, new_descriptors
from twisted_mta.agent.environment import Environment
from twisted_mta.agent.resources import Resources
from twisted_mta.config import Config
from twisted_mta.system.executors import inline_executor


class CommitExecutor(TidyTestCase):
    def test_the_file_that_tells_how_long_a_commit_waited_is_closed_at_the_stop(self) -> None:
        if not Path("/proc/self/schedstat").exists():
            raise SkipTest("the kernel does not count it")
        resolver: Any = object()  # is not asked
        resources = Resources(
            Config(),
            reactor=MemoryReactorClock(),
            environment=Environment(
                file_executor=inline_executor,
                password_executor=inline_executor,
                resolver=resolver,
            ),
            worker=0,
        )
        before = descriptors()
        executor = resources.commit_executor(0)
        self.successResultOf(executor(lambda: None))
        (name,) = new_descriptors(before)
        self.assertTrue(name.endswith("/schedstat"))
        resources.stop_threads()
        self.assertEqual(new_descriptors(before), [])
