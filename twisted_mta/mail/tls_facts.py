"""What one TLS handshake negotiated, and the certificate of its peer."""

from __future__ import annotations

from attrs import evolve, frozen

_LONGEST_NAME = 200  # characters of a certificate's subject or issuer in a log line


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "..."


@frozen
class TLSFacts:
    """The properties of a TLS session, for trace fields, the log and decisions.

    Attributes:
        version: the protocol version, as ``TLSv1.3``.
        cipher: OpenSSL's name of the cipher suite, as ``TLS_AES_256_GCM_SHA384``.
        bits: the length of the cipher's key.
        key_exchange: OpenSSL's name of the key exchange group, as ``X25519MLKEM768``; None:
            unknown.
        resumed: whether the session is that of an earlier connection, so that the server did not
            prove itself anew.
        server_name: the name in the client's SNI; None: it sent none.
        peer_subject: the subject of the peer's certificate (RFC 4514 text); None: no certificate.
        peer_issuer: the issuer of that certificate, likewise.
        peer_fingerprint: SHA-256 of the certificate's DER form, lower-case hex without colons.
        peer_verified: Whether its chain leads to a certificate authority that we trust, or fits a
            TLSA record of the server.
        verified_by: what has verified it, such as ``DANE, TLSA 3 1 1 ab12…``; None: an authority
            that we trust, or nothing.
        peer_problem: why verification failed, in OpenSSL's words; None: it did not fail, or the
            certificate was not checked.
    """

    version: str
    cipher: str
    bits: int
    key_exchange: str | None = None
    resumed: bool = False
    server_name: str | None = None
    peer_subject: str | None = None
    peer_issuer: str | None = None
    peer_fingerprint: str | None = None
    peer_verified: bool = False
    verified_by: str | None = None
    peer_problem: str | None = None

    @property
    def without_peer(self) -> TLSFacts:
        """The same facts without the peer's certificate."""
        return evolve(
            self,
            peer_subject=None,
            peer_issuer=None,
            peer_fingerprint=None,
            peer_verified=False,
            verified_by=None,
            peer_problem=None,
        )

    @property
    def negotiated(self) -> str:
        """Version, cipher, key exchange and whether the session was resumed, for people."""
        exchange = f", key exchange {self.key_exchange}" if self.key_exchange else ""
        resumed = ", resumed" if self.resumed else ""
        return f"{self.version} {self.cipher}, {self.bits} bits{exchange}{resumed}"

    @property
    def description(self) -> str:
        """One line for the log about a session with a client, which may have a certificate.

        Printable, and of bounded length whatever the certificate holds.
        """
        return self._described("client certificate")

    @property
    def outgoing_description(self) -> str:
        """The same about a session with a server, whose certificate it is."""
        return self._described("server certificate")

    @property
    def verdict(self) -> str:
        """That the peer is verified, and by what; empty where it is not."""
        if not self.peer_verified:
            return ""
        return f"verified by {self.verified_by}" if self.verified_by else "verified"

    def _described(self, certificate: str) -> str:
        session = self.negotiated
        if self.peer_fingerprint is None:
            return session
        # Our verdict comes before the names: no made-up name can then pass for it.
        verdict = self.verdict or f"not verified ({self.peer_problem or 'not checked'})"
        return f"{session}, {certificate} {verdict}, {self.peer_certificate}"

    @property
    def peer_certificate(self) -> str:
        """The fingerprint and the names of the peer's certificate; empty without one."""
        if self.peer_fingerprint is None:
            return ""
        subject, issuer = map(_shortened, (self.peer_subject or "none", self.peer_issuer or "none"))
        return f"SHA-256 {self.peer_fingerprint}, subject {subject}, issuer {issuer}"
