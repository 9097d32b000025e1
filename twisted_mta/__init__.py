"""twisted-mta: a complete mail transfer agent on Twisted."""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # that of `typing`, which takes longer to load than a message to send
if TYPE_CHECKING:
    from .admin.application_queue import QueueUnavailable
    from .attachment import Attachment, attachments
    from .config import Config, Destination, Listener
    from .delivery.application_delivery import ApplicationDelivery, QueuedMessage
    from .mail.events import (
        Accepted,
        Bounced,
        Deferred,
        Delivered,
        Expired,
        Held,
        MailEvent,
        Removed,
    )
    from .mail.reply import Reply
    from .policy.answers import Mark, Quarantine, Rewrite
    from .policy.protocol import Policy
    from .sending.errors import (
        AuthFailed,
        ConnectionFailed,
        SendError,
        SessionRefused,
        TLSFailed,
    )
    from .sending.sendmail import SendResult, sendmail
    from .server.application_mail import LimitReached, Receipt, SubmissionRefused
    from .server.esmtp_factory import ESMTPFactory, LMTPFactory
    from .service import MailTransferAgent

__all__ = [
    "Accepted",
    "ApplicationDelivery",
    "Attachment",
    "AuthFailed",
    "Bounced",
    "Config",
    "ConnectionFailed",
    "Deferred",
    "Delivered",
    "Destination",
    "ESMTPFactory",
    "Expired",
    "Held",
    "LMTPFactory",
    "LimitReached",
    "Listener",
    "MailEvent",
    "MailTransferAgent",
    "Mark",
    "Policy",
    "Quarantine",
    "QueueUnavailable",
    "QueuedMessage",
    "Receipt",
    "Removed",
    "Reply",
    "Rewrite",
    "SendError",
    "SendResult",
    "SessionRefused",
    "SubmissionRefused",
    "TLSFailed",
    "__version__",
    "attachments",
    "sendmail",
]

_MODULES = {
    "Accepted": "mail.events",
    "ApplicationDelivery": "delivery.application_delivery",
    "Attachment": "attachment",
    "AuthFailed": "sending.errors",
    "Bounced": "mail.events",
    "Config": "config",
    "ConnectionFailed": "sending.errors",
    "Deferred": "mail.events",
    "Delivered": "mail.events",
    "Destination": "config",
    "ESMTPFactory": "server.esmtp_factory",
    "Expired": "mail.events",
    "Held": "mail.events",
    "LMTPFactory": "server.esmtp_factory",
    "Listener": "config",
    "MailEvent": "mail.events",
    "MailTransferAgent": "service",
    "Mark": "policy.answers",
    "Policy": "policy.protocol",
    "Quarantine": "policy.answers",
    "QueuedMessage": "delivery.application_delivery",
    "QueueUnavailable": "admin.application_queue",
    "Receipt": "server.application_mail",
    "Removed": "mail.events",
    "Reply": "mail.reply",
    "Rewrite": "policy.answers",
    "SendError": "sending.errors",
    "SendResult": "sending.sendmail",
    "SessionRefused": "sending.errors",
    "LimitReached": "server.application_mail",
    "SubmissionRefused": "server.application_mail",
    "TLSFailed": "sending.errors",
    "attachments": "attachment",
    "sendmail": "sending.sendmail",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): the operator's tool needs none."""
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
