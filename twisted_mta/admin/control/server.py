"""The control socket, ``STATE/control.sock``: HTTP for the user that runs the MTA, and for root."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...mail.printable import printable
from ...system.accepting import Accepting
from ...system.ownership import peer
from ...system.repetition import Repetition
from ..channel import Bounds
from ..http import Request, Responder, ResponderSite
from ..messages_api import PATH as MESSAGES
from .client import reach

_MODE = 0o600
_LONGEST_BODY = 1 << 20  # octets of a request's body: 10,000 ids are 200,000
_LOOK_AGAIN = 2.0  # seconds between two checks that its name is still there
# All clients are of one user. A body that is too long is read past, up to this: a client that still
# writes would not read the error.
_BOUNDS = Bounds(connections=64, per_peer=64, body=16 * _LONGEST_BODY)


class ControlSocket:
    """A UNIX socket of mode 0600: only the user that runs the MTA, and root, can connect.

    It is started by the process that holds the lock of the state directory: a socket in its place
    that no process listens on is left over from a process that was killed, and is replaced. Where
    its name is removed while it is served, it is made anew, unless the state directory itself has
    gone: another directory in its place is not written to.

    Args:
        answer: answers requests (`admin.api.Admin.answer`).
        path: of the socket.
        reactor: reads from it; a real one.
        in_place: whether the state directory is the one that the socket was made in.
        longest_message: returns the octets of a message that is handed over.
    """

    _log = Logger()

    def __init__(
        self,
        answer: Responder,
        *,
        path: str,
        reactor: Any,
        in_place: Callable[[], bool] = lambda: True,
        longest_message: Callable[[], int] = lambda: _LONGEST_BODY,
    ) -> None:
        self._answer = answer
        self._longest_message = longest_message
        self._in_place = in_place
        self._path = path
        self._reactor = reactor
        self._port: IListeningPort | None = None
        self._file: tuple[int, ...] | None = None
        self._logged = ""  # why it could not be made anew
        self._watching = Repetition(self.look, reactor)

    def start(self) -> None:
        """Bind it and listen.

        Raises:
            OSError: it cannot be made.
        """
        self._port = self._listen()
        self._watching.start(_LOOK_AGAIN)

    def look(self) -> None:
        """Make it anew where its name leads elsewhere, or nowhere, and log that, or why not.

        Open connections go on.
        """
        before: Any = self._port
        if before is None or self._is_ours() or not self._in_place():
            return
        try:
            if self._leads_here():  # it was touched, or its file system mounted anew
                self._file = _identity(os.lstat(self._path))
                return
            self._port = self._listen()
        except OSError as error:
            why = f"{error.strerror or error}"
            if why != self._logged:
                self._logged = why
                self._log.error(
                    "the control socket {path} is gone and cannot be made anew: {why}",
                    path=printable(self._path),
                    why=why,
                )
            return
        self._logged = ""
        before.doRead()  # accept clients that came by the old name
        maybeDeferred(before.stopListening)
        self._log.warn("the control socket {path} was gone: made anew", path=printable(self._path))

    def _is_ours(self) -> bool:
        try:
            status = os.lstat(self._path)
        except OSError:
            return False
        return _identity(status) == self._file

    def _leads_here(self) -> bool:
        """Whether this process listens behind the name, as far as the kernel tells."""
        with reach(self._path) as name, contextlib.suppress(FileNotFoundError):
            return _listener(name) == os.getpid()
        return False

    def _listen(self) -> IListeningPort:
        site = ResponderSite(
            self._answer,
            reactor=self._reactor,
            longest=self._longest,
            spool=os.path.dirname(self._path),
            bounds=_BOUNDS,
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound, reach(self._path) as name:
            _remove_stale(self._path, name)
            _bind(bound, name)
            self._file = _identity(os.lstat(self._path))
            bound.setblocking(False)
            port: Any = _ControlPort._fromListeningDescriptor(  # type: ignore[no-untyped-call]
                self._reactor, bound.fileno(), site
            )
            port.mode = _MODE  # Twisted would open it to all users
            port.startListening()
        listening: IListeningPort = port
        return listening

    def _longest(self, request: Request) -> int:
        longest = self._longest_message() if request.path == MESSAGES else 0
        return max(longest, _LONGEST_BODY)

    def stop(self) -> Deferred[None]:
        """Remove its name and listen no more; a second call does nothing."""
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        self._watching.stop()
        if self._is_ours():  # and not that of a successor
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)


class _ControlPort(Accepting, unix.Port):
    """A UNIX port that does not remove its name."""

    kept = 0.0  # the operator may have the last descriptors
    factory: Any
    fileno: Any

    def connectionLost(self, reason: Failure) -> None:
        """Stop listening, without unlinking as `unix.Port` does."""
        tcp.Port.connectionLost(self, reason)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    # The number of a removed file may be that of the next one.
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _remove_stale(path: str, name: str) -> None:
    """Remove a socket that no process listens on.

    Args:
        path: of the socket.
        name: a name by which it can be connected to.

    Raises:
        OSError: another file is there, or another process's socket.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "is there, and is no socket; move it away", path)
        if _listener(name) is not None:
            raise OSError(
                errno.EADDRINUSE, "is another process's, which listens there; end that one", path
            )
        os.unlink(path)


def _listener(name: str) -> int | None:
    """Return the id of the process that listens on a socket; 0: unknown; None: there is none.

    Raises:
        FileNotFoundError: no file has that name.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            return None
        except FileNotFoundError:
            raise
        except OSError:
            return 0  # its queue is full, it is for datagrams, or another user's
        listens = peer(probe)
    return 0 if listens is None else listens.process


def _bind(bound: socket.socket, name: str) -> None:
    """Bind a socket that is at no instant open to other users."""
    try:
        os.fchmod(bound.fileno(), _MODE)  # Linux makes the file with the mode of the socket
    except OSError:
        # The mask is that of the whole process: files of other threads may be private, too.
        mask = os.umask(0o777 & ~_MODE)
        try:
            bound.bind(name)
        finally:
            os.umask(mask)
    else:
        bound.bind(name)
