r"""A server that follows a script; over TCP, or on a `network.MemoryNetwork`.

A script is a list of what the server does in turn; a dialogue reads like one::

    peer = ScriptedPeer(
        [
            ("send", b"220 mx.example ESMTP\r\n"),
            ("expect", b"EHLO client.example\r\n"),
            ("send", b"250 mx.example\r\n"),
            ("expect", re.compile(rb"MAIL FROM:<[^>]*>[^\r]*\r\n")),
            ("close",),
        ]
    )
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

ScriptStep: TypeAlias = (
    tuple[Literal["send"], bytes]
    | tuple[Literal["expect"], bytes | re.Pattern[bytes]]
    | tuple[Literal["content"]]
    | tuple[Literal["starttls"]]
    | tuple[Literal["close"]]
    | tuple[Literal["abort"]]
)
"""One thing that the server does.

``send``: writes octets in one piece. ``expect``: waits for octets, given or matched by a pattern;
others are a problem, and end the connection. ``content``: waits for the end of a content, CR LF
``.`` CR LF, and keeps it as it came. ``starttls``: begins the handshake. ``close`` and ``abort``:
end the connection, with and without sending what is still buffered.
"""


class ScriptedPeer(Protocol):
    """The server's side of one connection.

    Attributes:
        received: all that came, in clear and from under TLS.
        contents: what each ``content`` step took, dot-stuffed and with its final dot.
        problems: what did not go by the script; empty in a good test.
        lost: whether the connection is over.
        tls: whether a handshake completed.
    """

    transport: Any

    def __init__(self, script: list[ScriptStep], *, tls: ServerTLS | None = None) -> None:
        self.script = list(script)
        self.received = bytearray()
        self.contents: list[bytes] = []
        self.problems: list[str] = []
        self.lost = False
        self._buffer = bytearray()
        self._searched = 0
        self._tls = tls
        self._playing = False

    @property
    def finished(self) -> bool:
        """Whether the script was played to its end, and nothing came beyond it."""
        return not (self.script or self.problems or self._buffer)

    def connectionMade(self) -> None:
        """Begin."""
        self._play()

    def dataReceived(self, data: bytes) -> None:
        """Go on with the script."""
        self.received += data
        self._buffer += data
        self._play()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other side is gone."""
        self.lost = True

    def _play(self) -> None:
        if self._playing:
            return
        self._playing = True
        while self.script and not self.problems and self._step(self.script[0]):
            del self.script[0]
        self._playing = False

    def _step(self, step: ScriptStep) -> bool:
        if step[0] == "send":
            self.transport.write(step[1])
            return True
        if step[0] == "expect":
            return self._expect(step[1])
        if step[0] == "content":
            return self._content()
        if step[0] == "starttls":
            self.transport.startTLS(self._tls or ServerTLS())
        elif step[0] == "close":
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()
        return True

    def _expect(self, expected: bytes | re.Pattern[bytes]) -> bool:
        if isinstance(expected, bytes):
            length = min(len(expected), len(self._buffer))
            if self._buffer[:length] != expected[:length]:
                self.problems.append(f"expected {expected!r}, got {bytes(self._buffer)!r}")
                self.transport.abortConnection()
                return False
            if len(self._buffer) < len(expected):
                return False
        else:
            found = expected.match(self._buffer)
            if found is None:
                return False
            length = found.end()
        del self._buffer[:length]
        return True

    def _content(self) -> bool:
        if self._buffer.startswith(b".\r\n"):
            end = 3
        else:
            end = self._buffer.find(b"\r\n.\r\n", self._searched) + 5
        if end < 5 and end != 3:
            self._searched = max(0, len(self._buffer) - 4)
            return False
        self._searched = 0
        self.contents.append(bytes(self._buffer[:end]))
        del self._buffer[:end]
        return True


@lru_cache(maxsize=1)
def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a self-signed certificate for ``mx.example`` with its key, made at the first call."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.example")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.example")]), critical=False)
        .sign(key, SHA256())
    )
    return made, key


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """TLS for the server's side.

    Args:
        maximum: the newest protocol version to speak, as pyOpenSSL numbers them; 0: no limit.
        shown: the certificate to show with its key; None: `certificate`.
        ask: whether clients are asked for a certificate; any is taken.

    Attributes:
        server_names: what clients asked for by SNI, None where they did not.
        client_subjects: whose certificates they showed, as RFC 4514 writes names.
    """

    def __init__(
        self,
        *,
        maximum: int = 0,
        shown: tuple[x509.Certificate, Any] | None = None,
        ask: bool = False,
    ) -> None:
        made, key = shown or certificate()
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate(made)
        self._context.use_privatekey(key)
        self._context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # so that old versions can be played
        self._context.set_min_proto_version(SSL.TLS1_VERSION)
        self._context.set_max_proto_version(maximum)
        self._context.set_tlsext_servername_callback(self._named)
        self.server_names: list[str | None] = []
        self.client_subjects: list[str] = []
        if ask:
            self._context.set_verify(SSL.VERIFY_PEER, self._take)

    def _take(
        self, connection: SSL.Connection, shown: Any, error: int, depth: int, ok: int
    ) -> bool:
        subject = shown.to_cryptography().subject.rfc4514_string()
        if depth == 0 and subject not in self.client_subjects:
            self.client_subjects.append(subject)
        return True

    def _named(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        self.server_names.append(name.decode("ascii") if name is not None else None)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection."""
        return SSL.Connection(self._context, None)
