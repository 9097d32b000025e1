"""Several MTAs in memory that route mail to each other."""

from __future__ import annotations

import os
from typing import Any, Literal

from tests.tidy import TidyTestCase
from twisted_mta.config import Listener
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.reactor import MemoryReactor

CONTENT = b"Subject: Hello\r\nTo: team@a.example\r\n\r\nGood morning!\r\n"


class RoutedTestCase(TidyTestCase):
    """Several MTAs on one network, each with its own domain and routes to the others."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.mtas: dict[str, MemoryMTA] = {}

    def begin(
        self,
        names: str,
        aliases: dict[str, str],
        lmtp: Literal["queue", "direct"] = "direct",
        **settings: Any,
    ) -> None:
        places = {name: f"127.0.0.{number}" for number, name in enumerate(names, 1)}
        for name, place in places.items():
            directory = self.mktemp()
            os.makedirs(directory)
            file = os.path.join(directory, "aliases")
            with open(file, "w", encoding="utf-8") as opened:
                opened.write(aliases.get(name, ""))
            own = {
                "local_domains": (f"{name}.example",),
                "routes": tuple(
                    (f"{other}.example", f"smtp://{where}")
                    for other, where in places.items()
                    if other != name
                ),
                **settings,
                **settings.get(name, {}),
            }
            mta = self.mtas[name] = MemoryMTA(
                directory,
                reactor=self.reactor,
                seed=ord(name),
                hostname=f"mx.{name}.example",
                aliases=file,
                listeners=(
                    Listener(endpoint=f"tcp:25:interface={place}", kind="smtp"),
                    Listener(endpoint=f"tcp:24:interface={place}", kind="lmtp", lmtp_delivery=lmtp),
                ),
                **{key: value for key, value in own.items() if key not in places},
            )
            mta.start()
            self.addCleanup(mta.stop)

    def send(
        self, *recipients: str, sender: str = "ann@a.example", content: bytes = CONTENT
    ) -> str:
        client = self.mtas["a"].connect(("127.0.0.1", 25))
        reply = client.mail(content, *recipients, sender=sender)
        client.say("QUIT")
        return reply[-1]

    def settle(self) -> None:
        for mta in self.mtas.values():
            for _ in range(20):
                mta.advance(60.0)

    def accepted(self, name: str) -> int:
        return self.mtas[name].mta._agent.activity.accepted  # type: ignore[attr-defined,union-attr]

    def failures(self, name: str) -> int:
        return self.mtas[name].mta._agent.shards[0].store.census().failures  # type: ignore[attr-defined,union-attr]

    def mail(self, name: str, local_part: str) -> list[bytes]:
        return self.mtas[name].mail(local_part, f"{name}.example")
