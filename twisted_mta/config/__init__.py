"""The configuration: every setting of a mail transfer agent as one frozen value, `Config`.

It is loaded once from options and a TOML file (`load`), or made in Python; checked whole before
anything starts; then handed down by constructor arguments.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .account_limits import AccountLimit, AccountLimits
    from .acme import ACMESettings
    from .amounts import Rate
    from .certificates import RelayCertificate, SNICertificate
    from .config import Config
    from .destination import Destination
    from .dkim import DKIMKey
    from .dnsbl import DNSBL
    from .feedback import FeedbackSettings
    from .listener import Listener
    from .loading import load
    from .milter import MilterSettings
    from .mta_sts import MTASTSSettings
    from .policy import PolicySettings
    from .policy_service import PolicyServiceSettings
    from .reply_action import ReplyAction
    from .setting import ConfigError
    from .source_pool import SourceAddress, SourcePool
    from .suppression import SuppressionSettings
    from .tables import (
        DeliverySettings,
        DNSSettings,
        GreylistSettings,
        LogSettings,
        QueueSettings,
        TLSReportSettings,
        WebSettings,
    )
    from .webhook import WebhookSettings

__all__ = [
    "DNSBL",
    "ACMESettings",
    "AccountLimit",
    "AccountLimits",
    "Config",
    "ConfigError",
    "DKIMKey",
    "DNSSettings",
    "DeliverySettings",
    "Destination",
    "FeedbackSettings",
    "GreylistSettings",
    "Listener",
    "LogSettings",
    "MTASTSSettings",
    "MilterSettings",
    "PolicyServiceSettings",
    "PolicySettings",
    "QueueSettings",
    "Rate",
    "RelayCertificate",
    "ReplyAction",
    "SNICertificate",
    "SourceAddress",
    "SourcePool",
    "SuppressionSettings",
    "TLSReportSettings",
    "WebSettings",
    "WebhookSettings",
    "load",
]

_MODULES = {
    "DNSBL": "dnsbl",
    "ACMESettings": "acme",
    "AccountLimit": "account_limits",
    "AccountLimits": "account_limits",
    "Config": "config",
    "ConfigError": "setting",
    "DKIMKey": "dkim",
    "DNSSettings": "tables",
    "DeliverySettings": "tables",
    "Destination": "destination",
    "FeedbackSettings": "feedback",
    "GreylistSettings": "tables",
    "Listener": "listener",
    "LogSettings": "tables",
    "MTASTSSettings": "mta_sts",
    "MilterSettings": "milter",
    "PolicyServiceSettings": "policy_service",
    "PolicySettings": "policy",
    "QueueSettings": "tables",
    "Rate": "amounts",
    "RelayCertificate": "certificates",
    "ReplyAction": "reply_action",
    "SNICertificate": "certificates",
    "SourceAddress": "source_pool",
    "SourcePool": "source_pool",
    "SuppressionSettings": "suppression",
    "TLSReportSettings": "tables",
    "WebSettings": "tables",
    "WebhookSettings": "webhook",
    "load": "loading",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562): the tool needs few of the settings."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value
