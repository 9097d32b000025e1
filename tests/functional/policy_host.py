"""Hosts of MTA-STS policies in this process: HTTPS on port 443 of loopback addresses."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

from .program import Service

PORT = 443


class PolicyHost(Service):
    """A policy host on a loopback address of its own.

    Args:
        address: to listen on.
        chain: the path of the PEM file with its certificate and key.

    Attributes:
        answer: what it sends, whatever is requested; pieces, one at a time.
        requests: the first lines of all requests.
        handshakes: the number of connections, verified or not.
    """

    def __init__(self, address: str, chain: Path, *answer: bytes) -> None:
        self.address = address
        self.answer = answer
        self.requests: list[str] = []
        self.handshakes = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain)
        self._listening: socket.socket | None = None

    def start(self) -> None:
        """Listen."""
        listening = self._listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self.address, PORT))
        listening.listen(16)
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        if self._listening is not None:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connected, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        self.handshakes += 1
        with contextlib.suppress(OSError), connected:
            connected.settimeout(30.0)
            with self._context.wrap_socket(connected, server_side=True) as secured:
                request = b""
                while not request.endswith(b"\r\n\r\n"):
                    piece = secured.recv(4096)
                    if not piece:
                        return
                    request += piece
                self.requests.append(request.split(b"\r\n", 1)[0].decode())
                for each in self.answer:
                    secured.sendall(each)
                with contextlib.suppress(OSError):
                    secured.unwrap()
