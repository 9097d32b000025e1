"""The oracle: compare the ledgers for messages that were lost, corrupted or doubled.

Pure: lines in, a verdict out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import Factory, define, frozen


@frozen
class Offer:
    """A message that the load generator offered.

    Attributes:
        digest: SHA-256 of its content, in hex.
        recipients: addresses.
        acked: whether the reply was 250.
        answered: whether there was a reply.
    """

    digest: str
    recipients: tuple[str, ...]
    acked: bool = False
    answered: bool = False


@frozen
class Copy:
    """A message that arrived, one for each recipient.

    Attributes:
        name: its id.
        recipient: its address.
        digest: SHA-256 of its content, in hex.
        time: of its arrival, seconds since the epoch.
    """

    name: str
    recipient: str
    digest: str
    time: float


@define
class Verdict:
    """The findings of the oracle.

    Attributes:
        offered: messages offered.
        acked: messages with a reply of 250.
        refused: messages with any other reply.
        unanswered: messages in flight as a connection broke, which may arrive or not.
        arrived: copies, over all recipients.
        failed: (id, recipient) that were returned to the sender.
        lost: (id, recipient) that were acknowledged and did not arrive. Must be empty.
        corrupt: copies that differ from the offer, or that were not offered. Must be empty.
        explained: second copies with a fault between them and the first one, soon after the first.
        unexplained: all other second copies. Must be empty.
        lag: the longest time, in seconds, from a first copy to the fault that caused the second.
        disturbed: connections that could not be opened, or broke.
        in_flight: copies that arrived shortly before a fault: at most so many can be doubled.
    """

    offered: int = 0
    acked: int = 0
    refused: int = 0
    unanswered: int = 0
    arrived: int = 0
    failed: list[tuple[str, str]] = Factory(list)
    lost: list[tuple[str, str]] = Factory(list)
    corrupt: list[Copy] = Factory(list)
    explained: list[Copy] = Factory(list)
    unexplained: list[Copy] = Factory(list)
    lag: float = 0.0
    in_flight: int = 0
    disturbed: int = 0

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.corrupt or self.unexplained)

    def __str__(self) -> str:
        """One line for each finding."""
        lines = [
            f"offered     {self.offered}",
            f"acked       {self.acked}",
            f"refused     {self.refused}",
            f"unanswered  {self.unanswered}",
            f"disturbed   {self.disturbed}",
            f"arrived     {self.arrived}",
            f"failed      {len(self.failed)}",
            f"lost        {len(self.lost)}  {self.lost[:5] or ''}",
            f"corrupt     {len(self.corrupt)}  {self.corrupt[:5] or ''}",
            f"duplicates  {len(self.explained)} explained by a fault (first copy up to "
            f"{self.lag * 1000:.0f} ms before it; {self.in_flight} copies were that close), "
            f"{len(self.unexplained)} unexplained  {self.unexplained[:5] or ''}",
        ]
        return "\n".join(line.rstrip() for line in lines)


def read_offers(lines: Iterable[str]) -> dict[str, Offer]:
    """Return the offers in the ledger of the load generator, by id."""
    offers: dict[str, Offer] = {}
    for line in lines:
        kind, _, name, *rest = line.split()
        if kind == "disturbed":
            continue
        if kind == "offered":
            offers[name] = Offer(rest[0], tuple(rest[2:]))
        else:
            offer = offers[name]
            offers[name] = Offer(offer.digest, offer.recipients, kind == "acked", True)
    return offers


def disturbances(lines: Iterable[str]) -> int:
    """Return how many connections of the load generator could not be opened, or broke."""
    return sum(line.startswith("disturbed ") for line in lines)


def read_copies(lines: Iterable[str]) -> list[Copy]:
    """Return the copies in the ledger of the sink, one for each recipient."""
    copies: list[Copy] = []
    for line in lines:
        time, name, digest, _, *recipients = line.split()
        copies.extend(Copy(name, recipient, digest, float(time)) for recipient in recipients)
    return copies


def outstanding(
    offers: Mapping[str, Offer], copies: Iterable[Copy], failed: Iterable[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """Return the (id, recipient) that were acknowledged, and neither arrived nor were returned."""
    known = {(copy.name, copy.recipient) for copy in copies}
    known.update(failed)
    return [
        (name, recipient)
        for name, offer in offers.items()
        if offer.acked
        for recipient in offer.recipients
        if (name, recipient) not in known
    ]


def judge(
    offers: Mapping[str, Offer],
    copies: Sequence[Copy],
    *,
    faults: Sequence[float],
    window: float = 0.5,
    failed: Sequence[tuple[str, str]] = (),
) -> Verdict:
    """Compare the offers with the copies that arrived.

    Args:
        offers: by id.
        copies: that arrived anywhere.
        faults: times of the faults, seconds since the epoch.
        window: seconds before a fault in which a reply to a final dot may not have been recorded;
            a first copy before that does not explain a second one.
        failed: (id, recipient) that were returned to the sender.
    """
    verdict = Verdict(
        offered=len(offers),
        acked=sum(offer.acked for offer in offers.values()),
        refused=sum(offer.answered and not offer.acked for offer in offers.values()),
        unanswered=sum(not offer.answered for offer in offers.values()),
        arrived=len(copies),
        failed=list(failed),
        lost=outstanding(offers, copies, failed),
    )
    first: dict[tuple[str, str], Copy] = {}
    for copy in sorted(copies, key=lambda copy: copy.time):
        offer = offers.get(copy.name)
        if offer is None or copy.digest != offer.digest or copy.recipient not in offer.recipients:
            verdict.corrupt.append(copy)
            continue
        verdict.in_flight += any(0 <= fault - copy.time <= window for fault in faults)
        before = first.setdefault((copy.name, copy.recipient), copy)
        if before is copy:
            continue
        lags = [fault - before.time for fault in faults if before.time <= fault <= copy.time]
        if lags and lags[0] <= window:
            verdict.explained.append(copy)
            verdict.lag = max(verdict.lag, lags[0])
        else:
            verdict.unexplained.append(copy)
        first[copy.name, copy.recipient] = copy
    return verdict
