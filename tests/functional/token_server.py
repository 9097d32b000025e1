"""A token server (RFC 6749), with introspection of its tokens (RFC 7662) for mail servers."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from .machine import LOOPBACK

CLIENT, SECRET = "our-client", "s3cret of the client"


class TokenServer:
    """Grants tokens for one user, by a refresh token that serves once, or by client credentials.

    Args:
        user: the account at the mail server.
        lifetime: seconds of a token.

    Attributes:
        refresh_token: the one that serves.
        granted: the tokens that are valid; remove one to revoke it.
        requests: the form of each request for a token.
        failure: status code and answer of the next requests; None: it works.
        only_in_body: whether a client's secret is taken in the form alone.
    """

    def __init__(self, user: str, *, lifetime: int = 3600) -> None:
        self.user = user
        self.lifetime = lifetime
        self.refresh_token = "refresh-0"
        self.granted: list[str] = []
        self.requests: list[Mapping[str, str]] = []
        self.failure: tuple[int, bytes] | None = None
        self.only_in_body = False
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                octets = self.rfile.read(int(self.headers["Content-Length"]))
                form = {name: each[0] for name, each in parse_qs(octets.decode()).items()}
                with owner._lock:
                    code, answer = owner._answer(self.path, self.headers, form)
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        """The URL of the token endpoint."""
        return f"http://{LOOPBACK}:{self.port}/token"

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join(timeout=30)
        self._server.server_close()

    def _answer(
        self, path: str, headers: Mapping[str, str], form: Mapping[str, str]
    ) -> tuple[int, bytes]:
        if path == "/introspect":
            active = form.get("token") in self.granted
            return 200, _json(active=active, **({"username": self.user} if active else {}))
        self.requests.append(form)
        if self.failure is not None:
            return self.failure
        if not self._knows_client(headers, form):
            return 401, _json(error="invalid_client")
        more: dict[str, object] = {}
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] != self.refresh_token:
                return 400, _json(error="invalid_grant", error_description="it was used before")
            self.refresh_token = f"refresh-{len(self.requests)}"
            more["refresh_token"] = self.refresh_token
        elif form["grant_type"] != "client_credentials":
            return 400, _json(error="unsupported_grant_type")
        token = f"token-{len(self.requests)}.of=="
        self.granted.append(token)
        return 200, _json(access_token=token, token_type="Bearer", expires_in=self.lifetime, **more)

    def _knows_client(self, headers: Mapping[str, str], form: Mapping[str, str]) -> bool:
        if self.only_in_body:
            return (form.get("client_id"), form.get("client_secret")) == (CLIENT, SECRET)
        kind, _, coded = (headers.get("Authorization") or "").partition(" ")
        name, _, secret = b64decode(coded).decode().partition(":")
        return (kind, unquote_plus(name), unquote_plus(secret)) == ("Basic", CLIENT, SECRET)


def _json(**values: object) -> bytes:
    return json.dumps(values).encode()
