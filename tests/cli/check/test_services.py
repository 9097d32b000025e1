"""Findings about milters and policy services: whether they answer."""

from __future__ import annotations

import os
import socket
import threading
from struct import pack
from typing import Any

from tests.cli.check.checking import CheckTestCase
from twisted_mta.cli.check import services as services_module
from twisted_mta.config import MilterSettings, PolicyServiceSettings


class Answering:
    """A server in a thread, which answers one connection: a check blocks while it asks.

    Args:
        test: ends it.
        answer: octets; None: it never answers.
        path: of its socket; empty: a port of loopback.

    Attributes:
        endpoint: where it listens.
        heard: what it was told.
    """

    def __init__(self, test: CheckTestCase, answer: bytes | None, path: str = "") -> None:
        family = socket.AF_UNIX if path else socket.AF_INET
        self._listening = socket.socket(family)
        self._listening.bind(path or ("127.0.0.1", 0))
        self._listening.listen()
        self._answer = answer
        self.heard = b""
        if path:
            self.endpoint = f"unix:{path}"
        else:
            self.endpoint = f"tcp:127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        test.addCleanup(self.end)

    def end(self) -> None:
        """Wait until it has answered, and ended."""
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            self.heard = connection.recv(65536)
            if self._answer is not None:
                connection.sendall(self._answer)
                if not self._answer:
                    return
            while octets := connection.recv(65536):
                self.heard += octets


class Services(CheckTestCase):
    def of(self, **tables: Any) -> str:
        (text,) = self.found(self.config(**tables), notes=True, **self.machine)
        return text

    def setUp(self) -> None:
        super().setUp()
        self.machine: dict[str, Any] = {}

    def found(self, *arguments: Any, **how: Any) -> list[str]:
        found = super().found(*arguments, **how)
        return [each for each in found if "[[" in each]

    def service(self, answer: bytes | None, **settings: Any) -> str:
        server = Answering(self, answer)
        table = PolicyServiceSettings(endpoint=server.endpoint, **settings)
        text = self.of(policy_services=[table])
        self.asked = server
        return text.replace(server.endpoint, "PLACE")

    def test_a_service_that_answers_is_a_note(self) -> None:
        self.assertEqual(
            self.service(b"action=DUNNO\n\n", policy_context="mx"),
            "note: [[policy_service]] PLACE: it answers within 0 ms: DUNNO",
        )
        lines = self.asked.heard.decode().split("\n")
        self.assertEqual(lines[-2:], ["", ""])
        for line in (
            "request=smtpd_access_policy",
            "protocol_state=RCPT",
            "client_address=127.0.0.1",
            "client_name=localhost",
            "sender=",
            "recipient=postmaster@localhost",
            "policy_context=mx",
        ):
            self.assertIn(line, lines)

    def test_a_socket_is_asked_too(self) -> None:
        path = os.path.join(self.directory, "service")
        table = PolicyServiceSettings(endpoint=Answering(self, b"action=OK\n\n", path).endpoint)
        self.assertIn("it answers within 0 ms: OK", self.of(policy_services=[table]))

    def test_a_service_that_cannot_be_used_is_a_warning(self) -> None:
        for answer, why in (
            (b"", "it closes the connection without an answer"),
            (b"action=FILTER x:y\n\n", "found the action FILTER: routes depend on the recipient"),
            (b"HTTP/1.1 400 \x1b\n\n", r"found HTTP/1.1 400 \x1b, expected name=value"),
        ):
            text = self.service(answer)
            self.assertIn(f"warning: [[policy_service]] PLACE: {why}", text)
            self.assertIn("all mail that it is asked about is deferred; start or repair it", text)

    def test_what_becomes_of_mail_is_said(self) -> None:
        self.assertIn("mail is accepted without it", self.service(b"", default_action="accept"))
        self.assertIn("is asked about is refused", self.service(b"", default_action="refuse"))

    def test_a_service_that_does_not_answer_is_not_waited_for(self) -> None:
        self.patch(services_module, "_PATIENCE", 0.2)
        self.assertIn("PLACE: no answer within 0.2 s", self.service(None))

    def test_a_service_that_is_not_there(self) -> None:
        table = PolicyServiceSettings(endpoint=f"unix:{self.directory}/nothing")
        self.assertIn("No such file or directory: all mail", self.of(policy_services=[table]))

    def milter(self, answer: bytes) -> str:
        server = Answering(self, answer)
        text = self.of(milters=[MilterSettings(endpoint=server.endpoint)])
        server.end()
        self.asked = server
        return text.replace(server.endpoint, "PLACE")

    def test_a_milter_is_asked_for_its_terms_and_told_of_no_mail(self) -> None:
        offer = b"O" + pack(">III", 6, 0, 0)
        self.assertEqual(
            self.milter(pack(">I", len(offer)) + offer),
            "note: [[milter]] PLACE: it answers within 0 ms: milter protocol 6",
        )
        self.assertEqual(self.asked.heard[4:5] + self.asked.heard[-1:], b"OQ")

    def test_what_is_no_milter_is_a_warning(self) -> None:
        for answer in (b"\0\0\0\1c", b"220 mx.example ESMTP\r\n", b"\xff" * 20):
            self.assertTrue(self.milter(answer).startswith("warning: [[milter]] PLACE: "))
