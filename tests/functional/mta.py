"""The MTA as a process: ``twistd -n mta`` with a state directory of its own."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from subprocess import CompletedProcess

from .forked import run_script
from .machine import LOOPBACK, PATIENCE
from .program import Program

TOOL = Path(sys.executable).with_name("twisted-mta")
"""The operator's program."""

_BOUND = re.compile(
    r"\b(smtp|submission|submissions|lmtp|web)\W+(?:tcp\W+)?((?:\d+\.){3}\d+):(\d+)"
)


class MTA(Program):
    """``twistd -n mta`` with a state directory of its own, below ``home``.

    SMTP and the web page listen on ports that the system chooses at the first start, and on the
    same ports after a restart.

    Args:
        home: where ``mta-state`` is made.
        options: further options.
        toml: the content of a configuration file; empty: none.
        reactor: the name of Twisted's reactor; empty: the default of the system.
    """

    def __init__(self, home: Path, *options: str, toml: str = "", reactor: str = "") -> None:
        super().__init__(home, "mta.log")
        self.reactor = reactor
        self.options = options
        self.state = home / "mta-state"
        self.smtp = 0
        self.lmtp = 0
        self.submission = 0
        self.submissions = 0
        self.web = 0
        if toml:
            (home / "mta.toml").write_text(toml, encoding="utf-8")
            self.options = ("--config", str(home / "mta.toml"), *options)

    def start(self) -> None:
        """Start it, or start it again; return when its log says that it is ready."""
        self.spawn(self.command())
        bound = self.wait_for(self._bound, "the MTA is ready")
        self.smtp = bound["smtp"]
        self.submission = bound.get("submission", 0)
        self.submissions = bound.get("submissions", 0)
        self.lmtp = bound.get("lmtp", 0)
        self.web = bound.get("web", 0)

    def command(self) -> list[str | Path]:
        """Return the command line."""
        return [
            Path(sys.executable).with_name("twistd"),
            *((f"--reactor={self.reactor}",) if self.reactor else ()),
            "-n",
            "--pidfile=",
            "mta",
            *("--state-dir", self.state),
            *("--hostname", "mta.example"),
            *("--smtp", f"tcp:{self.smtp}:interface={LOOPBACK}"),
            *("--web", f"tcp:{self.web}:interface={LOOPBACK}"),
            *self.options,
        ]

    def tool(self, *words: str, timeout: float = PATIENCE) -> CompletedProcess[str]:
        """Run ``twisted-mta`` on it."""
        command = (TOOL, *words, "--state-dir", self.state)
        return run_script(list(map(str, command)), timeout=timeout)

    def _bound(self) -> Mapping[str, int]:
        for line in self.output().splitlines():
            if re.search(r"\bready\b", line):
                return {kind: int(port) for kind, _, port in _BOUND.findall(line)}
        return {}

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says that mail is accepted."""
        with contextlib.suppress(OSError, HTTPException):
            asked = HTTPConnection(LOOPBACK, self.web, timeout=5)
            with contextlib.closing(asked):
                asked.request("GET", "/readyz")
                return asked.getresponse().status == 200
        return False

    def maildir(self, domain: str, local_part: str) -> Path:
        """Return the Maildir of a local mailbox, whether it exists or not."""
        return self.state / "maildir" / domain / local_part

    def mail(self, domain: str, local_part: str) -> list[bytes]:
        """Return the messages in a local mailbox, sorted by file name."""
        new = self.maildir(domain, local_part) / "new"
        return [path.read_bytes() for path in sorted(new.glob("*"))] if new.is_dir() else []

    def wait_for_mail(self, domain: str, local_part: str, count: int = 1) -> list[bytes]:
        """Wait for ``count`` messages in a local mailbox, and return all of it."""
        self.wait_for(
            lambda: len(self.mail(domain, local_part)) >= count,
            f"{count} messages for {local_part}@{domain}",
        )
        return self.mail(domain, local_part)
