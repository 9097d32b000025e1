"""An application that submits mail to an agent with two workers, and kills them.

    python -m tests.applications.with_workers STATE-DIRECTORY

It prints what it has seen as one JSON object.
"""

import json
import os
import signal
import sys
from collections import Counter
from email.message import EmailMessage
from typing import Any

from twisted.internet import reactor  # noqa: TID251 - an application has one
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import react

from twisted_mta import Config, MailEvent, MailTransferAgent, SubmissionRefused
from twisted_mta.config import Listener

ATTACHED = bytes(range(256)) * 8192


def attachment() -> EmailMessage:
    """Return a message with an attachment of 2 MiB."""
    message = EmailMessage()
    message["From"] = "app@localhost"
    message["Subject"] = "attachment"
    message.set_content("See below.\n")
    message.add_attachment(ATTACHED, maintype="application", subtype="octet-stream", filename="x")
    return message


def pause(seconds: float) -> Deferred[None]:
    """Return a Deferred that fires later."""
    paused: Deferred[None] = Deferred()
    reactor.callLater(seconds, paused.callback, None)  # type: ignore[attr-defined]
    return paused


class Application:
    """The application."""

    def __init__(self, state: str) -> None:
        self.events: list[MailEvent] = []
        self.seen: dict[str, Any] = {}
        self.agent = MailTransferAgent(
            Config(
                hostname="mta.example",
                state_dir=state,
                local_domains=["localhost"],
                recipients="any",
                listeners=[Listener(endpoint="tcp:0:interface=127.0.0.1")],
                routes=[("*", "smtp://127.0.0.1:1")],  # no server listens there
                workers=2,
            ),
            reactor=reactor,
        )

    async def pids(self) -> list[int]:
        """Return the processes of both workers, once they work."""
        while True:
            processes = (await self.agent.status()).processes
            if all(each.state == "ready" for each in processes):
                return [each.pid for each in processes]
            await pause(0.05)

    async def submit(self, message: Any, recipient: str, **more: Any) -> str:
        """Submit a message; return its id."""
        receipt = await self.agent.submit(
            message, sender="app@localhost", recipients=[recipient], **more
        )
        return receipt.id

    async def run(self) -> None:
        """Do everything."""
        agent, seen = self.agent, self.seen
        agent.startService()
        early = self.submit(b"Subject: early\n\n", "early@localhost")
        seen["early"] = await self.outcome(await early)
        agent.subscribe(self.events.append)
        seen["ports"] = list(agent.ports)
        id = await self.submit(attachment(), "bob@localhost")
        seen["attachment"] = await self.outcome(id)
        seen["late"] = await self.outcome(id)
        seen["events"] = [type(each).__name__ for each in self.events if each.id == id]
        await self.steer()
        await self.take_over()
        await self.survive()
        await agent.when_idle()
        seen["left"] = await agent.queue.list()
        waiting = agent.outcome(await self.submit(b"Subject: stop\n\n", "ann@far.example"))
        await agent.stopService()
        seen["stopped"] = await waiting.addErrback(lambda failure: failure.type.__name__)

    async def outcome(self, id: str) -> list[str]:
        """Return the outcome of each recipient of a message."""
        return [type(each).__name__ for each in (await self.agent.outcome(id)).values()]

    async def steer(self) -> None:
        """Hold, list, release, retry and remove."""
        queue = self.agent.queue
        id = await self.submit(b"Subject: far\n\n", "ann@far.example")
        await self.agent.when_idle()
        held = await queue.hold(id)
        listed = await queue.list(state="held")
        await queue.release(id)
        await queue.retry(id)
        await self.agent.when_idle()
        await queue.remove(id)
        self.seen["steered"] = [
            held["recipients"],
            [each["id"] for each in listed] == [id],
            await self.outcome(id),
        ]
        kinds = [type(each).__name__ for each in self.events if each.id == id]
        self.seen["steps"] = list(dict.fromkeys(kinds))

    async def take_over(self) -> None:
        """Kill the workers while they have mail of the application."""
        ids = [await self.submit(b"Subject: far\n\n", "ann@far.example") for _ in range(4)]
        waiting = [self.outcome(id) for id in ids]
        for pid in await self.pids():
            os.kill(pid, signal.SIGKILL)
        await self.pids()
        await self.agent.queue.remove(*ids)
        self.seen["taken over"] = [await each for each in waiting]

    async def survive(self) -> None:
        """Submit while workers are killed."""
        fates: Counter[str] = Counter()
        kept: list[str] = []
        refused: list[str] = []

        async def one(name: str) -> None:
            try:
                id = await self.submit(f"Subject: {name}\n\n".encode() + b"x\n" * 60_000, name)
            except SubmissionRefused as error:
                fates[str(error.reply.code)] += 1
                refused.append(name)
            else:
                kept.append(name)
                fates.update(await self.outcome(id))

        for turn in range(3):
            pids = await self.pids()
            names = [f"u{turn}-{number}@localhost" for number in range(12)]
            running = [Deferred.fromCoroutine(one(name)) for name in names]
            await pause(0.02 * turn)
            os.kill(pids[turn % 2], signal.SIGKILL)
            for done, result in await DeferredList(running, consumeErrors=True):
                if not done:
                    raise result.value
        self.seen.update(fates=fates, kept=sorted(kept), refused=sorted(refused))


async def main(_: Any, state: str) -> None:
    """Run the application to its end."""
    application = Application(state)
    await application.run()
    print(json.dumps(application.seen))


if __name__ == "__main__":
    react(main, sys.argv[1:])
