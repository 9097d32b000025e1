"""The settings of a listener, as its clients see them, in a whole MTA in memory."""

from __future__ import annotations

import os
from typing import Any

from attrs import evolve

from tests.agent.test_agent import ENDPOINT, InMemory
from twisted_mta.config import Listener
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.tls.self_signed import SELF_SIGNED


class WithoutTLS(InMemory):
    """Applications on the same host verify a certificate that is offered, and cannot."""

    def test_starttls_is_neither_announced_nor_obeyed(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT, tls="none"),))
        client = mta.connect(greet=False)
        self.assertNotIn("STARTTLS", "".join(client.say("EHLO app.example")))
        self.assertNotIn("STARTTLS", "".join(client.say("HELP")))
        self.assertEqual(client.say("STARTTLS"), ["502 5.5.1 Command not implemented"])
        self.assertTrue(mta.submit(b"Subject: Hi\r\n\r\n", "bob@localhost").startswith("250 "))

    def test_other_listeners_offer_starttls(self) -> None:
        mta = self.started(
            listeners=(
                Listener(endpoint=ENDPOINT, tls="none"),
                Listener(endpoint="tcp:26:interface=127.0.0.1"),
            )
        )
        client = mta.connect(("127.0.0.1", 26), greet=False)
        self.assertIn("250-STARTTLS", client.say("EHLO mx.example"))

    def test_no_certificate_is_made_where_no_listener_has_tls(self) -> None:
        mta = self.started(
            tls_certificate=None, listeners=(Listener(endpoint=ENDPOINT, tls="none"),)
        )
        self.assertNotIn(os.path.join(self.directory, SELF_SIGNED), self.files.tree())
        self.assertIn("250 ", mta.submit(b"Subject: Hi\r\n\r\n", "bob@localhost"))

    def test_a_reload_takes_tls_away_and_brings_it_back(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),))
        for tls, announced in (("none", False), ("may", True)):
            listener = Listener(endpoint=ENDPOINT, tls=tls)  # type: ignore[arg-type]
            reload(mta, listeners=(listener,))
            features = mta.connect(greet=False).say("EHLO app.example")
            self.assertEqual("250-STARTTLS" in features, announced)

    def test_an_expired_certificate_is_no_fault_where_it_is_not_offered(self) -> None:
        mta = self.started(listeners=(Listener(endpoint=ENDPOINT),))
        listeners = mta.mta.agent.listeners
        mta.advance(100 * 365 * 86400)
        self.assertEqual(len(listeners.certificate_faults()), 1)
        reload(mta, listeners=(Listener(endpoint=ENDPOINT, tls="none"),))
        self.assertEqual(listeners.certificate_faults(), [])


def reload(mta: MemoryMTA, **settings: Any) -> list[str]:
    """Reload an MTA with other settings; return the lines about changes."""
    lines: list[list[str]] = []
    reloaded = mta.mta.reload(evolve(mta.mta.config, **settings))
    reloaded.addCallback(lines.append)
    mta.reactor.settle()
    return lines[0]
