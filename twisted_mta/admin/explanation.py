"""The question why a message is still in the queue, or where mail for an address would go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred

from ..agent.explain.explainer import AddressQuery, Explainer, read_mailbox
from ..mail.address import AddressError
from ..mail.printable import printable
from ..mail.queue_id import QueueId

ExplainQuery = Mapping[str, str | None]
"""``id``; or ``address``, ``client``, ``sender``, ``helo`` (`AddressQuery`). JSON, for a pipe."""


def explain_query(
    text: str, *, client: str | None = None, sender: str | None = None, helo: str | None = None
) -> ExplainQuery:
    """Read the query of an operator.

    Args:
        text: a queue id, or an address.
        client: the address of a client that sends mail to it.
        sender: the reverse-path of that mail; empty or ``<>``: the null one.
        helo: the name in the greeting of that client.

    Raises:
        ValueError: one of them cannot be read; which, and why, printable.
    """
    if "@" not in text and text.lower() not in ("postmaster", "<postmaster>"):
        try:
            return {"id": str(QueueId.parse(text))}
        except ValueError:
            raise ValueError(
                f"neither a queue id nor an address: {printable(text)}; expected one like"
                " 1M81ARNJN5BHJ or ann@example.net"
            ) from None
    if sender in ("", "<>"):
        sender = None
    for address in (text, sender):
        if address is not None:
            try:
                read_mailbox(address)
            except AddressError as error:
                raise ValueError(f"not an address: {printable(address)}: {error}") from None
    if client is not None:
        try:
            client = str(ip_address(client))
        except ValueError:
            raise ValueError(
                f"not the address of a client: {printable(client)}; expected one like 192.0.2.1"
                " or 2001:db8::1"
            ) from None
    if helo is not None and client is None:
        raise ValueError("a greeting without a client; expected the address of the client too")
    return {"address": text, "client": client, "sender": sender, "helo": helo}


def explanation(explainer: Explainer, query: ExplainQuery) -> Deferred[dict[str, Any] | None]:
    """Return the answer of one process; None where it does not have the message."""
    id = query.get("id")
    if id is not None:
        return explainer.message(QueueId.parse(id))
    address = AddressQuery(
        address=query["address"] or "",
        client=query.get("client"),
        sender=query.get("sender"),
        helo=query.get("helo"),
    )
    return explainer.address(address)  # type: ignore[return-value]


def merged_explanations(
    answers: Sequence[tuple[int, dict[str, Any] | None]],
) -> dict[str, Any] | None:
    """Return the answers of several workers as one.

    A message is in one of them; of a queue that they share, the worker where a recipient waits
    knows why. About an address all say the same, except for the state of its next hops, which each
    worker has by itself.

    Args:
        answers: each with the number of the worker.
    """
    explanations = []
    for number, answer in answers:
        if answer is None:
            continue
        explanations.append(answer)
        for way in _ways(answer):
            for next_hop_status in way.get("standings", ()):
                next_hop_status["worker"] = number
    if not explanations:
        return None
    first, *others = explanations
    if "id" in first:
        return {**first, "recipients": _best_known(explanations)}
    for other in others:
        for way, same in zip(_ways(first), _ways(other), strict=False):
            if way["next_hop"] == same["next_hop"] and "standings" in way:
                way["standings"] += same.get("standings", ())
    return first


def _best_known(explanations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the recipients of a message, each from a worker that does not take it as in delivery.

    A recipient that is in delivery is so for all of them.
    """
    found: dict[int, dict[str, Any]] = {}
    for explanation in explanations:
        for recipient in explanation["recipients"]:
            known = found.setdefault(recipient["number"], recipient)
            if _in_delivery(known) and not _in_delivery(recipient):
                found[recipient["number"]] = recipient
    return [found[number] for number in sorted(found)]


def _in_delivery(recipient: dict[str, Any]) -> bool:
    return any(hold["kind"] == "delivery" for hold in recipient["holds"])


def _ways(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["way"] for each in answer["recipients"] if each["way"] is not None]
