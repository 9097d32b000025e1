"""Every setting of a mail transfer agent, as one frozen value: `Config`.

Read once, from options and a TOML file (`load`) or from Python, checked whole before anything
starts, then handed down by constructor arguments.
"""

from .certificates import RelayCertificate, SNICertificate
from .destination import Destination, Rate
from .file import load, load_leniently, option_settings
from .listener import Listener
from .setting import ConfigError, Setting, settings_of
from .values import Config, DeliverySettings, DNSSettings, LogSettings, QueueSettings

__all__ = [
    "Config",
    "ConfigError",
    "DNSSettings",
    "DeliverySettings",
    "Destination",
    "Listener",
    "LogSettings",
    "QueueSettings",
    "Rate",
    "RelayCertificate",
    "SNICertificate",
    "Setting",
    "load",
    "load_leniently",
    "option_settings",
    "settings_of",
]
