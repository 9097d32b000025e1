"""A session with the MTA over its UNIX socket for local submission: it blocks."""

from __future__ import annotations

import socket
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_AT_ONCE = 100  # RCPT commands whose replies are waited for together
_MOST = 1000  # recipients of a transaction
_LONGEST_LINE = 4096  # octets of a reply line
_PIECE = 1 << 16


class Unreachable(Exception):
    """The MTA has not answered as a server does: the message is not with it, as far as we know."""


class Reply:
    """A reply.

    Attributes:
        code: of three digits.
        text: of its last line.
    """

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Sent:
    """What became of a message.

    Attributes:
        taken: the last reply to a content that was taken; None: none was.
        refused: the recipients that are refused for good, with the reply to each.
        deferred: those to be tried again.
    """

    def __init__(self, taken: Reply | None, refused: dict[str, Reply], deferred: list[str]) -> None:
        self.taken = taken
        self.refused = refused
        self.deferred = deferred


class LocalSMTP:
    """A session.

    Args:
        path: of the socket.
        timeout: seconds for each reply.

    Raises:
        Unreachable: there is no such server.
    """

    def __init__(self, path: str, timeout: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
            self._replies = self._socket.makefile("rb")
            greeting = self._reply()
            if greeting.code != 220:
                raise Unreachable(f"{path}: {greeting}")
            hello = self._ask("EHLO localhost")
            if hello.code != 250:
                raise Unreachable(f"{path}: {hello}")
        except (OSError, Unreachable) as error:
            self._socket.close()
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise Unreachable(f"{path}: {why or error}") from None

    def close(self) -> None:
        """End the session."""
        try:
            self._write("QUIT\r\n")
        except OSError:
            pass  # it has gone already
        finally:
            self._socket.close()

    def send(
        self, sender: str, recipients: Sequence[str], content: bytes, mail: str, rcpt: str
    ) -> Sent:
        """Send a message, in several transactions where there are many recipients.

        Args:
            sender: the reverse-path; empty: the null one.
            recipients: mailboxes.
            content: with CR LF line ends.
            mail: the parameters of MAIL, each with a space before it.
            rcpt: likewise of RCPT.

        Raises:
            Unreachable: the session has broken off, and no recipient was taken.
        """
        taken: Reply | None = None
        refused: dict[str, Reply] = {}
        deferred: list[str] = []
        stuffed = _stuffed(content)
        for start in range(0, len(recipients), _MOST):
            some = recipients[start : start + _MOST]
            try:
                sent = self._transaction(sender, some, stuffed, mail, rcpt)
            except (OSError, Unreachable) as error:
                if taken is None:
                    raise Unreachable(str(error)) from None
                deferred += recipients[start:]  # nothing is lost; some may get it twice
                break
            taken = sent.taken or taken
            refused.update(sent.refused)
            deferred += sent.deferred
        return Sent(taken, refused, deferred)

    def _transaction(
        self, sender: str, recipients: Sequence[str], content: bytes, mail: str, rcpt: str
    ) -> Sent:
        reply = self._ask(f"MAIL FROM:<{sender}>{mail}")
        if reply.code >= 400:
            return _for_all(reply, recipients)
        refused: dict[str, Reply] = {}
        deferred: list[str] = []
        for start in range(0, len(recipients), _AT_ONCE):
            some = recipients[start : start + _AT_ONCE]
            self._write("".join(f"RCPT TO:<{each}>{rcpt}\r\n" for each in some))
            for each in some:
                reply = self._reply()
                if reply.code >= 500:
                    refused[each] = reply
                elif reply.code >= 400:
                    deferred.append(each)
        accepted = [each for each in recipients if each not in refused]
        if len(accepted) == len(deferred):
            self._ask("RSET")
            return Sent(None, refused, deferred)
        reply = self._ask("DATA")
        if reply.code == 354:
            self._socket.sendall(content)
            reply = self._reply()
        if reply.code >= 500:
            return Sent(None, {**refused, **dict.fromkeys(accepted, reply)}, [])
        if reply.code >= 400:
            return Sent(None, refused, accepted)
        return Sent(reply, refused, deferred)

    def _ask(self, command: str) -> Reply:
        self._write(f"{command}\r\n")
        return self._reply()

    def _write(self, commands: str) -> None:
        self._socket.sendall(commands.encode("utf-8", "surrogateescape"))

    def _reply(self) -> Reply:
        while True:
            line = self._replies.readline(_LONGEST_LINE)
            code = line[:3]
            if not line.endswith(b"\n") or not (code.isdigit() and line[3:4] in b" -\r\n"):
                raise Unreachable(f"found {line[:80]!r}, expected a reply of SMTP")
            if line[3:4] != b"-":
                if code == b"421":
                    raise Unreachable(line.decode("utf-8", "replace").strip())
                return Reply(int(code), line[4:].decode("utf-8", "replace").strip())


def _for_all(reply: Reply, recipients: Sequence[str]) -> Sent:
    if reply.code >= 500:
        return Sent(None, dict.fromkeys(recipients, reply), [])
    return Sent(None, {}, list(recipients))


def _stuffed(content: bytes) -> bytes:
    """Return a content as DATA has it, with its end (RFC 5321 §4.5.2)."""
    if content.startswith(b"."):
        content = b"." + content
    return content.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def pass_through(path: str, source: BinaryIO, target: BinaryIO) -> None:
    """Hand the commands of a client to the MTA, each once the reply to the last one has come.

    So a client may write all commands before it reads a reply (``-bs``).

    Args:
        path: of the socket.
        source: the client's commands are read from there.
        target: the replies are written there.

    Raises:
        OSError: there is no such server, or the client has gone.
    """
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(path)
        replies = connected.makefile("rb")

        def reply() -> bytes:
            """Pass a reply on; return its code, or nothing at the end."""
            while line := replies.readline(_LONGEST_LINE):
                target.write(line)
                if line[3:4] != b"-":
                    target.flush()
                    return line[:3]
            target.flush()
            return b""

        code = reply()
        while code and (line := source.readline(_PIECE)):
            words = line.upper().split()
            connected.sendall(line)
            if words[:1] == [b"BDAT"] and len(words) > 1 and words[1].isdigit():
                left = int(words[1][:12])
                while left and (octets := source.read(min(left, _PIECE))):
                    connected.sendall(octets)
                    left -= len(octets)
            if not line.endswith(b"\n"):
                continue  # the beginning of a long line
            code = reply()
            if words[:1] == [b"DATA"] and code == b"354":
                ends = True  # whether the last piece has ended a line
                while octets := source.readline(_PIECE):
                    connected.sendall(octets)
                    if ends and octets in (b".\r\n", b".\n"):
                        break
                    ends = octets.endswith(b"\n")
                else:
                    return  # the client has gone within the message: it is not sent
                code = reply()
