"""Let another program filter all mail between two queues.

    python after_queue_filter.py DOMAIN [PORT [FILTER-PORT [BACK-PORT]]]

Mail comes in at port 2525, and goes from the first queue to the filter, which speaks SMTP at port
10025. The filter sends it on to port 10026: there the second agent takes it, and delivers it. It
knows no route to the filter, so nothing is filtered twice. While the filter is down, mail waits in
the first queue. A filter that speaks LMTP takes ``lmtp://`` in the route.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.application.service import MultiService
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_mta import Config, Listener, MailTransferAgent


def make_service(
    reactor: Any,
    domains: list[str],
    *,
    outside: str,
    to_filter: str,
    from_filter: str,
    directory: str = ".",
) -> MultiService:
    """Return both agents as one service.

    Args:
        reactor: for both.
        domains: whose mail is delivered here.
        outside: the endpoint for all clients.
        to_filter: the route to the filter.
        from_filter: the endpoint for the filter: other programs must not reach it.
        directory: has the state of both, and the Maildirs.
    """
    before = Config(
        state_dir=f"{directory}/before-filter",
        local_domains=domains,
        listeners=[Listener(endpoint=outside)],
        # A route for all applies to no domain of ours, so each has one of its own.
        routes={"*": to_filter, **dict.fromkeys(domains, to_filter)},
    )
    behind = Config(
        state_dir=f"{directory}/behind-filter",
        local_domains=domains,
        maildir=f"{directory}/maildir",
        # The filter is on this machine, and may send anywhere: `relay_from` has loopback.
        listeners=[Listener(endpoint=from_filter)],
    )
    service = MultiService()
    for config in (behind, before):
        MailTransferAgent(config, reactor=reactor).setServiceParent(service)
    return service


def main(domain: str, port: str = "2525", filter_: str = "10025", back: str = "10026") -> None:
    """Serve until a signal ends it."""
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    service = make_service(
        reactor,
        [domain],
        outside=f"tcp:{port}:interface=127.0.0.1",
        to_filter=f"smtp://127.0.0.1:{filter_}",
        from_filter=f"tcp:{back}:interface=127.0.0.1",
    )
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
