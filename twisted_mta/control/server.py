"""The serving end of the control socket, ``STATE/control.sock``: HTTP, and nobody else may ask."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from ..answer import Answerer, AnswerSite
from .client import reach

_MODE = 0o600
_LONGEST_BODY = 1 << 20  # octets of what is asked for: 10,000 ids are 200,000


class ControlSocket:
    """A UNIX socket of mode 0600. Nobody but the user that runs the MTA (and root) can connect.

    It must only be started by who holds the lock of the state directory: what is found in its
    place is then left over from a process that was killed, and is replaced.

    Args:
        answer: answers what is asked: `admin.Admin.answer`.
        path: where it is.
        reactor: that reads from it; a real one.
    """

    def __init__(self, answer: Answerer, *, path: str, reactor: Any) -> None:
        self._answer = answer
        self._path = path
        self._reactor = reactor
        self._port: IListeningPort | None = None
        self._file: tuple[int, int] | None = None

    def start(self) -> None:
        """Bind it and listen; blocks for no time worth mentioning.

        Raises:
            OSError: it cannot be made; says which, and why.
        """
        site = AnswerSite(self._answer, reactor=self._reactor, longest=_LONGEST_BODY)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound, reach(self._path) as name:
            _remove_stale(self._path)
            _bind(bound, name)
            found = os.lstat(self._path)
            self._file = found.st_dev, found.st_ino
            bound.setblocking(False)
            port: Any = _ControlPort._fromListeningDescriptor(  # type: ignore[no-untyped-call]
                self._reactor, bound.fileno(), site
            )
            port.mode = _MODE  # Twisted would open it to everybody
            port.startListening()
        self._port = port

    def stop(self) -> Deferred[None]:
        """Take its name away and listen no more; a second time there is nothing to do."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        with contextlib.suppress(OSError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._file:  # and not that of a successor
                os.unlink(self._path)
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)


class _ControlPort(unix.Port):
    """A UNIX port whose name is somebody else's to remove."""

    def connectionLost(self, reason: Failure) -> None:
        """Stop listening, without the unlinking that `unix.Port` would do."""
        tcp.Port.connectionLost(self, reason)


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "is there, and is no socket; move it away", path)
        os.unlink(path)


def _bind(bound: socket.socket, name: str) -> None:
    """Bind a socket that was never open to others, not for an instant."""
    try:
        os.fchmod(bound.fileno(), _MODE)  # Linux makes the file with the mode of the socket
    except OSError:
        # The mask is the whole process's: elsewhere files of other threads may come out private.
        mask = os.umask(0o777 & ~_MODE)
        try:
            bound.bind(name)
        finally:
            os.umask(mask)
    else:
        bound.bind(name)
