"""The asking end of the control socket, ``STATE/control.sock``: it blocks, and loads no Twisted.

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
from collections.abc import Iterator
from typing import Any

from ...mail.printable import printable
from ...system.ownership import name_of, peer

NAME = "control.sock"
"""Of the socket in the state directory."""

_LONGEST_PATH = 107 if os.path.isdir("/proc/self/fd") else 103  # octets; BSD's has 104 with its NUL
_PIECE = 1 << 16  # octets that are read at once


class NotRunning(Exception):
    """Nobody answers at the control socket; the message says where, and what to do."""


class Refused(Exception):
    """The MTA answers, and does not do it, or nobody lets us ask; the message says why."""


class ControlClient:
    """Asks one MTA; it blocks.

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
        with reach(self._path) as name:
            self.sock.connect(name)
        self._check_peer(self.sock)

    def _check_peer(self, connected: socket.socket) -> None:
        """See to it that the MTA asked is one of this user, or of root.

        Root may ask anybody's, but the one who answers must own the directory.
        """
        owner = os.stat(os.path.dirname(self._path)).st_uid
        told = peer(connected)
        answers = owner if told is None else told.user
        user = os.geteuid()
        if answers not in (0, owner if user == 0 else user):
            raise Refused(
                f"{printable(self._path)}: user {name_of(answers)} answers there, and not"
                f" {name_of(owner if user == 0 else user)} or root: no MTA to be trusted"
            )


@contextlib.contextmanager
def reach(path: str) -> Iterator[str]:
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
