"""A receiver of webhooks in memory, which answers as a test says and verifies what it gets."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol


class Received:
    """A request.

    Attributes:
        fields: by name in lower case.
        body: its octets.
    """

    def __init__(self, start: str, fields: Mapping[str, str], body: bytes) -> None:
        self.start = start
        self.fields = fields
        self.body = body

    @property
    def id(self) -> str:
        return self.fields["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def verified_by(self, secret: str) -> bool:
        """Whether one of its signatures is by a secret."""
        signed = f"{self.id}.{self.fields['webhook-timestamp']}.".encode() + self.body
        key = b64decode(secret.removeprefix("whsec_"))
        made = b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{made}" in self.fields["webhook-signature"].split(" ")


class Receiver(Factory):
    """Answers requests.

    Attributes:
        requests: so far.
        answer: status code of the next ones; 0: none is given.
        fields: further fields of answers, as lines.
        raw: octets of all further answers, instead; None: as the others say.
        piece: octets of `raw` that are written at a time.
        connections: taken so far.
        open: connections that are open.
    """

    noisy = False

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.answer = 204
        self.fields: list[str] = []
        self.raw: bytes | None = None
        self.piece = 1 << 20
        self.connections = 0
        self.open: list[_Connection] = []

    def buildProtocol(self, addr: object) -> Protocol:
        self.connections += 1
        connection = _Connection(self)
        self.open.append(connection)
        return connection

    @property
    def types(self) -> list[str]:
        """The types of the events so far."""
        return [each.json["type"] for each in self.requests]


class _Connection(Protocol):
    transport: ITransport

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._octets = b""

    def connectionLost(self, reason: object = None) -> None:
        self._receiver.open.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        while b"\r\n\r\n" in self._octets:
            head, _, rest = self._octets.partition(b"\r\n\r\n")
            start, *lines = head.decode().split("\r\n")
            fields = {}
            for line in lines:
                name, _, value = line.partition(":")
                fields[name.lower()] = value.strip()
            length = int(fields.get("content-length", "0"))
            if len(rest) < length:
                return
            self._octets = rest[length:]
            self._receiver.requests.append(Received(start, fields, rest[:length]))
            if self._receiver.raw is not None:
                raw, piece = self._receiver.raw, self._receiver.piece
                for begin in range(0, len(raw), piece):
                    self.transport.write(raw[begin : begin + piece])
            elif self._receiver.answer:
                lines = [f"HTTP/1.1 {self._receiver.answer} Said", *self._receiver.fields]
                if self._receiver.answer != 204:
                    lines.append("Content-Length: 0")
                self.transport.write("\r\n".join((*lines, "", "")).encode())
