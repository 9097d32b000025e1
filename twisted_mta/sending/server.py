"""The arguments of `sendmail` about the server, read and checked."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs import frozen

from ..delivery.terms import Terms
from ..mail.next_hop import Host, NextHop
from ..smtp.client.awaited import Deadlines
from ..smtp.sasl.client import Credentials
from ..tls.client import ClientTLS
from .lookup import host_name

TLSLevel = Literal["none", "may", "encrypt", "verify"]
"""The TLS that the connection must have."""

_LEVELS: tuple[TLSLevel, ...] = ("none", "may", "encrypt", "verify")
_SMTPS = 465  # RFC 8314 §7.3


@frozen(kw_only=True)
class Server:
    """The server and the session with it: arguments of `sendmail`, which explains them.

    Every method that reads an argument raises ``ValueError`` where it cannot be used.
    """

    host: str
    port: int
    tls: TLSLevel | None
    implicit_tls: bool | None
    username: str | None
    password: str | None = attrs.field(repr=False)
    authorities: str | None
    client_certificate: str | None
    client_key: str | None
    lmtp: bool
    timeout: float | None

    @property
    def begins_with_tls(self) -> bool:
        """Whether TLS begins at the first octet."""
        return self.port == _SMTPS if self.implicit_tls is None else self.implicit_tls

    def credentials(self) -> Credentials | None:
        """Return the account; None: there is none."""
        if self.username is None and self.password is None:
            return None
        if self.username is None or self.password is None:
            raise ValueError("found one of username and password, expected both or neither")
        return Credentials(self.username, self.password)

    def level(self) -> TLSLevel:
        """Return the level of TLS that the connection must have."""
        needed = self.username is not None or self.begins_with_tls
        if self.tls is None:
            if needed or self.authorities is not None:
                return "verify"
            return "none" if self.host.startswith("/") else "may"
        if self.tls not in _LEVELS:
            raise ValueError(f"tls: found {self.tls!r}, expected one of {', '.join(_LEVELS)}")
        if self.tls == "none" and needed:
            what = "implicit_tls" if self.begins_with_tls else "username"
            raise ValueError(f"tls: found 'none' with {what}, expected 'encrypt' or 'verify'")
        if self.authorities is not None and self.tls != "verify":
            raise ValueError(f"tls: found {self.tls!r} with authorities, expected 'verify'")
        return "encrypt" if self.tls == "may" and needed else self.tls

    def terms(self) -> Terms:
        """Return the terms of the connection."""
        level = self.level()
        if self.client_key is not None and self.client_certificate is None:
            raise ValueError("client_key: found one without client_certificate")
        tls = ClientTLS(
            verify=level == "verify",
            authorities=self.authorities,
            certificate=self.client_certificate,
            key=self.client_key or self.client_certificate,
        )
        return Terms(
            level=level,
            tls=tls,
            verifying=attrs.evolve(tls, verify=True),
            implicit_tls=self.begins_with_tls,
            credentials=self.credentials(),
            dialect="lmtp" if self.lmtp else "smtp",
        )

    def deadlines(self) -> Deadlines:
        """Return how long each wait may last."""
        deadlines = Deadlines()
        if self.timeout is None:
            return deadlines
        if not self.timeout > 0:
            raise ValueError(f"timeout: found {self.timeout!r}, expected seconds")
        waits: dict[str, float] = attrs.asdict(deadlines)
        return Deadlines(**{name: min(wait, self.timeout) for name, wait in waits.items()})

    def next_hop(self) -> NextHop:
        """Return the host and port."""
        if not 0 < self.port < 65536:
            raise ValueError(f"port: found {self.port!r}, expected a number from 1 to 65535")
        hosts = (Host(host_name(self.host), self.port),)
        return NextHop("lmtp" if self.lmtp else "smtp", hosts, implicit_tls=self.begins_with_tls)
