"""The one process of a mail transfer agent without workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from ..admin.local import LocalAgent
from ..admin.report import ReportedState
from ..agent.agent import Agent
from ..agent.audience import LocalAudience, Outcomes, Subscriber
from ..config import Config
from ..server.application_mail import Receipt
from ..server.application_submission import Submission, SubmissionReader
from ..system.ports import Ports


class SingleProcess(LocalAgent):
    """Does the work in this process; the counterpart of `workers.Workers`.

    Args:
        agent: does the work.
        audience: is told of mail.
        ports: that it takes connections from.
        state: returns the state of the process.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        audience: LocalAudience,
        ports: Ports,
        state: Callable[[], ReportedState],
    ) -> None:
        super().__init__(agent, ports=ports, state=state)
        self._audience = audience
        self._ports = ports

    def factory(self, number: int) -> Any:
        """Return the factory of a listener's port."""
        return self._agent.listeners.port_factory(number)

    def start(self, shares: Sequence[Sequence[int]]) -> Deferred[None] | None:
        """Open the queue (`Agent.start`); afterwards `serve` may be called."""
        return self._agent.start(shares[0])

    def serve(self) -> None:
        """Take connections."""
        self._ports.accept_connections()

    def stop(self) -> Deferred[None]:
        """Take no more connections, and drain."""
        self._ports.unbind()
        return self._agent.stop()

    @property
    def drains(self) -> bool:
        """Whether a stop is under way, and deliveries that go on may still submit mail."""
        return self._agent.drains

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with each step of mail."""
        return self._audience.subscribe(subscriber)

    def outcome(self, id: str) -> Deferred[Outcomes]:
        """Return the outcome of a message of the application."""
        return self._audience.outcome(id)

    @property
    def submissions(self) -> SubmissionReader:
        """Reads mail of the application."""
        return self._agent.submissions

    async def submit(self, submission: Submission) -> Receipt:
        """Put a message of the application into the queue."""
        return await self._agent.application_mail.submit(submission)

    async def when_idle(self) -> None:
        """Return once no delivery is under way and none is due."""
        await self._agent.when_idle()

    def hurry(self) -> None:
        """Let a stop wait for nothing."""
        self._agent.hurry()

    async def use_issued_certificate(self) -> list[str]:
        """Put a certificate that was issued in force."""
        return await self._agent.use_issued_certificate()

    async def prepare(self, config: Config) -> Callable[[], Deferred[list[str]]]:
        """Prepare other settings; return a function that puts them in force."""
        return (await self._agent.prepare(config)).use
