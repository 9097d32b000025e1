"""A campaign: faults of the MTA under load, and a verdict on every message."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from ..functional.clock import WallClock
from ..functional.machine import LOOPBACK, Unready, children, eventually, free_port, runs
from ..functional.mta import MTA
from ..functional.program import Program
from ..functional.sink import MARK
from ..functional.sinks import Sink
from .exhausted import KINDS, ExhaustedMTA
from .gone import DetachableMTA
from .load import SENDER
from .oracle import Copy, Verdict, disturbances, judge, outstanding, read_copies, read_offers
from .traced import DEADLY, TracedMTA

_CONFIGURATION = """\
[queue]
retry_minimum = "1 s"
retry_maximum = "2 s"
"""

_ON_ITS_WAY = 0.1
"""Seconds in which the sink reads octets that the MTA sent before the fault."""

_ORPHANED = 1.0
"""Seconds in which workers have to end when their parent is killed."""

_STEPS = (-7200.0, -3600.0, -40.0, -2.0, 0.0, 2.0, 40.0, 3600.0, 7200.0)
"""Seconds from the true time to which the clock is set."""

_RETURNED = re.compile(rb"^X-Campaign: (\S+)", re.MULTILINE)
_FINAL_RECIPIENT = re.compile(rb"^Final-Recipient: *rfc822; *(\S+)", re.MULTILINE | re.IGNORECASE)


class Maildirs:
    """The local mailboxes, of which each file is read once.

    Args:
        root: the folder above all mailboxes.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen: dict[Path, Copy] = {}
        self._returned: dict[Path, list[tuple[str, str]]] = {}

    def read(self) -> None:
        """Read the files that are new."""
        for folder in sorted(self._root.glob("*/*/new")):
            recipient = f"{folder.parent.name}@{folder.parent.parent.name}"
            for path in sorted(folder.iterdir()):
                if path in self._seen or path in self._returned:
                    continue
                if recipient == SENDER:
                    self._returned[path] = self._report(path.read_bytes())
                else:
                    self._seen[path] = self._copy(path, recipient)

    @staticmethod
    def _copy(path: Path, recipient: str) -> Copy:
        stored = path.read_bytes()
        content = stored[max(0, stored.find(MARK)) :].replace(b"\n", b"\r\n")
        name = content[len(MARK) :].split(b"\r\n", 1)[0].decode("ascii", "replace") or "-"
        digest = hashlib.sha256(content).hexdigest()
        return Copy(name, recipient, digest, path.stat().st_mtime)

    @staticmethod
    def _report(content: bytes) -> list[tuple[str, str]]:
        name = _RETURNED.search(content)
        return [
            (name[1].decode("ascii") if name else "-", recipient.decode("ascii"))
            for recipient in _FINAL_RECIPIENT.findall(content)
        ]

    @property
    def copies(self) -> list[Copy]:
        """The messages read so far."""
        return list(self._seen.values())

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Id and recipient of the failures that were returned to the sender so far."""
        return [failure for failures in self._returned.values() for failure in failures]


class Campaign:
    """A number of faults, and the oracle's verdict on them.

    Args:
        home: a folder for all files.
        seed: of the times of the faults and of the messages.
        rate: messages a second.
        fault: the signal that ends the MTA each time; or ``CLOCK``, which sets its wall clock ahead
            or back.
        options: further options of ``twistd mta``.
        workers: number of workers. With more than one, SIGKILL strikes a worker or the parent,
            never both.
        program: the program under test. A `TracedMTA` is also killed at system calls. Instead of
            being killed, the state directory of a `DetachableMTA` goes away and comes back, and an
            `ExhaustedMTA` runs out of memory and threads. The negative control is a `Forgetful`
            one.
        say: called with a line about each round.
    """

    def __init__(
        self,
        home: Path,
        *,
        seed: int = 0,
        rate: float = 200.0,
        fault: signal.Signals | Literal["CLOCK"] = signal.SIGKILL,
        options: Sequence[str] = (),
        workers: int = 1,
        program: type[MTA] = MTA,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._rate = rate
        self._fault = fault
        self._say = say
        self._sink = Sink(home, keep=False)
        self._load = Program(home, "load.log")
        self._ledger = home / "load.ledger"
        self._sink.start("--delay", "0.01")
        route = f"relay.example=smtp://{LOOPBACK}:{self._sink.port}"
        local = ("--local-domain", "localhost")
        self._workers = workers
        many = ("--workers", str(workers))
        self._mta = program(home, "--route", route, *local, *many, *options, toml=_CONFIGURATION)
        self._mta.smtp = free_port()
        if fault == "CLOCK":
            self._clock = WallClock(home)
            self._mta.environment = self._clock.environment
        kept = self._mta.kept if isinstance(self._mta, DetachableMTA) else self._mta.state
        self._maildirs = Maildirs(kept / "maildir")
        self._faults: list[float] = []

    def run(self, rounds: int, drain: float = 60.0) -> Verdict:
        """Cause ``rounds`` faults, let the queue drain, and return the verdict.

        Args:
            rounds: number of faults.
            drain: seconds to wait, after the last arrival, for missing messages.

        Raises:
            Unready: the MTA did not start again, or did not end in order, or a sender waits for a
                reply that does not come.
        """
        try:
            self._mta.start()
            self._load.spawn(self._load_command())
            # A busy machine starts the load late: all faults would be over.
            self._load.wait_for(
                lambda: any(line.startswith("acked ") for line in self._lines()), "a first message"
            )
            for number in range(1, rounds + 1):
                self._one_fault(number)
            self._end(self._load)
            self._drain(drain)
            self._end(self._mta)
        finally:
            for program in (self._load, self._mta, self._sink):
                program.kill()
        return self._verdict()

    def _load_command(self) -> list[str | Path]:
        return [
            sys.executable,
            Path(__file__).with_name("load.py"),
            *("--port", str(self._mta.smtp)),
            *("--ledger", self._ledger),
            *("--seed", str(self._seed)),
            *("--rate", str(self._rate)),
        ]

    def _one_fault(self, number: int) -> None:
        # Some faults come under load, some right after the start, during the recovery from the last
        # fault.
        time.sleep(self._random.choice((0.0, 0.1, 0.5, 1.0)) + self._random.random())
        if self._fault == signal.SIGHUP:
            self._reload(number)
            return
        if self._fault == "CLOCK":
            step = self._random.choice(_STEPS)
            self._clock.set(step)
            self._say(f"clock {number}: {step:+g} s from the true time")
            return
        if isinstance(self._mta, DetachableMTA):
            self._take_away(self._mta, number)
            return
        if isinstance(self._mta, ExhaustedMTA):
            self._exhaust(self._mta, number)
            return
        if isinstance(self._mta, TracedMTA):
            self._kill()
            self._die_at_a_call(self._mta)
        elif self._workers > 1 and self._fault == signal.SIGKILL and self._random.random() < 0.5:
            self._kill_a_worker()
            return
        elif self._fault == signal.SIGKILL:
            self._kill()
        else:
            self._end(self._mta)
        self._mta.start()
        offers = read_offers(self._lines())
        self._say(
            f"fault {number}: {len(offers)} offered, "
            f"{sum(offer.acked for offer in offers.values())} acknowledged"
        )

    def _kill(self) -> None:
        workers = children(self._mta.pid)
        self._mta.kill()
        if workers:
            struck = time.monotonic()
            eventually(lambda: not any(map(runs, workers)), "the end of orphaned workers", 5.0)
            self._say(
                f"parent killed: its workers were gone {time.monotonic() - struck:.2f} s later"
            )
            if time.monotonic() - struck > _ORPHANED:
                raise Unready("workers outlived their parent by more than a second")
        time.sleep(_ON_ITS_WAY)
        self._faults.append(time.time())

    def _reload(self, number: int) -> None:
        """Change a setting, and reload the MTA: no peer may notice."""
        changed = f'{_CONFIGURATION}lifetime = "{number + 1} days"\n'
        (self._mta.home / "mta.toml").write_text(changed, encoding="utf-8")
        os.kill(self._mta.pid, signal.SIGHUP)
        self._mta.wait_for(
            lambda: self._mta.output().count("reloaded: [queue] lifetime") >= number, "the reload"
        )
        self._say(f"reload {number}")

    def _take_away(self, mta: DetachableMTA, number: int) -> None:
        """Move the state directory away for a while; meanwhile no mail may be accepted."""
        mta.detach()
        gone = time.time()
        self._faults.append(gone)  # a Maildir may have gone before it was synced
        mta.wait_for(lambda: not mta.is_ready(), "the MTA to miss its state directory")
        missed = time.time()
        if self._workers > 1:  # the next worker must make no queue of its own
            os.kill(self._random.choice(children(mta.pid)), signal.SIGKILL)
            self._faults.append(missed)
        time.sleep(1 + 2 * self._random.random())
        acked = [float(line.split()[1]) for line in self._lines() if line.startswith("acked")]
        late = [moment - gone for moment in acked if moment > gone + _ON_ITS_WAY]
        intruders = mta.intruders()
        if late or intruders or mta.is_ready():
            raise Unready(
                f"without its state directory: {len(late)} acknowledged, the last"
                f" {max(late, default=0)} s after it went; made in its place: {intruders};"
                f" ready: {mta.is_ready()}"
            )
        mta.attach()
        self._goes_on(mta, len(acked))
        self._say(
            f"gone {number}: missed after {missed - gone:.2f} s, {len(acked)} acknowledged before,"
            f" {len(self._acked())} by the time it was all right again"
        )

    def _exhaust(self, mta: ExhaustedMTA, number: int) -> None:
        """Let memory and threads run out for a while."""
        kind = KINDS[number % len(KINDS)]
        mta.switch.write_text(kind, "ascii")
        began = time.monotonic()
        ready = []
        while time.monotonic() < began + 1 + 2 * self._random.random():
            ready.append(mta.is_ready())
            time.sleep(0.05)
        mta.switch.unlink()
        before = len(self._acked())
        self._goes_on(mta, before)
        self._say(
            f"no {kind} {number}: ready {sum(ready)} of {len(ready)} times meanwhile,"
            f" {len(self._acked())} acknowledged"
        )

    def _goes_on(self, mta: MTA, acked: int) -> None:
        # The store is opened again after a minute at the latest, and much earlier here.
        eventually(mta.is_ready, "the MTA to be ready again", 70.0)
        eventually(lambda: len(self._acked()) > acked + 10, "mail to be accepted again", 70.0)

    def _acked(self) -> list[str]:
        return [line for line in self._lines() if line.startswith("acked")]

    def _kill_a_worker(self) -> None:
        workers = self._mta.wait_for(self._all_workers, "all workers")
        victim = self._random.choice(workers)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not runs(victim), "the end of a worker")
        time.sleep(_ON_ITS_WAY)
        self._faults.append(time.time())
        self._say(f"worker killed: process {victim}")

    def _all_workers(self) -> list[int]:
        workers = children(self._mta.pid)
        return workers if len(workers) == self._workers else []

    def _die_at_a_call(self, mta: TracedMTA) -> None:
        # The MTA is killed in the place of the n-th call of this name in some thread, maybe during
        # its start; if there are fewer calls, it is killed after them.
        call = self._random.choice(DEADLY)
        mta.inject = f"{call}:signal=KILL:when={self._random.randrange(1, 40)}"
        with contextlib.suppress(Unready):
            mta.start()
            eventually(lambda: not mta.alive(), "the death of the MTA", 3.0)
        self._say(f"{'lived on' if mta.alive() else 'died'}: {mta.inject}")
        mta.inject = ""
        self._kill()

    @staticmethod
    def _end(program: Program) -> None:
        status = program.terminate()
        if status:
            raise Unready(f"exit status {status} after SIGTERM:\n{program.output()}")

    def _lines(self) -> list[str]:
        text = self._ledger.read_text("utf-8") if self._ledger.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    def _copies(self) -> list[Copy]:
        self._maildirs.read()
        text = self._sink.ledger.read_text("utf-8")
        return self._maildirs.copies + read_copies(text[: text.rfind("\n") + 1].splitlines())

    def _drain(self, patience: float) -> None:
        offers = read_offers(self._lines())
        missing = len(offers) + 1
        deadline = time.monotonic() + patience
        while missing and time.monotonic() < deadline and self._mta.alive():
            left = len(outstanding(offers, self._copies(), self._maildirs.failed))
            if left < missing:
                missing = left
                deadline = time.monotonic() + patience
                self._say(f"draining: {missing} to come")
            time.sleep(0.25)

    def _verdict(self) -> Verdict:
        verdict = judge(
            read_offers(self._lines()),
            self._copies(),
            faults=self._faults,
            failed=self._maildirs.failed,
        )
        verdict.disturbed = disturbances(self._lines())
        return verdict
