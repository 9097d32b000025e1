"""Adapt a message to one server: 7-bit content, fields of ours, the time left to deliver it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from ..mail.message import Message
from ..message.delivery_fields import junk_fields
from ..message.mime.conversion import converted
from ..message.received import without_utf8_recipient
from ..message.trace import with_fields
from ..smtp.extension.deliverby import DeliverBy


def adapted(
    message: Message,
    capabilities: Mapping[str, str],
    *,
    now: float,
    final: bool,
    protects: bool = False,
) -> Message:
    """Return ``message`` as a server with these capabilities takes it.

    Args:
        message: as it is in the queue.
        capabilities: the extensions that the server announced, with their parameters.
        now: seconds since the epoch.
        final: whether the server delivers itself and never relays (LMTP).
        protects: whether REQUIRETLS stays with the message; else it goes on without.
    """
    if message.envelope.requires_tls and not protects:
        # RFC 8689 §5: a notice is not lost for want of REQUIRETLS.
        kept = message.envelope.parameters.items()
        parameters = {key: value for key, value in kept if key != "REQUIRETLS"}
        message = evolve(message, envelope=evolve(message.envelope, parameters=parameters))
    if not message.trace.isascii() and "SMTPUTF8" not in capabilities:
        message = evolve(message, trace=without_utf8_recipient(message.trace))
    if message.assessment.quarantine:
        flag = junk_fields(message.assessment.quarantine)
        message = evolve(message, trace=with_fields(message.trace, flag))
    by = DeliverBy.of(message.envelope.parameters)
    if by is None:
        return message
    # RFC 2852 §4: the time is sent on less the time spent here.
    parameters = {**message.envelope.parameters, "BY": str(by.moved(-now))}
    if final and "DELIVERBY" not in capabilities and by.seconds > now:
        del parameters["BY"]  # delivered in time, as the sender asked
    return evolve(message, envelope=evolve(message.envelope, parameters=parameters))


def seven_bit(message: Message, raw_headers: bool = False) -> Message:
    """Return ``message`` with a content of 7 bits whose size is known. Blocks.

    Args:
        message: with a content of 8 bits, or a binary one.
        raw_headers: whether octets over 127 in header fields stay as they are.

    Raises:
        CannotConvert: the content has no 7-bit form.
        OSError: the body file cannot be read.
    """
    made = converted(message, raw_headers=raw_headers)
    made.body.size  # noqa: B018  (counting reads the content: here, and not in the reactor)
    return made
