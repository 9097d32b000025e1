"""Mail of the application, on its way from the parent into the queue of a worker.

The parent reads the submission, as one process does (`server.application_submission`), and chooses
a worker, which begins a message (``submission_begin``), takes its content in pieces
(``submission_write``), and commits it (``submission_finish``). Only a few pieces are on the way at
a time; the next one waits for the answer to the oldest. Nothing is stored before the commit: what a
worker that dies has received is swept by its successor, as it is of a client.

The parent knows the id before the commit, and hears of the message (`audience`) in the order in
which it happens. So it can tell, when the successor of a worker that has died between commit and
answer has opened the queue, whether the message is there: it is in the queue, or a step of it was
told, or it was not stored.
"""

from __future__ import annotations

import pickle
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..agent.agent import Agent
from ..agent.audience import LocalAudience
from ..mail.envelope import RecipientNumber
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..server.application_mail import LimitReached, Receipt, SubmissionRefused
from ..server.application_submission import Submission
from ..server.reception import Reception
from ..smtp.application_envelope import ApplicationEnvelope
from .pipe import PipeClosed
from .process import ProcessPipe, WorkerProcess

_ON_THE_WAY = 8  # pieces of a message, each of 32 KiB
_AT_ONCE = 100  # messages that a successor is asked for in one call

NO_WORKER = Reply.of(451, "3.2", "No process of the queue is ready, try again later")
DIED = Reply.of(451, "3.0", "The process that took the message has ended, try again later")


class ReceivedSubmissions:
    """The worker's side.

    Args:
        agent: returns the agent of this process.
    """

    def __init__(self, agent: Callable[[], Agent]) -> None:
        self._agent = agent
        self._beginning: dict[int, Deferred[Reception]] = {}
        self._open: dict[int, Reception] = {}

    @property
    def calls(self) -> Mapping[str, Callable[..., Any]]:
        """The calls of the parent, by name."""
        return {
            "submission_begin": self.begin,
            "submission_write": self.write,
            "submission_finish": self.finish,
            "submission_abort": self.abort,
        }

    def begin(self, number: int, envelope: str) -> Deferred[Any]:
        """Begin a message; fires with its id, or why it is refused."""
        mail = self._agent().application_mail
        begun = Deferred.fromCoroutine(mail.begin(_unpacked(envelope)))
        self._beginning[number] = begun

        def is_open(reception: Reception) -> Any:
            self._open[number] = reception
            return {"id": str(reception.id)}

        def ended(result: Any) -> Any:
            self._beginning.pop(number, None)
            return result

        return begun.addBoth(ended).addCallbacks(is_open, _refusal)

    def write(self, number: int, octets: str) -> None:
        """Take a piece of the content."""
        self._open[number].write(b64decode(octets))

    def finish(self, number: int) -> Deferred[Any]:
        """Commit a message; fires with its id, or why it is refused."""
        mail = self._agent().application_mail
        finished = Deferred.fromCoroutine(mail.finish(self._open.pop(number)))
        return finished.addCallbacks(lambda receipt: {"id": receipt.id}, _refusal)

    def abort(self, number: int) -> None:
        """Forget a message whose content will not be complete."""
        beginning = self._beginning.pop(number, None)
        if beginning is not None:
            beginning.cancel()
        reception = self._open.pop(number, None)
        if reception is not None:
            self._agent().application_mail.abort(reception)


class Submissions:
    """The parent's side.

    Args:
        audience: the application, which hears of its messages.
        workers: returns all workers.
    """

    _log = Logger()

    def __init__(
        self, audience: LocalAudience, *, workers: Callable[[], Sequence[WorkerProcess]]
    ) -> None:
        self._audience = audience
        self._workers = workers
        self._numbers = count()
        self._turn = 0
        self._takers: dict[str, int] = {}  # the worker that took each message under way
        # Messages whose worker has died during the commit: fire with whether they are queued.
        self._uncertain: dict[str, Deferred[bool]] = {}
        self._stopped = False

    async def submit(self, submission: Submission) -> Receipt:
        """Put a message into the queue of a worker; return after the commit.

        Raises:
            TypeError: a value has the wrong type.
            ValueError: a value cannot be used.
            SubmissionRefused: a recipient does not exist, or the message cannot be taken now.
            RuntimeError: all workers end, and it is not known whether the message is queued.
            Exception: the content cannot be read.
        """
        envelope = await submission.envelope()
        pipe, number, id = await self._begin(envelope)
        on_the_way: deque[Deferred[None]] = deque()

        def write(piece: bytes) -> Deferred[None] | None:
            octets = b64encode(piece).decode("ascii")
            on_the_way.append(pipe.call("submission_write", number=number, octets=octets))
            return on_the_way.popleft() if len(on_the_way) > _ON_THE_WAY else None

        try:
            await submission.pass_on(write)
            while on_the_way:
                await on_the_way.popleft()
        except PipeClosed:
            raise SubmissionRefused(DIED) from None
        except BaseException:  # a cancellation too
            pipe.send("submission_abort", number=number)
            raise
        finally:
            for each in on_the_way:
                each.addErrback(lambda _: None)  # the first failure was raised
        try:
            return Receipt(_taken(await pipe.call("submission_finish", number=number)))
        except PipeClosed:
            pass
        if not await self._is_queued(id):
            raise SubmissionRefused(DIED)
        return Receipt(id)

    async def _begin(self, envelope: ApplicationEnvelope) -> tuple[ProcessPipe, int, str]:
        packed = _packed(envelope)
        for worker in self._in_turn():
            pipe, number = worker.pipe, next(self._numbers)
            try:
                begun = await pipe.call("submission_begin", number=number, envelope=packed)
            except PipeClosed:
                continue
            except BaseException:
                pipe.send("submission_abort", number=number)
                raise
            return pipe, number, _taken(begun)
        raise SubmissionRefused(NO_WORKER)

    def _in_turn(self) -> Sequence[WorkerProcess]:
        """Return the workers that are ready, another one first each time."""
        workers = self._workers()
        self._turn += 1
        first = self._turn % max(1, len(workers))
        return [each for each in (*workers[first:], *workers[:first]) if each.ready]

    # The end of a worker.

    async def _is_queued(self, id: str) -> bool:
        if self._audience.was_told(id):
            return True
        if not self._audience.tracks(id):
            return False  # the worker says so before its commit
        if self._stopped:
            raise _unknown(id)
        self._uncertain[id] = uncertain = Deferred[bool]()
        try:
            return await uncertain
        finally:
            self._uncertain.pop(id, None)

    def taken(self, id: str, worker: int) -> None:
        """Note which worker is about to queue a message."""
        self._takers[id] = worker

    def ended(self, id: str) -> None:
        """Note that a message is no longer under way."""
        self._takers.pop(id, None)

    def taken_by(self, worker: int) -> Mapping[str, Sequence[RecipientNumber]]:
        """Return the messages of the application that a worker took, with what is not ended."""
        return {
            id: numbers
            for id, numbers in self._audience.incomplete().items()
            if self._takers.get(id) == worker
        }

    def opened(self, worker: WorkerProcess) -> None:
        """Find out what a successor has of the messages that its predecessor had."""
        ids = list(self.taken_by(worker.number))
        if ids:
            compared = Deferred.fromCoroutine(self._compare(worker.pipe, ids))
            compared.addErrback(
                lambda failure: self._log.failure(
                    "the queue of worker {number} cannot be read", failure, number=worker.number
                )
            )

    async def _compare(self, pipe: ProcessPipe, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            try:
                untold = [id for id in some if not self._audience.was_told(id)]
                queued = await pipe.call("queued_recipients", ids=some, untold=untold)
            except PipeClosed:
                return  # its successor is asked
            except BaseException:
                for id in ids[start:]:
                    self._know(id, _unknown(id))
                raise
            for id in some:
                self._compare_one(id, queued.get(id))

    def _compare_one(self, id: str, queued: Sequence[RecipientNumber] | None) -> None:
        audience = self._audience
        if queued is None and audience.tracks(id) and not audience.was_told(id):
            audience.untrack(QueueId.parse(id))
            self.ended(id)
            self._know(id, False)
            return
        there = dict.fromkeys(queued or ())
        if any(number not in there for number in audience.left(id)):
            audience.lose(
                id, f"the worker that had {id} has died, and its last steps are not known"
            )
            self.ended(id)
        self._know(id, True)

    def _know(self, id: str, answer: bool | Exception) -> None:
        uncertain = self._uncertain.pop(id, None)
        if uncertain is None:
            return
        if isinstance(answer, Exception):
            uncertain.errback(answer)
        else:
            uncertain.callback(answer)

    def stop(self) -> None:
        """Fail what waits for a successor: there will be none."""
        self._stopped = True
        for id in list(self._uncertain):
            self._know(id, _unknown(id))


def _unknown(id: str) -> RuntimeError:
    return RuntimeError(f"the process that took {id} has ended; the message may be in the queue")


# What goes over the pipe. Both processes are of one program.


def _packed(envelope: ApplicationEnvelope) -> str:
    return b64encode(pickle.dumps(envelope)).decode("ascii")


def _unpacked(text: str) -> ApplicationEnvelope:
    envelope: ApplicationEnvelope = pickle.loads(b64decode(text))
    return envelope


def _refusal(failure: Any) -> Any:
    """Return why a message is refused, for the pipe."""
    failure.trap(SubmissionRefused)
    error = failure.value
    return {
        "refused": error.reply.to_json(),
        "limit": isinstance(error, LimitReached),
        "recipients": {written: reply.to_json() for written, reply in error.recipients.items()},
    }


def _taken(answer: Mapping[str, Any]) -> str:
    """Return the id of a message that a worker takes.

    Raises:
        SubmissionRefused: it does not.
    """
    if "refused" in answer:
        raise (LimitReached if answer["limit"] else SubmissionRefused)(
            Reply.from_json(answer["refused"]),
            {written: Reply.from_json(reply) for written, reply in answer["recipients"].items()},
        )
    return str(answer["id"])
