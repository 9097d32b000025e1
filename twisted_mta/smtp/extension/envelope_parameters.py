"""The parameters of MAIL that outlive the session, in terms that mean the same at any time."""

from __future__ import annotations

from ...mail.envelope import Parameters
from ...mail.reply import Reply
from . import futurerelease
from .deliverby import DeliverBy
from .mtpriority import lowered
from .requiretls import NEEDS_TLS


def reply_to_mail(
    parameters: Parameters, *, now: float, trusted: bool, under_tls: bool = False
) -> Reply | None:
    """Return the reply to MAIL that its parameters demand; None for the usual reply.

    Args:
        parameters: of MAIL, as their readers left them.
        now: wall time, in seconds since the epoch.
        trusted: whether the client may relay, and raise the priority of its mail.
        under_tls: whether the session is under TLS.
    """
    if "REQUIRETLS" in parameters and not under_tls:
        return NEEDS_TLS
    if "HOLDFOR" in parameters and "HOLDUNTIL" in parameters:  # RFC 4865 §4
        return futurerelease.BOTH
    held, by = futurerelease.held_until(parameters, now), DeliverBy.of(parameters)
    if held is not None and by is not None and held >= int(now) + by.seconds:
        return futurerelease.TOO_LATE
    if int(parameters.get("MT-PRIORITY") or 0) > 0 and not trusted:
        return lowered(0)
    return None


def envelope_parameters(
    parameters: Parameters, *, now: float, trusted: bool
) -> dict[str, str | int | None]:
    """Return the parameters for the envelope; for the arguments see `reply_to_mail`."""
    if not parameters:
        return {}
    # SIZE is about this transaction alone. The submitter that AUTH names is believed of no client
    # (RFC 4954 §5).
    kept = {key: value for key, value in parameters.items() if key not in ("SIZE", "AUTH")}
    if "MT-PRIORITY" in kept:
        priority = int(kept.pop("MT-PRIORITY") or 0)
        if priority < 0 or (priority > 0 and trusted):
            kept["MT-PRIORITY"] = priority
    held = futurerelease.held_until(kept, now)
    if held is not None:
        kept.pop("HOLDFOR", None)
        kept["HOLDUNTIL"] = held
    by = DeliverBy.of(kept)
    if by is not None:
        kept["BY"] = str(by.moved(now))
    return kept
