"""A minimal SMTP client over a blocking socket."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from ..functional.machine import LOOPBACK, Unready

ENVELOPE = (
    (b"MAIL FROM:<ann@sender.example>\r\n", b"250"),
    (b"RCPT TO:<bob@elsewhere.example>\r\n", b"250"),
    (b"DATA\r\n", b"354"),
)
"""The commands before a message, with their reply codes."""

_HEADER = (
    b"From: <ann@sender.example>\r\nTo: <bob@elsewhere.example>\r\n"
    b"Date: Sun, 01 Nov 2026 12:00:00 +0000\r\nMessage-Id: <benchmark@sender.example>\r\n\r\n"
)
_LINE = b"x" * 76 + b"\r\n"


def content(octets: int) -> bytes:
    """Return a message with a body of about ``octets``, followed by the final dot."""
    return _HEADER + _LINE * max(1, octets // len(_LINE)) + b".\r\n"


def client_tls() -> ssl.SSLContext:
    """Return a context that accepts any certificate and resumes no session."""
    # Not `ssl.create_default_context`: it loads all authorities of the system, and searching them,
    # although nothing is verified, nearly doubles the cost of a handshake (535, not 315 µs).
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """One connection.

    Args:
        port: on the loopback interface.
        host: the address to connect to, and from.
    """

    def __init__(self, port: int, *, host: str = LOOPBACK) -> None:
        self.socket = socket.create_connection((host, port), 300.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def expect(self, code: bytes) -> None:
        """Read one reply.

        Raises:
            Unready: the reply has another code, or the connection was closed.
        """
        reply = b""
        # The last line of a reply has no hyphen after its code.
        while not reply.endswith(b"\n") or reply[reply.rfind(b"\n", 0, -1) + 4 :][:1] == b"-":
            octets = self.socket.recv(4096)
            if not octets:
                raise Unready(f"expected {code!r}, and the connection was closed")
            reply += octets
        if not reply.startswith(code):
            raise Unready(f"expected {code!r}, got {reply!r}")

    def say(self, octets: bytes, code: bytes) -> None:
        """Send a command and read its reply."""
        self.socket.sendall(octets)
        self.expect(code)

    def greet(self, context: ssl.SSLContext | None = None) -> None:
        """Send EHLO, and with a ``context`` again after STARTTLS."""
        self.expect(b"220")
        self.say(b"EHLO client.example\r\n", b"250")
        if context is not None:
            self.say(b"STARTTLS\r\n", b"220")
            self.socket = context.wrap_socket(self.socket, server_hostname="mx.example")
            self.say(b"EHLO client.example\r\n", b"250")

    def envelope(self) -> None:
        """Send MAIL, RCPT and DATA."""
        for command, code in ENVELOPE:
            self.say(command, code)

    def send_to(self, recipients: Sequence[str], message: bytes) -> None:
        """Send one message to many recipients, with their commands pipelined (RFC 2920)."""
        commands = [f"RCPT TO:<{each}>\r\n".encode("ascii") for each in recipients]
        (mail, taken), _, (data, ready) = ENVELOPE
        self.socket.sendall(mail + b"".join(commands) + data)
        # Replies may come together, and `expect` reads one.
        lines = self.socket.makefile("rb")
        for code in (taken, *([taken] * len(commands)), ready):
            reply = lines.readline()
            if not reply.startswith(code):
                raise Unready(f"expected {code!r}, got {reply!r}")
        self.say(message, b"250")

    def send(self, message: bytes) -> None:
        """Send one message, and wait until it is accepted."""
        self.envelope()
        self.say(message, b"250")

    def close(self) -> None:
        """Send QUIT and close."""
        self.say(b"QUIT\r\n", b"221")
        self.socket.close()
