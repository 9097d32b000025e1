"""The policy that holds for a domain now, and what it means for one exchanger; pure."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred

from ...mail.next_hop import NextHop, Target
from ...mail.printable import printable
from .policy import Policy

_SHOWN = 3  # hosts of a policy, in a reason


@frozen(kw_only=True)
class Found:
    """The policy that holds for mail to a domain now.

    Attributes:
        domain: the domain.
        policy: the policy in force; None: there is none.
        id: of its record.
        since: seconds since the epoch, when it was fetched first.
        problem: why there is none, or no newer one; printable. Empty: nothing is wrong.
        trouble: the kind of that (`fetcher.Trouble`); empty: the domain says nothing of MTA-STS.
    """

    domain: str
    policy: Policy | None = None
    id: str = ""
    since: float | None = None
    problem: str = ""
    trouble: str = ""

    @property
    def is_enforced(self) -> bool:
        """Whether mail waits rather than go to a host that does not fulfill the policy."""
        return self.policy is not None and self.policy.mode == "enforce"

    @property
    def is_tested(self) -> bool:
        """Whether mail goes to such a host, and the domain wants to know."""
        return self.policy is not None and self.policy.mode == "testing"

    @property
    def description(self) -> str:
        """The policy, for people."""
        mode = "none" if self.policy is None else self.policy.mode
        return f"MTA-STS of {self.domain} (policy {self.id}, {mode})"

    def fault(self, host: str) -> str | None:
        """Return why an exchanger is none of the policy; None: it is one (RFC 8461 §4.1)."""
        if self.policy is None or self.policy.allows(host):
            return None
        patterns = self.policy.patterns
        more = f" and {len(patterns) - _SHOWN} more" if len(patterns) > _SHOWN else ""
        return (
            f"found {printable(host)} as a mail exchanger, expected one that the MTA-STS policy of"
            f" {self.domain} allows: {', '.join(patterns[:_SHOWN])}{more}"
        )

    @property
    def missing(self) -> str:
        """Why no policy is enforced, for people; empty: one is."""
        if self.is_enforced:
            return ""
        if self.policy is not None:
            return f"found {self.description}, expected mode enforce"
        return self.problem or f"{self.domain} has no policy"


Find = Callable[[str], "Deferred[Found]"]
"""Find the policy that holds for mail to a domain, in lower-case A-labels; never fails."""


def policy_domain(next_hop: NextHop, target: Target) -> str | None:
    """Return the domain whose policy holds for a host; None: there is none (RFC 8461 §3.4).

    It is the domain of the recipients, or the host that a route names, unless that is an address.
    """
    if next_hop.transport != "smtp":
        return None
    name = next_hop.domain or target.name
    if "." not in name or name.startswith(("[", "/")) or ":" in name:
        return None
    if name.rpartition(".")[2].isdigit():  # an IPv4 address
        return None
    return name.lower().removesuffix(".")
