"""Scripted processes of workers, with a reactor that spawns them, and ports."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from pickle import loads
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_mta import Config
from twisted_mta.admin.report import ProcessReport
from twisted_mta.testing.network import MemoryTransport, address
from twisted_mta.workers.pipe import Pipe


class ScriptedProcess:
    """A worker's process: by default it opens its queue, and ends when it is drained.

    Attributes:
        heard: the calls of its parent, in order: names and arguments; without pings.
        pings: how often its parent asked for a sign of life.
        replies: its answers, by name, instead of None: a value, an exception or a Deferred.
        hangs: whether it answers nothing.
        pipes: the parent's readers of its output, by descriptor.
    """

    def __init__(self, clock: Clock, pid: int) -> None:
        self.pid = pid
        self.heard: list[tuple[str, Mapping[str, Any]]] = []
        report = ProcessReport(pid=pid, state="ready", started_at=1.0)
        self.replies: dict[str, Any] = {"use": [], "report": report.to_json()}
        self.hangs = False
        self.pings = 0
        self.pipes = {1: FakePipeReader()}
        self.ended = False
        self.killed = False
        self.protocol: Any = None
        self.arguments: list[str] = []
        self.environment: Mapping[str, str] = {}
        self.descriptors: Mapping[int, Any] = {}
        names = (
            *("start", "serve", "drain", "hurry", "prepare", "use", "forget", "report", "limits"),
            *("tls_news", "ping", "watch", "unwatch", "queued_recipients", "when_idle", "is_idle"),
            *("submission_begin", "submission_write", "submission_finish", "submission_abort"),
            *("queue", "follow", "unfollow", "still_queued"),
        )
        self.pipe = Pipe({name: self._answer(name) for name in names}, lambda: None)
        here = address("127.0.0.1", 1)
        self.theirs = MemoryTransport(clock, client=True, host=here, peer=here)
        self.transport = MemoryTransport(clock, client=False, host=here, peer=here)
        self.theirs.other, self.transport.other = self.transport, self.theirs

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard]

    @property
    def settings(self) -> Config:
        """The settings that it was started with."""
        config: Config = loads(b64decode(self.heard[0][1]["settings"]))
        return config

    def _answer(self, name: str) -> Callable[..., Any]:
        def answer(**arguments: Any) -> Any:
            if name == "ping":
                self.pings += 1
            else:
                self.heard.append((name, arguments))
            reply = self.replies.get(name)
            if isinstance(reply, Exception):
                raise reply
            if name in ("drain", "hurry") and not self.hangs and name not in self.replies:
                self.exit()
            return Deferred() if self.hangs else reply

        return answer

    def exit(self, status: int = 0, *, signal: int | None = None) -> None:
        """End."""
        if self.ended:
            return
        self.ended = True
        self.transport.loseConnection()
        died = ProcessTerminated(exitCode=status, signal=signal)
        reason = Failure(died if status or signal else ProcessDone(0))
        self.protocol.processExited(reason)
        self.protocol.processEnded(reason)

    # As `IProcessTransport`.

    def signalProcess(self, name: str) -> None:
        self.killed = name == "KILL"
        self.exit(signal=9)


class FakePipeReader:
    """Stands in for the parent's reader of a process's output."""

    def __init__(self) -> None:
        self.reading = True

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class ScriptedReactor(Clock):
    """A reactor whose processes are scripted.

    Attributes:
        processes: all that were spawned.
        refusal: the error of the next spawning.
        born: called with each new process.
    """

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[ScriptedProcess] = []
        self.refusal: Exception | None = None
        self.born: Callable[[ScriptedProcess], object] = lambda process: None
        self._next: ScriptedProcess | None = None

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        self._next = process = ScriptedProcess(self, 100 + len(self.processes))
        process.theirs.protocol = protocol = factory.buildProtocol(None)
        process.transport.protocol = process.pipe
        process.pipe.makeConnection(process.transport)  # type: ignore[no-untyped-call]
        protocol.makeConnection(process.theirs)

    def spawnProcess(
        self,
        protocol: Any,
        executable: str,
        args: list[str],
        env: Mapping[str, str],
        childFDs: Mapping[int, Any],
    ) -> None:
        if self.refusal is not None:
            raise self.refusal
        process = self._next
        assert process is not None
        process.protocol, process.arguments = protocol, args
        process.environment, process.descriptors = env, childFDs
        self.processes.append(process)
        self.born(process)
        protocol.makeConnection(process)

    def settle(self) -> None:
        for _ in range(20):
            self.advance(0)


class FakePort:
    """Stands in for a listening port."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor


class FakePorts:
    def __init__(self) -> None:
        self.bound: list[Any] = [_FakeBound(FakePort(70)), _FakeBound(FakePort(71))]

    def unbind(self) -> Deferred[None]:
        self.bound = []
        return succeed(None)


class _FakeBound:
    kind = "smtp"

    def __init__(self, port: FakePort) -> None:
        self.port = port
