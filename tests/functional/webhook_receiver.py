"""A receiver of webhooks over HTTPS, which answers as a test says."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .machine import LOOPBACK


class WebhookReceiver:
    """Takes events.

    Args:
        pair: PEM file with its certificate and key.
        port: where it listens; 0: the system chooses.

    Attributes:
        code: of the next answers; 0: none is given while the test runs.
        requests: fields and events so far.
    """

    def __init__(self, pair: Path, *, port: int = 0) -> None:
        self.code = 204
        self.requests: list[tuple[Mapping[str, str], Any]] = []
        self._released = threading.Event()
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with owner._lock:
                    owner.requests.append((dict(self.headers.items()), json.loads(body)))
                code = owner.code
                if not code:
                    owner._released.wait()
                    return
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        # The handshake is made by the thread of its connection, not by that which accepts.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """Where events are posted to."""
        return f"https://localhost:{self.port}/mail-events"

    def taken(self, type: str) -> list[str]:
        """Return the queue ids of the events of a type, in the order of their requests."""
        with self._lock:
            return [event["data"]["id"] for _, event in self.requests if event["type"] == type]

    def forget(self) -> list[tuple[Mapping[str, str], Any]]:
        """Return the requests so far, and begin anew."""
        with self._lock:
            requests, self.requests = self.requests, []
        return requests

    def __enter__(self) -> WebhookReceiver:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join(timeout=30)
        self._server.server_close()
