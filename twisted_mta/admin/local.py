"""The agent of this process, as an operator's questions reach it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from ..agent.agent import Agent
from ..health.trouble import Trouble
from ..system.ports import Ports
from ..telemetry.tracing import Filter
from .questions import Deliver, Question, ShardQuestion
from .report import ProcessReport, ReportedState
from .reporter import process_report


class LocalAgent:
    """The one agent of a process (`questions.Agents`).

    Args:
        agent: is asked.
        ports: of its listeners.
        state: returns the state of the process.
        number: which worker the process is; None: the only process.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        ports: Ports,
        state: Callable[[], ReportedState],
        number: int | None = None,
    ) -> None:
        self._agent = agent
        self._ports = ports
        self._state = state
        self._number = number
        self._traces = 0

    def ask(self, question: Question, **arguments: Any) -> Deferred[Any]:
        """Fire with the agent's own answer: there is nothing to merge."""
        return maybeDeferred(question.answer, self._agent, **arguments)

    def ask_shard(self, shard: int, question: ShardQuestion, **arguments: Any) -> Deferred[Any]:
        """Fire with the agent's answer about one of its shards."""
        return question.ask(self._agent, shard, arguments)

    def shards(self) -> Sequence[int]:
        """Return the numbers of the agent's shards."""
        return [shard.number for shard in self._agent.shards]

    def report(self) -> ProcessReport:
        """Return the report of this process."""
        return process_report(
            self._agent,
            pid=os.getpid(),
            state=self._state(),
            names=self._ports.names,
            number=self._number,
        )

    def reports(self) -> Sequence[ProcessReport]:
        """Return the report of this process alone."""
        return [self.report()]

    def troubles(self) -> Sequence[Trouble]:
        """Return nothing: the troubles of this process are in its report."""
        return ()

    def trace(self, wanted: Filter, deliver: Deliver) -> Callable[[], object]:
        """Open a trace; return a function that closes it."""
        self._traces = name = self._traces + 1
        self._agent.tracing.open(name, wanted, deliver)
        return lambda: self._agent.tracing.close(name)
