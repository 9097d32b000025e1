"""Scripted answers of agents to an operator's questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from twisted_mta.admin.questions import Deliver, PendingReport, Question, ShardQuestion
from twisted_mta.admin.report import ProcessReport
from twisted_mta.health.trouble import Trouble
from twisted_mta.telemetry.tracing import Filter


class ScriptedAgents:
    """Agents of which each answer is scripted (`questions.Agents`).

    Attributes:
        asked: the questions, by name, and their arguments.
        answers: a function of the arguments for each question, by name.
        answer_shard: answers questions about shards: takes shard, name and arguments.
        numbers: of the shards.
        given_reports: the result of `reports`.
        reports_asked: how often `reports` was called.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.answers: dict[str, Callable[..., Any]] = {}
        self.answer_shard: Callable[[int, str, Mapping[str, Any]], Any] = self._no_shard
        self.numbers: Sequence[int] = (0,)
        self.given_reports: Sequence[ProcessReport | PendingReport] = ()
        self.reports_asked = 0

    def _no_shard(self, shard: int, name: str, arguments: Mapping[str, Any]) -> Any:
        raise LookupError("nothing is there")

    def ask(self, question: Question, **arguments: Any) -> Deferred[Any]:
        self.asked.append((question.name, arguments))
        return maybeDeferred(self.answers[question.name], **arguments)

    def ask_shard(self, shard: int, question: ShardQuestion, **arguments: Any) -> Deferred[Any]:
        return maybeDeferred(self.answer_shard, shard, question.name, arguments)

    def shards(self) -> Sequence[int]:
        return list(self.numbers)

    def reports(self) -> Sequence[ProcessReport | PendingReport]:
        self.reports_asked += 1
        return self.given_reports

    def troubles(self) -> Sequence[Trouble]:
        return ()

    def trace(self, wanted: Filter, deliver: Deliver) -> Callable[[], object]:
        return lambda: None
