"""How a limit is divided among the machines that ask for it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen


@frozen
class Claim:
    """The credits of a limit that a machine has, and asks for.

    Attributes:
        machine: its id.
        held: credits that it has.
        wanted: credits that it waits for, beyond those.
        since: when it last had a credit, or began to wait; any clock, the same for all.
        spare: credits that it has and does not use.
    """

    machine: str
    held: int
    wanted: int
    since: float = 0.0
    spare: int = 0

    @property
    def need(self) -> int:
        """The credits that it uses, or waits for."""
        return self.held - self.spare + self.wanted


def fair_parts(limit: int, claims: Sequence[Claim]) -> dict[str, int]:
    """Return the credits that each machine should have, by its id.

    A machine gets what it needs as long as the others do not lose by it; what is left is divided
    evenly. Where a remainder is left, machines without any credit come first, the one that waits
    longest before the others: so that one credit goes round among many machines. Next come those
    that have it already, so that it does not wander for nothing.
    """
    parts = {each.machine: 0 for each in claims}
    left = limit
    open_claims = [each for each in claims if each.need > 0]
    while open_claims and left > 0:
        share = left // len(open_claims)
        modest = [each for each in open_claims if each.need <= share]
        if not modest:
            for each in open_claims:
                parts[each.machine] = share
            left -= share * len(open_claims)
            for each in sorted(open_claims, key=lambda claim: _order(claim, share))[:left]:
                parts[each.machine] += 1
            break
        for each in modest:
            parts[each.machine] = each.need
            left -= each.need
        open_claims = [each for each in open_claims if each not in modest]
    return parts


def _order(claim: Claim, share: int) -> tuple[int, float, str]:
    rank = 0 if not claim.held else 1 if claim.held > share else 2
    return rank, claim.since, claim.machine
