"""What TLS the connection to one host must have, and why: a value that delivery obeys."""

from __future__ import annotations

from typing import Literal, Protocol

from attrs import field, frozen

from .tls_result import PolicyType, ResultType
from .tlsa import TLSA

TLSLevel = Literal["none", "may", "encrypt", "verify", "dane"]
"""The level of TLS that a connection must have.

``none`` never sends STARTTLS; ``may`` goes on in clear where there is no TLS (opportunistic
security, RFC 7435); ``encrypt`` requires TLS; ``verify`` requires a certificate that proves the
name of the host; ``dane`` one that fits TLSA records (RFC 7672).
"""

TLSSetting = Literal["none", "may", "encrypt", "verify", "dane", "mta-sts", "auto"]
"""The level that an operator demands. ``dane`` and ``mta-sts`` demand that the next hop publishes
such a policy; ``auto`` is DANE where there is one, else MTA-STS, else ``may``."""

SETTINGS = "the settings"
"""The source of a policy that follows from the configuration alone."""


class TLSTerms(Protocol):
    """What the configuration, and the message, demand of the TLS to a host."""

    @property
    def level(self) -> TLSSetting:
        """The level that was demanded."""
        ...

    @property
    def least(self) -> TLSLevel:
        """The level below which nothing found in the network may lead."""
        ...

    @property
    def require_memory(self) -> bool:
        """Whether a host that is known to do TLS must do it again."""
        ...


@frozen(kw_only=True, cache_hash=True)
class TLSPolicy:
    """What the TLS with one host must be now.

    Attributes:
        level: of a connection to it.
        source: where the level comes from, for people: ``DANE: _25._tcp.mx.example``.
        since: since when that is known, in seconds since the epoch; None: unknown.
        server_name: the name for SNI; None: the name of the host.
        tlsa: the records that the server's chain must fit one of; of ``dane`` alone.
        names: the names one of which the certificate must have; empty: the name of the host. With
            ``dane``, for usage DANE-TA alone.
        patterns: the patterns of an MTA-STS policy, one of which the name of the host fits.
        unproven_host: whether the host was found by MX records that DNSSEC does not prove, so that
            its certificate proves little (RFC 7672 §2.2.1).
        authorities: the path of the PEM file with the authorities that certificates under such a
            policy verify against; None: those of the system.
        testing: whether that policy is tested: its faults are noted, and mail goes there as if
            there were none.
        fault: the fault of the host under that policy that shows without a connection; empty: none.
        remembered: whether the TLS memory has raised the level.
        problem: why no connection may be made now; None: one may.
        kind: of the policy that the next hop publishes, for reports (RFC 8460 §4.4).
        domain: that the policy is defined for: the TLSA base domain of DANE; empty: the next-hop
            domain.
        strings: the published text: TLSA records, or the lines of an MTA-STS policy.
        trouble: why such a policy could not be had; None: it was, or there is none. ``problem`` is
            set too where no connection may be made because of it.
        trouble_reason: the same for people; printable.
    """

    level: TLSLevel
    source: str = field(default=SETTINGS, eq=False)
    since: float | None = field(default=None, eq=False)
    server_name: str | None = None
    tlsa: tuple[TLSA, ...] = ()
    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    unproven_host: bool = False
    authorities: str | None = None
    testing: bool = False
    fault: str = field(default="", eq=False)
    remembered: bool = False
    problem: str | None = None
    kind: PolicyType = field(default="no-policy-found", eq=False)
    domain: str = field(default="", eq=False)
    strings: tuple[str, ...] = field(default=(), eq=False)
    trouble: ResultType | None = field(default=None, eq=False)
    trouble_reason: str = field(default="", eq=False)
