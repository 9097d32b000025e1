"""Both ends of the control socket, ``STATE/control.sock``: HTTP over a UNIX socket of mode 0600.

The name of such a socket has 107 octets at most (``sun_path``, unix(7)). A longer one is reached
through the directory that it is in, which the kernel shows as a file descriptor; where it does not,
as outside Linux, that is an error that says so.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from .answer import Answerer, AnswerSite
from .smtp.reply import printable

NAME = "control.sock"
"""Of the socket in the state directory."""

_LONGEST_PATH = 107 if os.path.isdir("/proc/self/fd") else 103  # octets; BSD's has 104 with its NUL
_MODE = 0o600
_PIECE = 1 << 16  # octets that are read at once
_LONGEST_BODY = 1 << 20  # octets of what is asked for: 10,000 ids are 200,000


class ControlSocket:
    """The serving end. Nobody but the user that runs the MTA (and root) can connect.

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
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound, _reach(self._path) as name:
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


@contextlib.contextmanager
def _reach(path: str) -> Iterator[str]:
    """Yield a name that a socket at ``path`` can be bound or connected to by, however long it is.

    Raises:
        OSError: there is none.
    """
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    if not os.path.isdir("/proc/self/fd"):
        raise OSError(
            errno.ENAMETOOLONG,
            f"longer than the {_LONGEST_PATH} octets that the name of a socket may have; choose"
            " another --state-dir",
            path,
        )
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{os.path.basename(path)}"
    finally:
        os.close(descriptor)


class NotRunning(Exception):
    """Nobody answers at the control socket; the message says where, and what to do."""


class Refused(Exception):
    """The MTA answers, and does not do it, or nobody lets us ask; the message says why."""


class ControlClient:
    """The asking end; it blocks.

    Args:
        state_dir: of the MTA.
        timeout: seconds that any one step of an answer may take.
    """

    def __init__(self, state_dir: str, *, timeout: float = 30.0) -> None:
        self.path = os.path.join(os.path.abspath(state_dir), NAME)
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``.

        Raises:
            NotRunning: see there.
            Refused: see there.
        """
        return self._ask("GET", path)

    def post(self, path: str, wish: Any = None) -> Any:
        """Have something done; return the JSON that says what was.

        Args:
            path: of what is to be done.
            wish: JSON that says more; None: there is nothing to say.

        Raises:
            NotRunning: see there.
            Refused: see there.
        """
        return self._ask("POST", path, None if wish is None else json.dumps(wish).encode("ascii"))

    def content(self, path: str) -> Iterator[bytes]:
        """Yield what is at ``path``, piece by piece.

        Raises:
            NotRunning: see there.
            Refused: see there; also where it ends before its end.
        """
        with self._asked("GET", path) as response:
            if response.status >= 400:
                self._read(response, response.read())
            left = int(response.headers["Content-Length"])
            while left:
                piece = response.read(min(left, _PIECE))
                if not piece:
                    raise Refused("the MTA has not sent all of it; ask again")
                left -= len(piece)
                yield piece

    def lines(self, path: str) -> Iterator[Any]:
        """Ask for what goes on until it is not wanted any more; yield each line of JSON.

        However long nothing comes is waited for.

        Raises:
            NotRunning: see there.
            Refused: see there.
        """
        with self._asked("GET", path, keep=True) as response:
            if response.status >= 400:
                self._read(response, response.read())
            while line := response.readline():
                yield json.loads(line)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        with self._asked(method, path, body) as response:
            return self._read(response, response.read())

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, body: bytes | None = None, *, keep: bool = False
    ) -> Iterator[http.client.HTTPResponse]:
        shown = printable(self.path)
        connection = _Connection(self.path, self._timeout)
        try:
            headers = {} if keep else {"Connection": "close"}
            connection.request(method, path, body, headers=headers)
            response = connection.getresponse()
            if keep and connection.sock is not None:
                connection.sock.settimeout(None)
            yield response
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NotRunning(
                f"no MTA is running at {shown}; start one with twistd mta, or name another with"
                " --state-dir (or $STATE_DIRECTORY)"
            ) from None
        except PermissionError:
            raise Refused(
                f"{shown} belongs to the user who runs the MTA: do this as that user, or as root"
            ) from None
        except TimeoutError:
            raise Refused(
                f"the MTA at {shown} has not answered within {self._timeout:g} s; its log may say"
                " why"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            why = printable(str(error) or type(error).__name__)
            raise Refused(f"{shown}: the MTA cannot be asked: {why}") from None
        finally:
            connection.close()

    def _read(self, response: http.client.HTTPResponse, content: bytes) -> Any:
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"error": content.decode("utf-8", "replace").strip()}
        if response.status >= 400:
            said = answer.get("error") if isinstance(answer, dict) else None
            raise Refused(printable(str(said or f"{response.status} {response.reason}")))
        return answer


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with _reach(self._path) as name:
            self.sock.connect(name)
