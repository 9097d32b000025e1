"""What tests of the check share: a directory, and a machine without problems."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.cli.check.machine import Machine
from twisted_mta.cli.check.report import findings
from twisted_mta.config import Config, Listener
from twisted_mta.dns import ResolvConf

NOW = 1_790_000_000.0


def machine(**others: Any) -> Machine:
    """Return a machine with enough of everything."""
    values: dict[str, Any] = {
        "wall_time": lambda: NOW,
        "user": lambda: 1000,
        "descriptors": lambda: 1 << 20,
        "free": lambda path: 1 << 40,
        "hosts": dict,
        "resolution": ResolvConf,
    }
    return Machine(**{**values, **others})


class CheckTestCase(TidyTestCase):
    def setUp(self) -> None:
        # A short path: those of UNIX sockets have at most 107 octets.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.state = self.path("state")

    def path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    def write(self, name: str, content: str = "", mode: int = 0o600) -> str:
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def config(self, *endpoints: str, **values: Any) -> Config:
        """Return settings without problems, apart from ``values``."""
        listeners = [Listener(endpoint=endpoint) for endpoint in endpoints]
        sound = {"hostname": "mail.example.net", "state_dir": self.state, "listeners": listeners}
        return Config(**{**sound, **values})

    def found(
        self,
        config: Config,
        *,
        notes: bool = False,
        ask_dns: bool = False,
        check: Callable[..., Any] = findings,
        **of_machine: Any,
    ) -> list[str]:
        """Return the findings as text, with DIR for the test's directory."""
        return [
            f"{finding.severity}: {finding}".replace(self.directory, "DIR")
            for finding in check(config, machine(**of_machine), ask_dns=ask_dns)
            if notes or finding.severity != "note"
        ]


_LISTEN = """
import socket, sys
family, address = sys.argv[1:]
listening = socket.socket(getattr(socket, family))
listening.bind(("127.0.0.1", 0) if family == "AF_INET" else address)
listening.listen()
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


class Stranger:
    """Another process, which listens on a TCP port or a UNIX socket.

    Attributes:
        process: its process id.
        port: its TCP port; 0 for a UNIX socket.
    """

    def __init__(self, test: TidyTestCase, path: str = "") -> None:
        family = "AF_UNIX" if path else "AF_INET"
        child = subprocess.Popen(
            [sys.executable, "-c", _LISTEN, family, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        test.addCleanup(child.communicate)
        assert child.stdout is not None
        self.process = child.pid
        line = child.stdout.readline().strip()
        self.port = 0 if path else int(line)
