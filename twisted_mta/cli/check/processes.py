"""The processes that use a state directory, a port or a UNIX socket, as far as Linux shows them.

Where a function has no ``Raises``, what cannot be read counts as unknown.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import frozen

from ...mail.printable import printable

_LISTENS = "0A"  # TCP_LISTEN, in the tables below /proc/net
_UNIX_LISTENS = 0x10000  # __SO_ACCEPTCON
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@frozen
class Running:
    """An MTA that runs on a state directory.

    Attributes:
        process: its process id; None: the lock does not contain it.
    """

    process: int | None

    def __str__(self) -> str:
        return "an unknown process" if self.process is None else f"process {self.process}"


def running(state_dir: str) -> Running | None:
    """Return the MTA that runs on a state directory; None: none does.

    Raises:
        OSError: the lock cannot be read.
    """
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(os.path.join(state_dir, "lock"), flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # Shared, so that two checks do not see each other; released at once.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.read(descriptor, 32).decode("ascii", "replace").strip()
        return Running(int(written) if written.isascii() and written.isdecimal() else None)
    finally:
        os.close(descriptor)
    return None


def _kernel_address(text: str) -> IPv4Address | IPv6Address:
    """Return an address of /proc/net/tcp or tcp6: words of 32 bits in the machine's byte order."""
    octets = bytes.fromhex(text)
    words = (octets[start : start + 4] for start in range(0, len(octets), 4))
    return ip_address(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))


def _overlap(one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address) -> bool:
    """Whether sockets on two addresses can take the same connection."""
    one, other = (getattr(each, "ipv4_mapped", None) or each for each in (one, other))
    return one == other or one.is_unspecified or other.is_unspecified


class Processes:
    """The processes of this machine, and the sockets that they listen on.

    Args:
        proc: the path of procfs.
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc

    def on_tcp(self, port: int, address: str = "") -> Sequence[int]:
        """Return the processes that keep us from a TCP port, as far as this user may see them.

        Args:
            port: the port.
            address: where we would listen; empty, ``0.0.0.0`` and ``::`` are all addresses.
        """
        ours = ip_address(address or "::")

        def listens(row: Sequence[str]) -> str | None:
            if len(row) <= 9 or row[3] != _LISTENS:
                return None
            theirs, _, number = row[1].partition(":")
            if int(number, 16) == port and _overlap(ours, _kernel_address(theirs)):
                return row[9]
            return None

        return self._owners([*self._inodes("tcp", listens), *self._inodes("tcp6", listens)])

    def on_unix(self, path: str) -> Sequence[int] | None:
        """Return the processes that listen on a UNIX socket, as far as this user may see them.

        None: no process listens.

        Raises:
            OSError: the system does not show it.
        """

        def listens(row: Sequence[str]) -> str | None:
            if len(row) > 7 and row[7] == path and int(row[3], 16) & _UNIX_LISTENS:
                return row[6]
            return None

        os.stat(os.path.join(self._proc, "net", "unix"))
        inodes = list(self._inodes("unix", listens))
        return self._owners(inodes) if inodes else None

    def belongs(self, process: int, to: int | None) -> bool:
        """Whether a process is ``to``, or a descendant of it."""
        for _ in range(64):
            if process == to:
                return True
            parent = re.search(r"^PPid:\s*(\d+)", self._read(process, "status"), re.MULTILINE)
            if not parent or process < 2:
                break
            process = int(parent[1])
        return False

    def described(self, processes: Sequence[int]) -> str:
        """Return the number and name of the first of these processes."""
        if not processes:
            return "another process"
        name = printable(self._read(processes[0], "comm").strip())
        return f"process {processes[0]} ({name})" if name else f"process {processes[0]}"

    def _read(self, process: int, name: str) -> str:
        with (
            suppress(OSError),
            open(
                os.path.join(self._proc, str(process), name), encoding="utf-8", errors="replace"
            ) as file,
        ):
            return file.read()
        return ""

    def _inodes(self, table: str, listens: Callable[[Sequence[str]], str | None]) -> Iterator[str]:
        with (
            suppress(OSError, ValueError),
            open(
                os.path.join(self._proc, "net", table), encoding="utf-8", errors="replace"
            ) as rows,
        ):
            next(rows, None)
            for row in rows:
                inode = listens(row.split())
                if inode is not None:
                    yield inode

    def _owners(self, inodes: Sequence[str]) -> Sequence[int]:
        owners: list[int] = []
        if not inodes:
            return owners
        with suppress(OSError):
            for process in sorted(int(name) for name in os.listdir(self._proc) if name.isdecimal()):
                with suppress(OSError):
                    place = os.path.join(self._proc, str(process), "fd")
                    for descriptor in os.listdir(place):
                        with suppress(OSError):
                            inode = _SOCKET.fullmatch(os.readlink(os.path.join(place, descriptor)))
                            if inode and inode[1] in inodes:
                                owners.append(process)
                                break
        return owners
