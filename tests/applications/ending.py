"""An application that holds an agent, and never stops it.

    python -m tests.applications.ending STATE-DIRECTORY WORKERS HOW

HOW it ends: ``signal`` waits for one; ``stop`` and ``crash`` are methods of the reactor; ``exit``
is before the reactor runs. It prints ``submitted`` when its message is in the queue.
"""

import sys

from twisted.internet import reactor  # noqa: TID251 - an application has one

from twisted_mta import Config, MailTransferAgent


def main() -> None:
    """Submit a message, and end."""
    state, workers, how = sys.argv[1:]
    config = Config(
        hostname="mta.example",
        state_dir=state,
        workers=int(workers),
        routes={"*": "smtp://127.0.0.1:1"},
    )
    agent = MailTransferAgent(config, reactor=reactor)
    agent.startService()

    def submitted(_: object) -> None:
        print("submitted", flush=True)
        if how in ("stop", "crash"):
            getattr(reactor, how)()

    message = b"Subject: Hi\r\n\r\n" + 10_000 * b"A long message has a file of its own.\r\n"
    submitting = agent.submit(message, sender="ann@mta.example", recipients=["bob@away.example"])
    submitting.addCallback(submitted)
    if how == "exit":
        sys.exit(3)
    reactor.run()


if __name__ == "__main__":
    main()
