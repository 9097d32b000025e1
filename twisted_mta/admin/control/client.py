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
"""The name of the socket in the state directory."""

_LONGEST_PATH = 107 if os.path.isdir("/proc/self/fd") else 103  # octets; BSD has 104, with the NUL
_PIECE = 1 << 16  # octets that are read at once


class NotRunning(Exception):
    """No MTA answers at the control socket; the text says where, and what to do."""


class Refused(Exception):
    """The MTA refuses, or the socket cannot be used; the text says why."""


class ControlClient:
    """Sends requests to one MTA. It blocks.

    Args:
        state_dir: of the MTA.
        timeout: seconds that one step of a response may take.
    """

    def __init__(self, state_dir: str, *, timeout: float = 30.0) -> None:
        self.path = os.path.join(os.path.abspath(state_dir), NAME)
        self._timeout = timeout

    def get(self, path: str) -> Any:
        """Return the JSON at ``path``.

        Raises:
            NotRunning: no MTA answers.
            Refused: the MTA refuses, or the socket cannot be used.
        """
        return self._ask("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        """Have an action done; return the JSON of the response.

        Args:
            path: of the action.
            body: the JSON of the request; None: it is empty.

        Raises:
            NotRunning: no MTA answers.
            Refused: the MTA refuses, or the socket cannot be used.
        """
        return self._ask("POST", path, None if body is None else json.dumps(body).encode("ascii"))

    def delete(self, path: str) -> Any:
        """Have something ended; return the JSON of the response.

        Raises:
            NotRunning: no MTA answers.
            Refused: the MTA refuses, or the socket cannot be used.
        """
        return self._ask("DELETE", path)

    def content(self, path: str) -> Iterator[bytes]:
        """Yield the content at ``path``, piece by piece.

        Raises:
            NotRunning: no MTA answers.
            Refused: the MTA refuses, the socket cannot be used, or the content is not complete.
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
        """Yield each line of JSON of a response without an end; wait for lines without a timeout.

        Raises:
            NotRunning: no MTA answers.
            Refused: the MTA refuses, or the socket cannot be used.
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
            error = answer.get("error") if isinstance(answer, dict) else None
            raise Refused(printable(str(error or f"{response.status} {response.reason}")))
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
        """Check that the MTA is this user's, or root's; for root, that of the directory's owner."""
        owner = os.stat(os.path.dirname(self._path)).st_uid
        server = peer(connected)
        found = owner if server is None else server.user
        user = os.geteuid()
        expected = owner if user == 0 else user
        if found not in (0, expected):
            raise Refused(
                f"{printable(self._path)}: user {name_of(found)} answers there, and not"
                f" {name_of(expected)} or root: no MTA to be trusted"
            )


@contextlib.contextmanager
def reach(path: str) -> Iterator[str]:
    """Yield a name by which a socket at ``path`` can be bound or connected to, short enough.

    Raises:
        OSError: this system has no such name.
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
