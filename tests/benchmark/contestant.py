"""Who is measured: each is started with a folder, a certificate and a next hop of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twisted_mta.telemetry.metrics.table import COMMIT_BATCHES, COMMIT_OPERATIONS, Metric
from twisted_mta.testing.tls import certificate

from ..functional.machine import LOOPBACK, ROOT, free_port, listens
from ..functional.mta import MTA
from ..functional.postfix import Postfix
from ..functional.program import Program
from ..functional.sinks import SMTPSink
from .exim import EXIM, Exim
from .forgetful import NAMES, installed
from .processes import cpu_seconds, resident
from .results import THEIRS


class Silence:
    """A next hop that takes connections and never says anything: all mail stays in the queue."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self.port = 0

    def __enter__(self) -> Self:
        self._socket.bind((LOOPBACK, 0))
        self._socket.listen(1024)
        self.port = self._socket.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _nothing() -> int:
    return 0


def _no_commits() -> tuple[float, float]:
    return 0.0, 0.0


@frozen
class Contestant:
    """A running mail server.

    Attributes:
        name: for the table.
        port: where it takes mail.
        pid: the process above all its others.
        hop: its next hop.
        queued: how many messages it still has in its queue, as far as can be told.
        commits: how many transactions its queue has committed, and operations in them.
        counts_cpu: whether the CPU time of all its processes can be told.
    """

    name: str
    port: int
    pid: int
    hop: SMTPSink | Silence
    queued: Callable[[], int] = _nothing
    commits: Callable[[], tuple[float, float]] = _no_commits
    counts_cpu: bool = True

    def cpu(self) -> float:
        """Return the seconds of CPU time of all its processes so far."""
        return cpu_seconds(self.pid)

    def resident(self) -> int:
        """Return the octets of memory of all its processes now."""
        return resident(self.pid)


def pair(home: Path) -> Path:
    """Write an ECDSA P-256 certificate and its key into one file for all contestants."""
    made, key = certificate()
    path = home / "pair.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + made.public_bytes(Encoding.PEM)
    )
    return path


def metrics(mta: MTA) -> str:
    """Return what ``/metrics`` says."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{mta.web}/metrics", timeout=30) as page:
        text: str = page.read().decode("utf-8")
        return text


def total(page: str, metric: Metric) -> float:
    """Return the sum of a metric over all its labels, those of all workers among them."""
    starts = (f"{metric.name} ", f"{metric.name}{{")
    return sum(
        float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(starts)
    )


def commits(mta: MTA) -> tuple[float, float]:
    """Return how many transactions ours has committed, and operations in them."""
    page = metrics(mta)
    return total(page, COMMIT_BATCHES), total(page, COMMIT_OPERATIONS)


def route(hop: SMTPSink | Silence) -> str:
    """Return what sends all mail of the generators to a next hop."""
    return f"elsewhere.example=smtp://{LOOPBACK}:{hop.port}"


@frozen
class Field:
    """Where contestants are put up, and by which rules.

    Attributes:
        home: a folder on the disk that is measured.
        options: further options of ``twistd mta``.
        exim: where packages of Exim were unpacked; ``/`` if it is installed.
    """

    home: Path
    options: Sequence[str] = ()
    exim: Path = Path("/")

    @contextlib.contextmanager
    def contestant(
        self, name: str, *, silent: bool = False, toml: str = ""
    ) -> Iterator[Contestant]:
        """Start one, and end it afterwards.

        Args:
            name: of whom.
            silent: whether its next hop is `Silence`, not a sink.
            toml: configuration, for ours.
        """
        place = self.home / f"{name} {len(os.listdir(self.home))}".replace(" ", "-")
        place.mkdir()
        place.chmod(0o755)
        with contextlib.ExitStack() as stack:
            hop: SMTPSink | Silence = Silence() if silent else SMTPSink(place)
            stack.enter_context(hop)
            if name == THEIRS:
                yield stack.enter_context(self._postfix(place, hop))
            elif name == EXIM:
                yield stack.enter_context(self._exim(place, hop))
            elif name in NAMES:
                yield stack.enter_context(self._forgetful(name, place, hop))
            else:
                yield stack.enter_context(self._ours(name, place, hop, toml))

    @contextlib.contextmanager
    def _ours(
        self, name: str, place: Path, hop: SMTPSink | Silence, toml: str
    ) -> Iterator[Contestant]:
        pem = str(pair(place))
        # "2 workers", or any other name of ours in one process
        workers = ("--workers", name.split()[0]) if name.endswith(" workers") else ()
        with MTA(
            place,
            *("--route", route(hop), "--tls-certificate", pem, "--tls-key", pem),
            *workers,
            *self.options,
            toml=toml,
        ) as mta:
            yield Contestant(name, mta.smtp, mta.pid, hop, commits=lambda: commits(mta))

    @contextlib.contextmanager
    def _postfix(self, place: Path, hop: SMTPSink | Silence) -> Iterator[Contestant]:
        settings = {
            "relayhost": f"[{LOOPBACK}]:{hop.port}",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": str(pair(place)),
            # As large as ours takes; the default, 10 MB, is below what is sent here.
            "message_size_limit": str(100 << 20),
        }
        if isinstance(hop, Silence):
            # By default it takes mail slower when what comes is more than what goes; here nothing
            # goes, and what it can take is what is asked for.
            settings["in_flow_delay"] = "0s"
        # The defaults otherwise, those for durability among them.
        with Postfix(place, settings) as postfix:
            yield Contestant(THEIRS, postfix.port, postfix.pid, hop, postfix.queued)

    @contextlib.contextmanager
    def _exim(self, place: Path, hop: SMTPSink | Silence) -> Iterator[Contestant]:
        silent = isinstance(hop, Silence)
        with Exim(place, self.exim, hop.port, pair(place), deliver=not silent) as exim:
            # A process of its own delivers each message. It seems that nobody waits for it, so that
            # its time is handed on to nobody: better no figure than one that is too good.
            yield Contestant(EXIM, exim.port, exim.pid, hop, exim.queued, counts_cpu=silent)

    @contextlib.contextmanager
    def _forgetful(self, name: str, place: Path, hop: SMTPSink | Silence) -> Iterator[Contestant]:
        port = free_port()
        with Program(place, "log") as program:
            server = f"{__package__}.forgetful"
            program.spawn(
                (
                    "env",
                    f"PYTHONPATH={ROOT}",
                    sys.executable,
                    "-m",
                    server,
                    name,
                    str(port),
                    pair(place),
                )
            )
            program.wait_for(lambda: listens(port), f"{name} listens")
            yield Contestant(name, port, program.pid, hop)


def others(exim: Path) -> list[str]:
    """Return who can be measured beside Postfix and ours; Exim is looked for below ``exim``."""
    return [*((EXIM,) if Exim.installed(exim) else ()), *filter(installed, NAMES)]
