"""The table of questions that an operator asks: how one agent answers, and how answers are merged.

A question is asked of the agent of every process, or, where it is about the queue, of the agent
that has a shard. In one process the agent is called; a worker is asked over its pipe, by the name
of the question. Arguments and answers are therefore JSON.

A report is not in the table, although every process gives one (`reporter.process_report`): the
parent knows something of a worker that cannot answer, and `overview` remembers the last report of
each. A trace is not, because it has no end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from attrs import asdict, frozen
from twisted.internet.defer import Deferred

from ..agent.agent import Agent
from ..agent.explain.explainer import read_mailbox
from ..agent.shard import Shard
from ..health.trouble import Trouble
from ..telemetry.recent_sessions import merged_sessions
from ..telemetry.tracing import Event, Filter
from ..tls.certificates import CertificateError
from ..tls.handshakes import merged_handshakes
from ..tls.memory import merged_entries
from ..tls.own_records import own_records
from . import queue_answers
from .explanation import explanation, merged_explanations
from .report import ProcessReport

Answers = Sequence[tuple[int, Any]]
"""Answers of several processes, each with the number of its worker."""

Deliver = Callable[[Sequence[Event], int], object]
"""Takes lines of a trace, and how many were lost since the last ones."""


@frozen(kw_only=True, eq=False)
class Question:
    """A question to the agents of all processes.

    Attributes:
        name: of the call on the pipe of a worker.
        answer: takes an agent, and the arguments by name; returns its answer or a Deferred of it.
        merge: returns one answer for those of several processes.
        timeout: seconds that a worker has; without its answer, those of the others are merged.
    """

    name: str
    answer: Callable[..., Any]
    merge: Callable[[Answers], Any]
    timeout: float


@frozen(kw_only=True, eq=False)
class ShardQuestion:
    """A question about the queue, to the agents that have its shards.

    Attributes:
        name: on the pipe of a worker.
        answer: takes an agent, one of its shards, and the arguments by name.
        merge: returns one answer for those about several shards.
        timeout: seconds that a shard has.
    """

    name: str
    answer: Callable[..., Coroutine[Any, Any, Any]]
    merge: Callable[[Sequence[Any]], Any]
    timeout: float

    def ask(self, agent: Agent, shard: int, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """Answer for one shard.

        Fails with LookupError where the agent does not have it, with ValueError where an argument
        cannot be read, and with `StoreError`.
        """

        async def answer() -> Any:
            return await self.answer(agent, agent.shard(shard), **arguments)

        return Deferred.fromCoroutine(answer())


TLS_HOSTS = Question(
    name="tls",  # domain: a host, or the domain of hosts; None: all
    answer=lambda agent, domain: agent.tls_hosts(domain),
    merge=lambda answers: merged_entries(entries for _, entries in answers),
    timeout=1.0,
)
"""The hosts that TLS was used with."""

TLS_HANDSHAKES = Question(
    name="tls_handshakes",
    answer=lambda agent: agent.tls_handshakes(),
    merge=lambda answers: merged_handshakes(entries for _, entries in answers),
    timeout=1.0,
)
"""The last handshake with each host."""

TLS_FORGET = Question(
    name="tls_forget",  # host
    answer=lambda agent, host: agent.forget_tls(host),
    merge=lambda answers: sorted({port: None for _, ports in answers for port in ports}),
    timeout=10.0,
)
"""That a host is forgotten, by its name; the answer has its ports."""

EXPLAIN = Question(
    name="explain",  # wanted: `explanation.ExplainQuery`
    answer=lambda agent, wanted: explanation(agent.explainer, wanted),
    merge=merged_explanations,
    timeout=25.0,  # the DNS is asked
)
"""Why a message is still in the queue, or where mail for an address would go."""

TLS_COUNTS = Question(
    name="tls_counts",
    answer=lambda agent: agent.tls_reports.flush(),
    merge=lambda answers: None,
    timeout=10.0,
)
"""That results of TLS sessions are written, for one process to read all of them."""

TAKE_SUSPENDED = Question(
    name="take_suspended",  # resumed: names of destinations; by
    answer=lambda agent, resumed, by: Deferred.fromCoroutine(
        agent.operator_suspensions.take(resumed, by=by)
    ),
    merge=lambda answers: None,
    timeout=10.0,
)
"""That the store has other suspended destinations."""

WAITING = Question(
    name="waiting",  # ids: of messages
    answer=queue_answers.waiting_recipients,
    merge=lambda answers: [each for _, waiting in answers for each in waiting],
    timeout=5.0,
)
"""The recipients of messages that wait in memory: a queue may be that of several processes."""

SESSIONS = Question(
    name="sessions",  # see `RecentSessions.listed`
    answer=lambda agent, peer, refused, limit, direction: agent.sessions.listed(
        peer, refused, limit, direction
    ),
    merge=merged_sessions,
    timeout=5.0,
)
"""The last sessions with clients and with servers."""

QUESTIONS = (
    TLS_HOSTS,
    TLS_HANDSHAKES,
    TLS_FORGET,
    EXPLAIN,
    TLS_COUNTS,
    TAKE_SUSPENDED,
    WAITING,
    SESSIONS,
)

LIST = ShardQuestion(
    name="list",
    answer=queue_answers.list_messages,
    merge=queue_answers.merged_pages,
    timeout=20.0,
)
"""Messages, the oldest first."""

SHOW = ShardQuestion(
    name="show",
    answer=queue_answers.show_message,
    merge=queue_answers.first_found,
    timeout=20.0,
)
"""One message."""

BODY = ShardQuestion(
    name="body",
    answer=queue_answers.read_content,
    merge=queue_answers.first_found,
    timeout=20.0,
)
"""A piece of a message's content."""

SUMMARIZE = ShardQuestion(
    name="summarize",
    answer=queue_answers.summarize_messages,
    merge=queue_answers.merged_groups,
    timeout=60.0,
)
"""The groups of recipients."""

EXPORT = ShardQuestion(
    name="export",
    answer=queue_answers.export_message,
    merge=queue_answers.first_found,
    timeout=20.0,
)
"""One message, for another queue."""

EXPORT_MANY = ShardQuestion(
    name="export_many",
    answer=queue_answers.export_messages,
    merge=list,  # shards are asked one after the other
    timeout=20.0,
)
"""Messages, for another queue."""

STEER = ShardQuestion(
    name="steer",
    answer=queue_answers.steer_messages,
    merge=queue_answers.added_counts,
    timeout=60.0,
)
"""An action on messages."""


SUSPENDED = ShardQuestion(
    name="suspended",
    answer=queue_answers.suspended_destinations,
    merge=queue_answers.merged_suspended,
    timeout=20.0,
)
"""The destinations that the operator has suspended, and how much mail waits for them."""

SUSPEND = ShardQuestion(
    name="suspend",  # any shard: all processes have one list
    answer=queue_answers.suspend_destination,
    merge=list,
    timeout=20.0,
)
"""That a destination is suspended."""

RESUME = ShardQuestion(
    name="resume",  # likewise
    answer=queue_answers.resume_destinations,
    merge=list,
    timeout=20.0,
)
"""That destinations are resumed."""


async def _tls_reports(
    agent: Agent, shard: Shard, *, domain: str | None, send: bool
) -> dict[str, Any]:
    """Return the ``reports`` on TLS, or send them and return the ``attempts``."""
    reports = agent.tls_reports
    if not reports.are_wanted:
        raise ValueError(
            "there are no reports on TLS; expected a table [tls_report] in the settings"
        )
    if send:
        attempts = await reports.send_now(domain)
        return {"attempts": [{"domain": name, **asdict(each)} for name, each in attempts]}
    return {"reports": list(await reports.shown(domain))}


TLS_REPORTS = ShardQuestion(
    name="tls_reports",  # any shard: the file of counters is that of all
    answer=_tls_reports,
    merge=list,
    timeout=290.0,
)
"""Reports on TLS to other domains."""


async def _tls_domain(agent: Agent, shard: Shard, domain: str, probe: bool) -> dict[str, Any]:
    asked = agent.domain_tls.probe if probe else agent.domain_tls.facts
    return await asked(domain)


TLS_DOMAIN = ShardQuestion(
    name="tls_domain",  # domain, and whether to probe; of any process
    answer=_tls_domain,
    merge=list,
    timeout=110.0,  # of a probe of targets that are silent
)
"""The TLS that mail for a domain would have."""


async def _tls_records(agent: Agent, shard: Shard) -> dict[str, Any]:
    try:
        return await agent.file_executor(own_records, agent.config)
    except CertificateError as error:
        raise ValueError(str(error)) from None


TLS_RECORDS = ShardQuestion(
    name="tls_records",  # of any process: all have the same settings
    answer=_tls_records,
    merge=list,
    timeout=20.0,
)
"""What to publish about the TLS of our domains."""


async def _suppression(
    agent: Agent,
    shard: Shard,
    *,
    action: str,
    address: str,
    reason: str = "",
    by: str = "",
    limit: int = 1,
) -> dict[str, Any]:
    """Return ``entries`` behind an address; or put it on the list, or take it off."""
    suppression = agent.suppression
    if action == "list":
        return {"entries": [asdict(each) for each in await suppression.entries(address, limit)]}
    if not suppression.is_on:
        raise ValueError(
            "there is no suppression list; expected a table [suppression] in the settings"
        )
    mailbox = read_mailbox(address)
    if action == "add":
        return {"address": await suppression.add(mailbox, reason, by=by)}
    return {"address": str(mailbox), "found": await suppression.remove(mailbox, by=by)}


SUPPRESSION = ShardQuestion(
    name="suppression",  # any shard: the file is that of all
    answer=_suppression,
    merge=list,
    timeout=20.0,
)
"""The suppression list."""


async def _feedback(agent: Agent, shard: Shard, *, account: str | None) -> dict[str, Any]:
    return await agent.feedback.shown(account)


async def _hold_files(agent: Agent, shard: Shard, *, action: str, copy: str) -> dict[str, Any]:
    """Return whether the files are ``held``, and whether the queue is ``embedded``: in files."""
    hold = shard.hold
    if not hold.is_embedded:
        return {"held": False, "embedded": False}
    asked = {"begin": hold.begin, "renew": hold.renew, "end": hold.end}[action]
    return {"held": await asked(copy), "embedded": True}


HOLD_FILES = ShardQuestion(
    name="hold_files",  # action: begin, renew or end; copy: its name
    answer=_hold_files,
    merge=list,
    timeout=60.0,
)
"""That the files of the queue are kept as they are, for a copy."""

FEEDBACK = ShardQuestion(
    name="feedback",  # any shard: the file is that of all
    answer=_feedback,
    merge=list,
    timeout=20.0,
)
"""Reports of complaints about our mail."""


async def _webhooks_test(agent: Agent, shard: Shard, *, url: str | None) -> dict[str, Any]:
    results = await agent.webhooks.test(url)
    return {"results": [{"url": shown, "problem": problem} for shown, problem in results]}


WEBHOOKS_TEST = ShardQuestion(
    name="webhooks_test",  # of any process: all have the same settings
    answer=_webhooks_test,
    merge=list,
    timeout=65.0,  # a receiver may have a minute
)
"""That a test event is posted."""

SHARD_QUESTIONS: Mapping[str, ShardQuestion] = {
    question.name: question
    for question in (
        LIST,
        SHOW,
        BODY,
        EXPORT,
        EXPORT_MANY,
        SUMMARIZE,
        STEER,
        SUSPENDED,
        SUSPEND,
        RESUME,
        TLS_REPORTS,
        TLS_DOMAIN,
        TLS_RECORDS,
        SUPPRESSION,
        FEEDBACK,
        WEBHOOKS_TEST,
        HOLD_FILES,
    )
}


@frozen
class PendingReport:
    """A process that was asked for its report.

    Attributes:
        report: its answer; it may fail, or never come.
        otherwise: the report that its parent can give without the answer.
    """

    report: Deferred[ProcessReport]
    otherwise: ProcessReport


class Agents(Protocol):
    """The agents of all processes, as an operator's questions reach them."""

    def ask(self, question: Question, **arguments: Any) -> Deferred[Any]:
        """Ask all agents; fires with the merged answer."""
        ...

    def ask_shard(self, shard: int, question: ShardQuestion, **arguments: Any) -> Deferred[Any]:
        """Ask the agent that has a shard; fails where it cannot be asked now."""
        ...

    def shards(self) -> Sequence[int]:
        """Return the numbers of all shards of the queue."""
        ...

    def reports(self) -> Sequence[ProcessReport | PendingReport]:
        """Ask every process for its report; one that is left out counts as gone."""
        ...

    def troubles(self) -> Sequence[Trouble]:
        """Return the troubles of the processes themselves."""
        ...

    def trace(self, wanted: Filter, deliver: Deliver) -> Callable[[], object]:
        """Open a trace in all processes; return a function that closes it."""
        ...
