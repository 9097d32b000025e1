"""The contestants: mail servers, each with its own folder, certificate and next hop."""

from __future__ import annotations

import contextlib
import os
import socket
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twisted_mta.telemetry.metrics.table import COMMIT_BATCHES, COMMIT_OPERATIONS, Metric
from twisted_mta.testing.tls import certificate

from ..functional.machine import LOOPBACK, free_port, listens
from ..functional.mta import MTA
from ..functional.postfix import Postfix
from ..functional.program import Module
from ..functional.sinks import SMTPSink
from .exim import EXIM, Exim
from .forgetful import NAMES, installed
from .processes import cpu_seconds, resident
from .results import THEIRS


class Silence:
    """A next hop that accepts connections and never replies: all mail stays in the queue."""

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
        port: of its SMTP listener.
        pid: the parent of all its processes.
        hop: its next hop.
        queued: returns the number of messages in its queue; 0 if that is unknown.
        commits: returns (transactions, operations) that its queue has committed.
        counts_cpu: whether the CPU time of all its processes is known.
    """

    name: str
    port: int
    pid: int
    hop: SMTPSink | Silence
    queued: Callable[[], int] = _nothing
    commits: Callable[[], tuple[float, float]] = _no_commits
    counts_cpu: bool = True

    def cpu(self) -> float:
        """Return the CPU time of all its processes so far, in seconds."""
        return cpu_seconds(self.pid)

    def resident(self) -> int:
        """Return the memory of all its processes, in octets."""
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
    """Return the text of ``/metrics``."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{mta.web}/metrics", timeout=30) as page:
        text: str = page.read().decode("utf-8")
        return text


def total(page: str, metric: Metric) -> float:
    """Return the sum of a metric over all labels and workers."""
    starts = (f"{metric.name} ", f"{metric.name}{{")
    return sum(
        float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(starts)
    )


def commits(mta: MTA) -> tuple[float, float]:
    """Return (transactions, operations) that the queue of our MTA has committed."""
    page = metrics(mta)
    return total(page, COMMIT_BATCHES), total(page, COMMIT_OPERATIONS)


def route(hop: SMTPSink | Silence) -> str:
    """Return the route of the generators' mail to a next hop."""
    return f"elsewhere.example=smtp://{LOOPBACK}:{hop.port}"


def domain(number: int) -> str:
    """Return the domain whose next hop is the one of this number."""
    return f"hop{number}.example"


def hops(port: int, count: int) -> dict[str, str]:
    """Return ``host:port`` by `domain`: one server, at as many addresses as there are next hops."""
    return {domain(number): f"127.0.1.{number + 1}:{port}" for number in range(count)}


@frozen
class Field:
    """Starts contestants.

    Attributes:
        home: a folder on the disk that is measured.
        options: further options of ``twistd mta``.
        exim: the directory of unpacked packages of Exim; ``/`` if it is installed.
    """

    home: Path
    options: Sequence[str] = ()
    exim: Path = Path("/")

    @contextlib.contextmanager
    def contestant(
        self, name: str, *, silent: bool = False, toml: str = "", spread: int = 0
    ) -> Iterator[Contestant]:
        """Start a contestant, and stop it afterwards.

        Args:
            name: of the contestant.
            silent: whether its next hop is `Silence`, not a sink.
            toml: configuration of our MTA.
            spread: how many next hops the sink stands for, besides (`hops`).
        """
        place = self.home / f"{name} {len(os.listdir(self.home))}".replace(" ", "-")
        place.mkdir()
        place.chmod(0o755)
        with contextlib.ExitStack() as stack:
            hop: SMTPSink | Silence = Silence() if silent else SMTPSink(place)
            if spread:
                hop = SMTPSink(place, "-m", str(20 * spread), host="0.0.0.0")
            stack.enter_context(hop)
            others = hops(hop.port, spread)
            if name == THEIRS:
                yield stack.enter_context(self._postfix(place, hop, others))
            elif name == EXIM:
                yield stack.enter_context(self._exim(place, hop))
            elif name in NAMES:
                yield stack.enter_context(self._forgetful(name, place, hop))
            else:
                yield stack.enter_context(self._ours(name, place, hop, toml, others))

    @contextlib.contextmanager
    def _ours(
        self,
        name: str,
        place: Path,
        hop: SMTPSink | Silence,
        toml: str,
        others: Mapping[str, str],
    ) -> Iterator[Contestant]:
        pem = str(pair(place))
        # "2 workers"; any other name is one process
        workers = ("--workers", name.split()[0]) if name.endswith(" workers") else ()
        with MTA(
            place,
            *("--route", route(hop), "--tls-certificate", pem, "--tls-key", pem),
            *workers,
            *(f"--route={domain}=smtp://{address}" for domain, address in others.items()),
            *self.options,
            toml=toml,
        ) as mta:
            yield Contestant(name, mta.smtp, mta.pid, hop, commits=lambda: commits(mta))

    @contextlib.contextmanager
    def _postfix(
        self, place: Path, hop: SMTPSink | Silence, others: Mapping[str, str]
    ) -> Iterator[Contestant]:
        settings = {
            "relayhost": f"[{LOOPBACK}]:{hop.port}",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": str(pair(place)),
            # As large as our limit; the default of 10 MB is too small for the large message.
            "message_size_limit": str(100 << 20),
        }
        if others:
            transports = place / "transport"
            addresses = {name: address.split(":") for name, address in others.items()}
            transports.write_text(
                "".join(
                    f"{name} smtp:[{host}]:{port}\n" for name, (host, port) in addresses.items()
                ),
                encoding="ascii",
            )
            settings["transport_maps"] = f"texthash:{transports}"
        if isinstance(hop, Silence):
            # By default Postfix slows down acceptance when more mail arrives than leaves. Here no
            # mail leaves, and acceptance alone is measured.
            settings["in_flow_delay"] = "0s"
        # All other settings are the defaults, including those of durability.
        with Postfix(place, settings) as postfix:
            yield Contestant(THEIRS, postfix.port, postfix.pid, hop, postfix.queued)

    @contextlib.contextmanager
    def _exim(self, place: Path, hop: SMTPSink | Silence) -> Iterator[Contestant]:
        silent = isinstance(hop, Silence)
        with Exim(place, self.exim, hop.port, pair(place), deliver=not silent) as exim:
            # A separate process delivers each message. It seems that no process waits for it, so
            # that its CPU time is lost: no figure is better than one that is too low.
            yield Contestant(EXIM, exim.port, exim.pid, hop, exim.queued, counts_cpu=silent)

    @contextlib.contextmanager
    def _forgetful(self, name: str, place: Path, hop: SMTPSink | Silence) -> Iterator[Contestant]:
        port = free_port()
        serving = (f"{__package__}.forgetful", name, str(port), pair(place))
        with Module(place, "log", *serving) as program:
            program.wait_for(lambda: listens(port), f"{name} listens")
            yield Contestant(name, port, program.pid, hop)


def others(exim: Path) -> list[str]:
    """Return the other contestants that are installed; Exim may be below ``exim``."""
    return [*((EXIM,) if Exim.installed(exim) else ()), *filter(installed, NAMES)]
