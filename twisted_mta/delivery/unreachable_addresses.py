"""A message as one server gets it: what depends on who that is, and on the time it is said."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from ..mail.message import Message
from ..message.trace import in_ascii
from ..smtp.extension.deliverby import DeliverBy


def prepared(
    message: Message, capabilities: Mapping[str, str], *, now: float, final: bool
) -> Message:
    """Return ``message`` for a server.

    Args:
        message: as it is in the queue.
        capabilities: what the server has announced.
        now: wall time.
        final: whether the server delivers, and relays to nobody.
    """
    if not message.trace.isascii() and "SMTPUTF8" not in capabilities:
        message = evolve(message, trace=in_ascii(message.trace))
    by = DeliverBy.of(message.envelope.parameters)
    if by is None:
        return message
    parameters = {**message.envelope.parameters, "BY": str(by.moved(-now))}
    if final and "DELIVERBY" not in capabilities and by.seconds > now:
        del parameters["BY"]  # delivering it now is what was asked for
    return evolve(message, envelope=evolve(message.envelope, parameters=parameters))
