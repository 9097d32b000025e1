"""A logger for the lines of the log that every message has."""

from __future__ import annotations

from time import time  # noqa: TID251 - the time of a line, as Twisted's logger reads it
from typing import Any

from twisted.logger import Logger, LogLevel

_INFO = LogLevel.info


class LineLogger(Logger):
    """A `Logger` whose `info` takes a third of the time of Twisted's; otherwise the same.

    Twisted's makes a new logger each time that the attribute is read, for the instance that reads
    it, and compares the level with all others. This one stands for the class alone: its events have
    no ``log_source``.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.namespace = f"{owner.__module__}.{owner.__name__}"

    def __get__(self, instance: object, owner: type | None = None) -> LineLogger:
        return self

    def info(self, format: str | None = None, **fields: Any) -> None:
        """Emit an event of level ``info`` (`Logger.info`)."""
        fields["log_logger"] = self
        fields["log_level"] = _INFO
        fields["log_namespace"] = self.namespace
        fields["log_source"] = None
        fields["log_format"] = format
        fields["log_time"] = time()
        self.observer(fields)
