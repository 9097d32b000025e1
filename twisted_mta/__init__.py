"""twisted-mta: a complete mail transfer agent on Twisted."""

__version__ = "0.1.0"

from .config import Config
from .server.factory import ESMTPFactory, LMTPFactory
from .service import MailTransferAgent

__all__ = ["Config", "ESMTPFactory", "LMTPFactory", "MailTransferAgent"]
