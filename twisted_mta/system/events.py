"""Events of descriptors, without Twisted's log context.

Twisted's reactors tell `twisted.python.log` the connection of each event, by a new dictionary and
eight calls, a twentieth of the time of a small message. Only lines of that older API show it, as
their ``system``, and we write none. The reactors of our own processes do without it
(`skip_log_context`); that of an application that embeds the mail transfer agent is not changed.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

from twisted.logger import Logger

_log = Logger()
_READABLE = getattr(select, "EPOLLIN", 0)


def skip_log_context(reactor: Any) -> None:
    """Have the reactor of our own process handle events without a log context.

    Reactors other than that of ``epoll``, which is Twisted's choice on Linux, stay as they are.
    """
    # Importing the reactor's module on another system would fail.
    module = sys.modules.get("twisted.internet.epollreactor")
    if module is not None and isinstance(reactor, module.EPollReactor):
        reactor.doIteration = MethodType(_iterate, reactor)


def _iterate(reactor: Any, timeout: float | None) -> None:
    """Wait for events, and handle them: `EPollReactor.doPoll` without the context."""
    selectables = reactor._selectables
    waits = -1 if timeout is None else timeout
    for descriptor, event in reactor._poller.poll(waits, len(selectables)):
        selectable = selectables.get(descriptor)
        if selectable is None:  # an event before has closed it
            continue
        if event != _READABLE:
            _call(reactor._doReadOrWrite, selectable, descriptor, event)
            continue
        try:
            why = selectable.doRead()
        except BaseException as error:  # also of a task that was cancelled, as Twisted does
            _log.failure("a connection failed at what it has read")
            why = error
        if why:
            _call(reactor._disconnectSelectable, selectable, why, True)


def _call(function: Callable[..., object], *arguments: object) -> None:
    try:
        function(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException:  # of one connection, which does not affect the others
        _log.failure("an event of a connection could not be handled")
