"""An application that embeds a mail transfer agent on its own reactor.

    python -m tests.applications.embedding STATE-DIRECTORY NEXT-HOP-PORT

It prints ``ready`` with the port of its listener, and ``beat`` every tenth of a second by a timer
of its own, which the wall clock may stop.
"""

import sys

from twisted.internet import reactor  # noqa: TID251 - an application has one
from twisted.internet.task import LoopingCall

from twisted_mta import Config, MailTransferAgent
from twisted_mta.config import Listener


def main() -> None:
    """Run until a signal ends it."""
    state, port = sys.argv[1:]
    config = Config(
        hostname="mta.example",
        state_dir=state,
        local_domains=["localhost"],
        listeners=[Listener(endpoint="tcp:0:interface=127.0.0.1")],
        routes=[("*", f"smtp://127.0.0.1:{port}")],
    )
    agent = MailTransferAgent(config, reactor=reactor)
    agent.when_ready().addCallback(
        lambda _: print("ready", agent.bound[0].address.port, flush=True)
    )
    agent.startService()
    LoopingCall(print, "beat", flush=True).start(0.1)
    reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
    reactor.run()


if __name__ == "__main__":
    main()
