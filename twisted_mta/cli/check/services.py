"""Programs that mail is shown to while it comes in: whether milters and policy services answer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from ...config import Config, MilterSettings, PolicyServiceSettings
from ...config.client_endpoint import place
from ...config.endpoint import Endpoint
from ...mail.address import Mailbox
from ...mail.printable import printable
from ...policy.delegation.answer import AnswerReader, ServiceError, read_action
from ...policy.delegation.request import State, Subject, attributes, request
from ...policy.examination import PolicySession
from ...policy.milter.negotiation import OFFER, read_terms
from ...policy.milter.packets import Command, MilterError, PacketReader, packet
from ...smtp.peer import Peer
from ...smtp.server.session import Session
from ...smtp.server.settings import SessionSettings
from .finding import Finding
from .machine import Machine

_PATIENCE = 2.0  # seconds for each, or the timeout of its table, if that is shorter
_PIECE = 4096  # octets

_STATES: dict[str, State] = {
    "mail": "MAIL",
    "rcpt": "RCPT",
    "data": "DATA",
    "end": "END-OF-MESSAGE",
}
_MEANWHILE = {
    "defer": "all mail that it is asked about is deferred",
    "accept": "mail is accepted without it",
    "refuse": "all mail that it is asked about is refused",
}

Read = Callable[[bytes], str | None]
"""Takes octets; returns what the answer says once it is complete."""


def services(config: Config, machine: Machine) -> Iterator[Finding]:
    """Yield a finding on each milter and each policy service.

    A policy service is asked about a message from this machine to the postmaster. Greylisting lets
    that through and does not remember it. A milter is told of no mail.
    """
    for milter in config.milters:
        where = f"[[milter]] {milter.endpoint}"
        yield _finding(where, milter, machine, OFFER, _milter, packet(Command.QUIT))
    for service in config.policy_services:
        where = f"[[policy_service]] {service.endpoint}"
        asked = _request(config, service)
        yield _finding(where, service, machine, asked, _service)


def _finding(
    where: str,
    settings: MilterSettings | PolicyServiceSettings,
    machine: Machine,
    told: bytes,
    reader: Callable[[], Read],
    last: bytes = b"",
) -> Finding:
    start = machine.wall_time()
    until = start + min(_PATIENCE, settings.timeout)
    try:
        said = _answer(settings.endpoint, told, reader(), last, machine, until)
    except (OSError, MilterError, ServiceError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            why = f"no answer within {until - start:g} s"
        return Finding(
            "warning",
            where,
            f"{printable(why)}: {_MEANWHILE[settings.default_action]}",
            "start or repair it, or correct its endpoint",
        )
    milliseconds = (machine.wall_time() - start) * 1000
    return Finding("note", where, f"it answers within {milliseconds:.0f} ms: {said}")


def _answer(
    endpoint: str, told: bytes, read: Read, last: bytes, machine: Machine, until: float
) -> str:
    """Return what a program answers.

    Raises:
        OSError: it cannot be reached, or does not answer in time.
        MilterError: it is no milter, or broke the protocol.
        ServiceError: likewise, for a policy service.
    """

    def left() -> float:
        seconds = until - machine.wall_time()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    with _connected(endpoint, left()) as connection:
        connection.sendall(told)
        while True:
            connection.settimeout(left())
            octets = connection.recv(_PIECE)
            if not octets:
                raise ServiceError("it closes the connection without an answer")
            said = read(octets)
            if said is not None:
                if last:
                    connection.sendall(last)
                return said


def _connected(endpoint: str, seconds: float) -> socket.socket:
    parsed = Endpoint.parse(endpoint)
    if parsed.kind == "tcp":
        host, port = place(parsed)
        return socket.create_connection((host, int(port)), seconds)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(seconds)
        connection.connect(parsed.named.get("path") or parsed.arguments[0])
    except BaseException:
        connection.close()
        raise
    return connection


def _request(config: Config, service: PolicyServiceSettings) -> bytes:
    view = Session(SessionSettings(hostname="check"), peer=Peer("127.0.0.1", name="localhost"))
    view.greeting, view.helo = "EHLO", "localhost"
    subject = Subject(
        state=_STATES[service.at],
        sender=None,
        recipient=Mailbox("postmaster", config.local_domains[0]),
        recipients=1 if service.at in ("data", "end") else 0,
        instance="check",
        context=service.policy_context,
    )
    return request(attributes(PolicySession(view), subject))


def _service() -> Read:
    reader = AnswerReader()

    def read(octets: bytes) -> str | None:
        action = reader.feed(octets)
        if action is not None:
            read_action(action)
        return None if action is None else printable(action)

    return read


def _milter() -> Read:
    reader = PacketReader()

    def read(octets: bytes) -> str | None:
        for code, data in reader.feed(octets):
            if bytes([code]) != Command.NEGOTIATE.value:
                raise MilterError(f"it answers the negotiation by {bytes([code])!r}")
            return f"milter protocol {read_terms(data).version}"
        return None

    return read
