"""The catalog of settings: each by its table and key in the file, and by its option."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import AttrsInstance, frozen

from .account_limits import AccountLimit, AccountLimits
from .acme import ACMESettings
from .config import DEFAULT_SMTP, Config
from .destination import Destination
from .dkim import DKIMKey
from .dnsbl import DNSBL
from .endpoint import endpoints
from .feedback import FeedbackSettings
from .listener import Listener
from .milter import MilterSettings
from .mta_sts import MTASTSSettings
from .policy import PolicySettings
from .policy_service import PolicyServiceSettings
from .reply_action import ReplyAction
from .setting import Setting, settings_of
from .source_pool import SourcePool
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

TABLES: Mapping[str, type[AttrsInstance]] = {
    "mta": Config,
    "listener": Listener,
    "queue": QueueSettings,
    "delivery": DeliverySettings,
    "destination": Destination,
    "source_pool": SourcePool,
    "reply_action": ReplyAction,
    "dns": DNSSettings,
    "log": LogSettings,
    "web": WebSettings,
    "policy": PolicySettings,
    "mta_sts": MTASTSSettings,
    "dkim": DKIMKey,
    "dnsbl": DNSBL,
    "greylist": GreylistSettings,
    "milter": MilterSettings,
    "policy_service": PolicyServiceSettings,
    "webhook": WebhookSettings,
    "tls_report": TLSReportSettings,
    "suppression": SuppressionSettings,
    "feedback": FeedbackSettings,
    "account_limits": AccountLimits,
    "account_limit": AccountLimit,
    "acme": ACMESettings,
}
"""The classes of the file's tables."""


def _such(key: str, example: str) -> Mapping[str, str]:
    return {key: f'one such as {key} = "{example}"'}


REPEATED: Mapping[str, Mapping[str, str]] = {
    "listener": _such("endpoint", DEFAULT_SMTP),
    "destination": _such("domain", "example.net"),
    "source_pool": {
        **_such("name", "bulk"),
        "address": "its addresses, each below a line [[source_pool.address]]",
    },
    "reply_action": _such("action", "suspend"),
    "dkim": {
        **_such("domain", "example.net"),
        **_such("selector", "s2026"),
        **_such("key", "/etc/mta/s2026.pem"),
    },
    "dnsbl": _such("zone", "zen.example.org"),
    "milter": _such("endpoint", "unix:/run/rspamd/milter.sock"),
    "account_limit": _such("account", "newsletter"),
    "policy_service": _such("endpoint", "unix:/run/postgrey.sock"),
    "webhook": {
        **_such("url", "https://app.example.net/mail-events"),
        **_such("secret_file", "/etc/mta/webhook.secret"),
    },
}
"""The tables that may be repeated: the keys that each must have, with what is expected."""

INSTEAD: Mapping[str, Mapping[str, str]] = {"destination": {"domain": "exchanger"}}
"""By table, for keys that it must have: the key that may stand there instead."""


SWITCHES = ("tls_report", "greylist", "suppression", "feedback", "acme")
"""The tables that turn something on by being there, even without a key."""


def _endpoints(doc: str, kind: str) -> Setting:
    return Setting(doc, endpoints, "none", option=kind, metavar="ENDPOINT", repeatable=True)


LISTENER_KINDS: Mapping[str, Setting] = {
    "submission": _endpoints(
        "where to listen for mail of our own users, with AUTH, under STARTTLS (RFC 6409): an"
        " endpoint string, or off",
        "submission",
    ),
    "submissions": _endpoints(
        "the same under implicit TLS (RFC 8314): an endpoint string, or off", "submissions"
    ),
    "lmtp": _endpoints(
        "where to listen for LMTP, for mail to local mailboxes (RFC 2033): an endpoint string, or"
        " off",
        "lmtp",
    ),
    "local_submission": _endpoints(
        "where to listen for mail of this machine's users and their programs, which"
        " twisted-mta-sendmail hands over: a UNIX socket such as unix:/run/mta/submission.sock, or"
        " off",
        "local-submission",
    ),
}
"""Settings of ``[mta]`` that make listeners of a kind other than smtp, by the kind."""


@frozen
class Entry:
    """A setting, and the field of a class that holds its value.

    Attributes:
        cls: the class.
        field: the field's name.
        setting: the setting.
    """

    cls: type[AttrsInstance]
    field: str
    setting: Setting


def _entries() -> dict[str, dict[str, Entry]]:
    tables: dict[str, dict[str, Entry]] = {table: {} for table in TABLES}
    for table, cls in TABLES.items():
        for name, setting in settings_of(cls).items():
            entry = Entry(cls, name, setting)
            tables[setting.table or table][setting.key or name] = entry
            if setting.common:
                tables["mta"][name] = entry
    for kind, setting in LISTENER_KINDS.items():
        tables["mta"][kind] = Entry(Config, kind, setting)
    return tables


BY_TABLE: Mapping[str, Mapping[str, Entry]] = _entries()
"""Every setting by table of the file, then by key."""

BY_OPTION: Mapping[str, Entry] = {
    entry.setting.option: entry
    for keys in BY_TABLE.values()
    for entry in keys.values()
    if entry.setting.option
}
"""Every setting that has an option, by the option's name without dashes."""
