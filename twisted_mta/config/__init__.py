"""The configuration: every setting of a mail transfer agent as one frozen value, `Config`.

It is loaded once from options and a TOML file (`load`), or made in Python; checked whole before
anything starts; then handed down by constructor arguments.
"""

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
    "load",
]
