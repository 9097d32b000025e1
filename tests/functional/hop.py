"""A scripted next hop in this process, which records what it receives.

Its behavior can be changed while it runs: a good server can begin to hang or refuse, or lose
STARTTLS.
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field

from .machine import LOOPBACK, eventually
from .program import Service

_PATH = re.compile(rb"<([^>]*)>")


@dataclass
class Transaction:
    """One transaction.

    Attributes:
        connection: the number of its connection, from 1.
        mail: the MAIL command.
        recipients: the accepted ones.
        began: time of MAIL (`time.monotonic`).
        ended: time of the reply to the final dot.
        content: without dot-stuffing.
        tls: the version; None: in clear.
        account: the user of AUTH PLAIN; None: no AUTH.
        peer: the address of the client.
        helo: the name in its greeting.
    """

    connection: int
    mail: str
    began: float
    tls: str | None
    account: str | None
    peer: str
    helo: str
    recipients: list[str] = field(default_factory=list)
    ended: float = 0.0
    content: bytes = b""


class Hop(Service):
    """A next hop on a loopback port.

    Args:
        port: to listen on; 0: the system chooses.
        address: to listen on.

    Attributes:
        port: the same after `stop` and `start`.
        greeting: the first line; None: silence; "": the connection is closed.
        extensions: keywords of EHLO; STARTTLS is offered with `context`, AUTH under TLS with
            `accounts`.
        context: for STARTTLS; None: not offered.
        accounts: password by user.
        blocked: the address of a client whose recipients are refused.
        replies: replacements of the usual replies, by verb or ``"."``.
        delay: seconds before the reply to the final dot.
        connections: the number of all connections.
        commands: all lines in clear, to assert that credentials are not among them.
        transactions: those with a final dot, in that order.
        most: the highest number of simultaneous transactions.
        most_open: the highest number of simultaneous connections.
    """

    def __init__(self, port: int = 0, address: str = LOOPBACK) -> None:
        self.port = port
        self.address = address
        self.greeting: str | None = "220 hop.example ESMTP"
        self.extensions = ["PIPELINING", "8BITMIME", "SIZE 10000000", "ENHANCEDSTATUSCODES"]
        self.context: ssl.SSLContext | None = None
        self.accounts: dict[str, str] = {}
        self.blocked = ""
        self.replies: dict[str, str] = {}
        self.delay = 0.0
        self.connections = 0
        self.commands: list[bytes] = []
        self.transactions: list[Transaction] = []
        self.under_way = self.most = self.most_open = 0
        self.lock = threading.Lock()
        self._open: dict[int, socket.socket] = {}
        self._listening: socket.socket | None = None

    def start(self) -> None:
        """Listen on the port."""
        listening = self._listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self.address, self.port))
        listening.listen(1024)
        self.port = listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening, and drop all connections."""
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        with self.lock:
            opened = list(self._open.values())
        for each in opened:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def wait_for(self, count: int, patience: float = 60.0) -> list[Transaction]:
        """Wait for ``count`` messages; return all transactions."""
        eventually(lambda: len(self.transactions) >= count, f"{count} messages", patience)
        return list(self.transactions)

    def recipients(self) -> list[str]:
        """Return the recipients of all messages so far, sorted."""
        return sorted(
            recipient
            for transaction in list(self.transactions)
            for recipient in transaction.recipients
        )

    def closes(self, number: int) -> None:
        """Count a connection out that is about to be closed."""
        with self.lock:
            self._open.pop(number, None)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.connections += 1
                number = self.connections
                self._open[number] = connected
                self.most_open = max(self.most_open, len(self._open))
            threading.Thread(target=self._serve, args=(connected, number), daemon=True).start()

    def _serve(self, connected: socket.socket, number: int) -> None:
        session = _Session(self, connected, number)
        try:
            session.run()
        except (OSError, EOFError):
            pass
        finally:
            session.over()
            with self.lock:
                self._open.pop(number, None)
            session.socket.close()


class _Session:
    def __init__(self, hop: Hop, connected: socket.socket, number: int) -> None:
        self.socket = connected
        self._hop = hop
        self._number = number
        self._held = b""
        self._tls: str | None = None
        self._account: str | None = None
        self._helo = ""
        self._transaction: Transaction | None = None

    def run(self) -> None:
        hop = self._hop
        self.socket.settimeout(120.0)
        if hop.greeting is None:
            self._line()
            return
        if not hop.greeting:
            return
        self._say(hop.greeting)
        if hop.greeting[:3] != "220":
            return
        while True:
            line = self._line()
            if self._tls is None:
                hop.commands.append(line)
            verb = line[:4].upper().decode("latin-1")
            special = hop.replies.get(verb)
            if special is not None:
                if not special:
                    return
                self._say(special)
                if special[:3] == "421":
                    return
            elif verb == "QUIT":
                hop.closes(self._number)
                self._say("221 2.0.0 bye")
                return
            else:
                self._usual(verb, line)

    def _usual(self, verb: str, line: bytes) -> None:
        hop = self._hop
        if verb == "EHLO":
            self._helo = line[5:].decode()
            offered = ["hop.example", *hop.extensions]
            if hop.context is not None and self._tls is None:
                offered.append("STARTTLS")
            if hop.accounts and self._tls is not None:
                offered.append("AUTH PLAIN")
            last = len(offered) - 1
            self._say(*(f"250{' -'[n < last]}{each}" for n, each in enumerate(offered)))
        elif verb == "STAR" and hop.context is not None:
            self._say("220 2.0.0 go on")
            self.socket = hop.context.wrap_socket(self.socket, server_side=True)
            self._tls = self.socket.version()
            self._held = b""
        elif verb == "AUTH":
            self._authenticate(line)
        elif verb == "MAIL":
            self._begin(line)
            self._say("250 2.1.0 ok")
        elif verb == "RCPT" and hop.blocked and self.socket.getpeername()[0] == hop.blocked:
            self._say(f"550 5.7.1 {hop.blocked} is blocked")
        elif verb == "RCPT" and self._transaction is not None:
            found = _PATH.search(line)
            assert found is not None
            self._transaction.recipients.append(found[1].decode())
            self._say("250 2.1.5 ok")
        elif verb == "DATA" and self._transaction is not None:
            self._data(self._transaction)
        elif verb == "RSET":
            self.over()
            self._say("250 2.0.0 ok")
        else:
            self._say("250 2.0.0 ok" if verb == "NOOP" else "503 5.5.1 not now")

    def _authenticate(self, line: bytes) -> None:
        words = line.split()
        octets = words[2] if len(words) > 2 else b""
        if not octets:
            self._say("334 ")
            octets = self._line()
        _, user, password = base64.b64decode(octets).decode().split("\0")
        if self._hop.accounts.get(user) == password:
            self._account = user
            self._say("235 2.7.0 welcome")
        else:
            self._say("535 5.7.8 no")

    def _begin(self, line: bytes) -> None:
        hop = self._hop
        self.over()
        self._transaction = Transaction(
            self._number,
            line.decode(),
            time.monotonic(),
            self._tls,
            self._account,
            self.socket.getpeername()[0],
            self._helo,
        )
        with hop.lock:
            hop.under_way += 1
            hop.most = max(hop.most, hop.under_way)

    def over(self) -> None:
        if self._transaction is not None:
            self._transaction = None
            with self._hop.lock:
                self._hop.under_way -= 1

    def _data(self, transaction: Transaction) -> None:
        hop = self._hop
        self._say("354 go on")
        held = b"\r\n" + self._held
        while b"\r\n.\r\n" not in held:
            held += self._read()
        content, _, self._held = held.partition(b"\r\n.\r\n")
        transaction.content = (content + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]
        if hop.delay:
            time.sleep(hop.delay)
        transaction.ended = time.monotonic()
        reply = hop.replies.get(".", "250 2.0.0 taken")
        if reply[:1] in ("2", ""):
            hop.transactions.append(transaction)
        self.over()
        if not reply:
            raise EOFError
        self._say(reply)

    def _say(self, *lines: str) -> None:
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def _line(self) -> bytes:
        while b"\r\n" not in self._held:
            self._held += self._read()
        line, _, self._held = self._held.partition(b"\r\n")
        return line

    def _read(self) -> bytes:
        octets = self.socket.recv(65536)
        if not octets:
            raise EOFError
        return octets


def flood(port: int, recipients: list[str], *, sender: str = "ann@sender.example") -> None:
    """Submit a small message to each of ``recipients``, fast: one connection, pipelined."""
    content = b"Subject: one of many\r\n\r\nGood morning!\r\n.\r\n"
    with socket.create_connection((LOOPBACK, port), 120.0) as connected:
        replies = connected.makefile("rb")

        def expect(code: bytes) -> None:
            while True:
                line = replies.readline()
                if line[:3] != code:
                    raise AssertionError(f"{line!r} instead of {code!r}")
                if line[3:4] == b" ":
                    return

        expect(b"220")
        connected.sendall(b"EHLO client.example\r\n")
        expect(b"250")
        first = True
        for recipient in recipients:
            # RFC 2920 §3.1: DATA is last in its group; the content may come with the next one.
            connected.sendall(
                b"" if first else content,
            )
            connected.sendall(f"MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
            if not first:
                expect(b"250")
            expect(b"250")
            expect(b"250")
            expect(b"354")
            first = False
        connected.sendall(content + b"QUIT\r\n")
        expect(b"250")
        expect(b"221")
