"""Three machines with one queue in PostgreSQL: deaths, partitions, and each second copy explained.

The machines are network namespaces. Each has a load generator and a next hop of its own, so that
the ledgers say which machine took and which one delivered a message.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Literal

from attrs import Factory, define, frozen

from ..functional.machine import Unready, eventually
from ..functional.mta import MTA
from ..functional.namespaces import Networks
from ..functional.postgresql import PostgreSQL
from ..functional.program import Program
from ..functional.sinks import Sink
from .oracle import Copy, Offer, Verdict, judge, outstanding, read_copies, read_offers

NAMES = ("a", "b", "c")

_CONFIGURATION = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "5 s"\n'
_WRITTEN = 2.0
"""Seconds after the final dot in which an outcome is written, while there is the database."""

_LEASE = 25.0
"""Seconds without the database after which a machine begins no final dot any more."""

_LINE = re.compile(r"(\S+) \[\S+ ?[^\]]*\] (.*)")
_CLOSED = re.compile(r"the queue is closed, to be opened in ([\d.]+) s")
_OUTCOME = re.compile(r"(\S{13}) delivered: .* to=<([^>]*)>")


@frozen
class Fault:
    """Something that was done to a machine or to the database.

    Attributes:
        kind: what.
        victim: a machine, or ``database``.
        began: seconds since the epoch.
        ended: when it was made good.
    """

    kind: Literal["kill", "cut"]
    victim: str
    began: float
    ended: float = float("inf")


@define
class Diary:
    """What the log of a machine says.

    Attributes:
        away: times in which its queue was closed, since the database could not be reached.
        replies: times at which it had the next hop's reply, by queue id and recipient.
    """

    away: list[tuple[float, float]] = Factory(list)
    replies: dict[tuple[str, str], list[float]] = Factory(dict)

    def open_time(self, start: float, end: float) -> float:
        """Return the seconds between two times in which its queue was open."""
        closed = 0.0
        reached = start
        for began, ended in sorted(self.away):
            began, ended = max(began, reached), min(ended, end)
            if ended > began:
                closed += ended - began
                reached = ended
        return end - start - closed


_PATIENCE = 6.0
"""Seconds between the loss of the database and the line that says so, and from its return to the
first commit."""


def read_diary(lines: Iterable[str]) -> Diary:
    """Read the log of a machine."""
    diary = Diary()
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        if closed := _CLOSED.search(match[2]):
            at = _time(match[1])
            diary.away.append((at - _PATIENCE, at + float(closed[1]) + _PATIENCE))
        elif outcome := _OUTCOME.match(match[2]):
            diary.replies.setdefault((outcome[1], outcome[2]), []).append(_time(match[1]))
    return diary


def _time(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()


@frozen
class Second:
    """A second copy of a message.

    Attributes:
        name: the id of the message, and the queue id in brackets.
        recipient: its address.
        first: the machine that delivered the first copy, and when.
        second: the machine that delivered the second copy, and when.
        cause: why; empty: it is not explained.
    """

    name: str
    recipient: str
    first: tuple[str, float]
    second: tuple[str, float]
    cause: str

    def __str__(self) -> str:
        return (
            f"{self.name} to {self.recipient}: {self.first[0]} at {self.first[1]:.3f}, again"
            f" {self.second[0]} {self.second[1] - self.first[1]:.3f} s later:"
            f" {self.cause or 'UNEXPLAINED'}"
        )


def explain(
    copies: Mapping[str, Sequence[Copy]],
    ids: Mapping[str, str],
    faults: Sequence[Fault],
    diaries: Mapping[str, Diary],
) -> list[Second]:
    """Return all second copies, each with its cause.

    A second copy is explained where the outcome of the first one cannot have been written: its
    machine was killed before it could write it, or could not reach the database for as long as its
    leases lasted.

    Args:
        copies: that each machine delivered.
        ids: queue ids by name, where the client was told.
        faults: all that was done.
        diaries: of each machine.
    """
    of_message: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for machine, its in copies.items():
        for copy in its:
            of_message.setdefault((copy.name, copy.recipient), []).append((copy.time, machine))
    known = {name: _with_faults(diary, name, faults) for name, diary in diaries.items()}
    seconds = []
    for (name, recipient), arrivals in sorted(of_message.items()):
        arrivals.sort()
        for (at, machine), (again, other) in pairwise(arrivals):
            id = ids.get(name, "")
            diary = known[machine]
            cause = _cause(machine, at, again, faults, diary)
            replies = [each for each in diary.replies.get((id, recipient), ()) if each >= at - 1]
            if cause:
                seen = "had" if any(each < again for each in replies) else "had not logged"
                cause = f"{cause}; it {seen} the reply"
            second = Second(f"{name} [{id}]", recipient, (machine, at), (other, again), cause)
            seconds.append(second)
    return seconds


def _with_faults(diary: Diary, machine: str, faults: Sequence[Fault]) -> Diary:
    """Return a diary with the times in which the database was out of reach, noticed or not."""
    away = [
        (each.began, each.ended + _PATIENCE)
        for each in faults
        if each.victim == ("database" if each.kind == "kill" else machine)
    ]
    return Diary([*diary.away, *away], diary.replies)


def _cause(machine: str, at: float, again: float, faults: Sequence[Fault], diary: Diary) -> str:
    for fault in faults:
        if fault.kind == "kill" and fault.victim == machine and at - 0.5 <= fault.began <= again:
            exposed = diary.open_time(at, max(at, fault.began))
            if exposed <= _WRITTEN:
                text = f"{machine} was killed {fault.began - at:.3f} s after the final dot"
                if fault.began - at > _WRITTEN:
                    text += f", {exposed:.3f} s of which it had the database"
                return text
    for began, ended in diary.away:
        if began - _WRITTEN <= at <= ended and again - began >= _LEASE:
            return f"{machine} was without the database from {began - at:+.1f} s for its lease"
    return ""


class Machine(MTA):
    """An MTA in a namespace.

    Args:
        home: a folder of its own.
        networks: that it is in.
        name: of the namespace.
        options: further options.
    """

    def __init__(self, home: Path, networks: Networks, name: str, *options: str) -> None:
        super().__init__(home, *options, toml=_CONFIGURATION)
        self._networks = networks
        self.name = name
        self.smtp = 2525

    def command(self) -> list[str | Path]:
        """Return the command line."""
        return [
            *self._networks.inside(self.name),
            *(Path(sys.executable).with_name("twistd"), "-n", "--pidfile=", "--uid", "0", "mta"),
            *("--state-dir", self.state),
            *("--hostname", f"{self.name}.example"),
            *("--smtp", f"tcp:{self.smtp}:interface={self._networks.mail(self.name)}"),
            *("--web", "off"),
            *("--relay-from", "10.0.0.0/8"),
            *self.options,
        ]


class MachinesCampaign:
    """Kills machines and the database, cuts machines off, and judges what arrived.

    Args:
        home: a folder for all files, which other users may enter.
        seed: of the faults and of the messages.
        rate: messages a second, in all.
        say: called with a line about each fault.
    """

    def __init__(
        self,
        home: Path,
        *,
        seed: int = 0,
        rate: float = 120.0,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._rate = rate
        self._say = say
        self._networks = Networks((*NAMES, "db"))
        self._home = home
        self._faults: list[Fault] = []
        self._cut: dict[str, tuple[float, float]] = {}  # since when, until when
        folders = {name: self._folder(name) for name in (*NAMES, "db")}
        self._database = PostgreSQL(
            folders["db"], address=self._networks.data("db"), inside=self._networks.inside("db")
        )
        self._sinks = {name: Sink(folders[name], keep=False) for name in NAMES}
        self._loads = {name: Program(folders[name], "load.log") for name in NAMES}
        self._machines: dict[str, Machine] = {}
        self.seconds: list[Second] = []

    def _folder(self, name: str) -> Path:
        folder = self._home / name
        folder.mkdir()
        folder.chmod(0o755)
        return folder

    def run(
        self,
        messages: int,
        *,
        faults: Sequence[str] = (),
        limit: float = 3600.0,
        drain: float = 150.0,
    ) -> Verdict:
        """Offer messages, cause faults meanwhile, let the queue drain, and return the verdict.

        Args:
            messages: to be offered.
            faults: these, one after the other: ``kill``, ``database`` or ``cut``; empty: any of
                them, for as long as messages are offered.
            limit: seconds for which messages are offered at most.
            drain: seconds to wait, after the last arrival, for missing messages.
        """
        programs: list[Program] = []
        with self._networks:
            try:
                programs += self._start()
                ends = time.monotonic() + limit
                planned = iter(faults)
                while self._offered() < messages and time.monotonic() < ends:
                    self._pause(self._random.uniform(1.0, 5.0))
                    fault = next(planned, "") if faults else self._draw()
                    self._cause(fault)
                for name in list(self._cut):
                    self._heal(name)
                for load in self._loads.values():
                    load.terminate()
                self._drain(drain)
                for machine in self._machines.values():
                    if status := machine.terminate():
                        raise Unready(f"exit status {status}\n{machine.output()[-3000:]}")
            finally:
                for program in reversed(programs):
                    program.kill()
        return self._verdict()

    def _start(self) -> list[Program]:
        self._database.start()
        programs: list[Program] = [self._database]
        for name in NAMES:
            sink = self._sinks[name]
            sink.start("--host", self._networks.mail(), "--delay", "0.01")
            route = f"relay.example=smtp://{self._networks.mail()}:{sink.port}"
            options = ("--queue", self._database.url, "--route", route)
            machine = Machine(self._home / name, self._networks, name, *options)
            machine.start()
            self._machines[name] = machine
            load = self._loads[name]
            load.spawn(
                [
                    sys.executable,
                    Path(__file__).with_name("load.py"),
                    *("--host", self._networks.mail(name)),
                    *("--port", str(machine.smtp)),
                    *("--ledger", self._ledger(name)),
                    *("--seed", str(self._seed)),
                    *("--rate", str(self._rate / len(NAMES))),
                    *("--prefix", name, "--domain", "relay.example", "--small"),
                ]
            )
            programs += [sink, machine, load]
        return programs

    def _ledger(self, name: str) -> Path:
        return self._home / name / "load.ledger"

    def _pause(self, seconds: float) -> None:
        """Wait; heal the cuts whose time is over meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name, (_, until) in list(self._cut.items()):
                if time.monotonic() >= until:
                    self._heal(name)
            time.sleep(0.05)

    def _draw(self) -> str:
        return self._random.choice(("kill", "kill", "kill", "database", "cut"))

    def _cause(self, fault: str) -> None:
        whole = [name for name in NAMES if name not in self._cut]
        if fault == "kill":
            name = self._random.choice(NAMES)
            machine = self._machines[name]
            machine.kill()
            self._note(Fault("kill", name, time.time()))
            self._pause(self._random.choice((0.0, 0.5, 3.0)))
            if name in self._cut:  # it would have to be connected to be ready
                self._heal(name)
            machine.start()
        elif fault == "database":
            self._database.kill()
            began = time.time()
            self._pause(self._random.choice((0.0, 1.0, 6.0)))
            self._database.start()
            self._note(Fault("kill", "database", began, time.time()))
        elif fault == "cut" and len(whole) > 1:
            name = self._random.choice(whole)
            self._networks.cut(name)
            lasts = self._random.choice((4.0, 12.0, 40.0))
            self._cut[name] = time.time(), time.monotonic() + lasts
            self._say(f"{self._offered()} offered: {name} cut off for {lasts:g} s")

    def _heal(self, name: str) -> None:
        began, _ = self._cut.pop(name)
        self._networks.heal(name)
        self._note(Fault("cut", name, began, time.time()))

    def _note(self, fault: Fault) -> None:
        self._faults.append(fault)
        what = "killed" if fault.kind == "kill" else "connected again"
        self._say(f"{self._offered()} offered: {fault.victim} {what}")

    def _lines(self) -> list[str]:
        lines: list[str] = []
        for name in NAMES:
            path = self._ledger(name)
            text = path.read_text("utf-8") if path.exists() else ""
            lines += text[: text.rfind("\n") + 1].splitlines()
        return lines

    def _offered(self) -> int:
        return sum(line.startswith("offered ") for line in self._lines())

    def _copies(self) -> dict[str, list[Copy]]:
        copies = {}
        for name, sink in self._sinks.items():
            text = sink.ledger.read_text("utf-8")
            copies[name] = read_copies(text[: text.rfind("\n") + 1].splitlines())
        return copies

    def _drain(self, patience: float) -> None:
        offers = read_offers(self._lines())
        missing = len(offers) + 1
        deadline = time.monotonic() + patience
        while missing and time.monotonic() < deadline:
            left = len(outstanding(offers, chain.from_iterable(self._copies().values())))
            if left < missing:
                missing = left
                deadline = time.monotonic() + patience
                self._say(f"draining: {missing} to come")
            time.sleep(1.0)
        eventually(lambda: not self._unsettled(), "all outcomes to be written", 60.0)

    def _unsettled(self) -> bool:
        time.sleep(0.2)
        return self._database.sql("SELECT count(*) FROM twisted_mta.message") != [(0,)]

    def _verdict(self) -> Verdict:
        lines = self._lines()
        offers: dict[str, Offer] = read_offers(lines)
        copies = self._copies()
        verdict = judge(offers, list(chain.from_iterable(copies.values())), faults=())
        ids = {
            line.split()[2]: line.rpartition(" ")[2]
            for line in lines
            if line.startswith("acked ") and "Queued as" in line
        }
        diaries = {
            name: read_diary(machine.log.read_text("utf-8", "replace").splitlines())
            for name, machine in self._machines.items()
        }
        self.seconds = explain(copies, ids, self._faults, diaries)
        explained = {(each.name.split()[0], each.recipient) for each in self.seconds if each.cause}
        verdict.explained = [
            each for each in verdict.unexplained if (each.name, each.recipient) in explained
        ]
        verdict.unexplained = [
            each for each in verdict.unexplained if (each.name, each.recipient) not in explained
        ]
        return verdict
