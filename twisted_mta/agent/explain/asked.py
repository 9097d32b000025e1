"""What is asked for, and the answers of several processes as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred

from ...mail.address import AddressError
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from .explainer import Explainer, Question, read_mailbox

Wanted = Mapping[str, str | None]
"""``id``; or ``address``, ``client`` and ``sender``. JSON, so that it goes through a pipe."""


def wanted(what: str, *, client: str | None = None, sender: str | None = None) -> Wanted:
    """Return what is asked for.

    Args:
        what: a queue id, or an address.
        client: the address of a client who would send there.
        sender: the reverse-path of its mail.

    Raises:
        ValueError: something is neither; which, and why, printable.
    """
    if "@" not in what and what.lower() not in ("postmaster", "<postmaster>"):
        try:
            return {"id": str(QueueId.parse(what))}
        except ValueError:
            raise ValueError(
                f"neither a queue id nor an address: {printable(what)}; 1M81ARNJN5BHJ or"
                " ann@example.net would do"
            ) from None
    for text in (what, sender):
        if text is not None:
            try:
                read_mailbox(text)
            except AddressError as error:
                raise ValueError(f"not an address: {printable(text)}: {error}") from None
    if client is not None:
        try:
            client = str(ip_address(client))
        except ValueError:
            raise ValueError(
                f"not the address of a client: {printable(client)}; 192.0.2.1 or 2001:db8::1"
                " would do"
            ) from None
    return {"address": what, "client": client, "sender": sender}


def answered(explainer: Explainer, wanted: Wanted) -> Deferred[dict[str, Any] | None]:
    """Return the answer of one process; None where it knows of no such message."""
    id = wanted.get("id")
    if id is not None:
        return explainer.message(QueueId.parse(id))
    question = Question(
        address=wanted["address"] or "", client=wanted.get("client"), sender=wanted.get("sender")
    )
    return explainer.address(question)  # type: ignore[return-value]


def merged(answers: Sequence[tuple[int, dict[str, Any] | None]]) -> dict[str, Any] | None:
    """Return the answers of several processes as one.

    A message is in one of them. Of an address all know the same, but each has a mind of its own
    about how next hops stand.

    Args:
        answers: with the number of the worker.
    """
    found = [(number, answer) for number, answer in answers if answer is not None]
    for number, answer in found:
        for way in _ways(answer):
            for standing in way.get("standings", ()):
                standing["worker"] = number
    if not found:
        return None
    first = found[0][1]
    if "id" not in first:
        for _, other in found[1:]:
            for way, same in zip(_ways(first), _ways(other), strict=False):
                if way["next_hop"] == same["next_hop"] and "standings" in way:
                    way["standings"] += same.get("standings", ())
    return first


def _ways(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [each["way"] for each in answer["recipients"] if each["way"] is not None]
