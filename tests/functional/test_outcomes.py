"""Outcomes of an application's mail in a queue in PostgreSQL that another machine shares."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from .hop import Hop
from .machine import LOOPBACK, eventually
from .mail import ProgramTestCase
from .mta import MTA
from .postgresql import PostgreSQL
from .program import Program

_COUNT = 60  # every second message is held

_APPLICATION = """
import json, sys, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted_mta import Config, MailTransferAgent
from twisted_mta.config import QueueSettings

database, state, hop, workers, count = sys.argv[1:]
agent = MailTransferAgent(
    Config(
        hostname="application.example",
        state_dir=state,
        queue=QueueSettings(url=database, retry_minimum=1.0, retry_maximum=1.0),
        routes={"relay.example": f"smtp://127.0.0.1:{hop}"},
        listeners=[],
        workers=int(workers),
    ),
    reactor=reactor,
)

def say(**values):
    print("said", json.dumps(values), flush=True)

async def wait(number, id):
    try:
        outcome = await agent.outcome(id)
    except LookupError as error:
        say(number=number, lost=str(error))
    else:
        (event,) = outcome.values()
        say(number=number, kind=type(event).__name__)

async def work():
    receipts = [
        await agent.submit(
            b"Subject: hello\\r\\n\\r\\nhello\\r\\n",
            sender="ann@sender.example",
            recipients=[f"bob{number}@{'far' if number % 2 else 'relay'}.example"],
            hold_until=time.time() + 3600 if number % 2 else None,
        )
        for number in range(int(count))
    ]
    say(ready=len(receipts))
    await gatherResults(
        [Deferred.fromCoroutine(wait(*each)) for each in enumerate(r.id for r in receipts)]
    )
    reactor.stop()

reactor.addSystemEventTrigger("before", "shutdown", agent.stopService)
reactor.callWhenRunning(agent.startService)
reactor.callWhenRunning(
    lambda: Deferred.fromCoroutine(work()).addErrback(
        lambda failure: (failure.printTraceback(), reactor.stop())
    )
)
reactor.run()
"""


class Outcomes(ProgramTestCase):
    """An application with an agent, and an MTA on another machine."""

    def setUp(self) -> None:
        super().setUp()
        self.home.chmod(0o755)
        self.database = self.enterContext(PostgreSQL(self.home))
        self.hop = self.enterContext(Hop())
        other = self.home / "other"
        other.mkdir()
        self.other = self.enterContext(
            MTA(
                other,
                *("--queue", self.database.url),
                *("--route", f"relay.example=smtp://{LOOPBACK}:{self.hop.port}"),
                toml='[queue]\nretry_minimum = "1 s"\nretry_maximum = "1 s"\n',
            )
        )
        self.application = Program(self.home, "application.log")
        self.addCleanup(self.application.kill)

    def start(self, workers: int) -> None:
        """Start the application; return when all its mail is in the queue."""
        state, hop = self.home / "state", self.hop.port
        arguments = [self.database.url, state, hop, workers, _COUNT]
        self.application.spawn([sys.executable, "-c", _APPLICATION, *map(str, arguments)])
        self.application.wait_for(self.said, "all mail in the queue")

    def said(self) -> list[Mapping[str, Any]]:
        """Return what the application has said."""
        lines = self.application.output().splitlines()
        return [json.loads(line[5:]) for line in lines if line.startswith("said ")]

    def remove(self) -> None:
        """Let the other machine remove the mail that is held, once it has the database."""
        self.other.wait_for(self.other.is_ready, "the other machine is ready")
        removed = self.other.tool("queue", "remove", "--domain", "far.example", "--yes")
        self.assertIn(f"removed: {_COUNT // 2} recipients", removed.stdout, removed.stderr)

    def check(self) -> None:
        """Each outcome is there, and that of this machine's deliveries is known."""
        eventually(lambda: len(self.said()) == _COUNT + 1, "all outcomes")
        by_other = {
            int(recipient[3:].partition("@")[0])
            for each in self.hop.transactions
            for recipient in each.recipients
            if each.helo == "mta.example"
        }
        lost = {each["number"] for each in self.said() if "lost" in each}
        self.assertEqual(lost, by_other | set(range(1, _COUNT, 2)))
        self.assertLessEqual({each.get("kind", "Delivered") for each in self.said()}, {"Delivered"})

    def test_what_the_other_machine_removes_is_lost_and_nothing_else(self) -> None:
        self.start(workers=1)
        self.remove()
        self.check()

    def test_workers_lose_nothing_that_one_of_them_delivers(self) -> None:
        self.start(workers=2)
        self.remove()
        self.check()

    def test_what_is_delivered_while_the_database_is_away_is_not_lost(self) -> None:
        self.hop.delay = 0.2
        self.start(workers=2)
        self.hop.wait_for(5)
        self.database.stop()
        time.sleep(8)
        self.database.start()
        eventually(lambda: len(self.said()) == _COUNT // 2 + 1, "outcomes of what is not held")
        self.remove()
        self.check()
