"""A scripted name server on loopback, on the reactor of the tests."""

from __future__ import annotations

from collections.abc import Callable

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
from twisted.internet import reactor  # noqa: TID251 - real sockets
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.basic import Int16StringReceiver
from twisted.trial.unittest import TestCase

LOOPBACK = "127.0.0.1"

SOA = "example. 300 IN SOA ns.example. hostmaster.example. 1 2 3 4 300"


class NameServer(DatagramProtocol):
    """Answers from a dictionary; NXDOMAIN for names that are not in it.

    Attributes:
        records: answers by "name TYPE", each as (ttl, text, ...).
        queries: all queries that were received, by UDP and TCP.
        answers_edns: returns the answer to a query with an OPT record, None for no answer; without
            it, the server knows EDNS.
        nxdomain: answered by NXDOMAIN although they are in the dictionary, as "name TYPE".
        drops: not answered, as "name TYPE".
    """

    def __init__(self) -> None:
        self.records: dict[str, tuple[int, *tuple[str, ...]]] = {}
        self.queries: list[dns.message.Message] = []
        self.answers_edns: Callable[[dns.message.Message], bytes | None] | None = None
        self.nxdomain: list[str] = []
        self.drops: list[str] = []
        self.rcode = dns.rcode.NOERROR
        self.flags = 0
        self.authority: str | None = SOA
        self.silent = False
        self.truncates = False
        self.spoil: Callable[[bytes], list[bytes]] = lambda wire: [wire]

    def questions(self) -> list[str]:
        return [self.question(query) for query in self.queries]

    def question(self, query: dns.message.Message) -> str:
        (question,) = query.question
        return f"{question.name} {dns.rdatatype.to_text(question.rdtype)}"

    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        query = dns.message.from_wire(datagram)
        self.queries.append(query)
        if self.silent or self.question(query) in self.drops:
            return
        if self.answers_edns is not None and query.edns >= 0:
            wire = self.answers_edns(query)
            if wire is not None:
                self.transport.write(wire, addr)  # type: ignore[union-attr]
            return
        response = self.respond(query)
        if self.truncates:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
        for wire in self.spoil(response.to_wire()):
            self.write(wire, addr)

    def write(self, wire: bytes, addr: object) -> None:
        if self.transport is not None:
            self.transport.write(wire, addr)  # type: ignore[attr-defined]

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= self.flags
        response.set_rcode(self.rcode)
        known = self.records.get(self.question(query))
        if self.question(query) in self.nxdomain:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif known is not None:
            ttl, *texts = known
            (question,) = query.question
            for text in texts:
                response.answer.append(
                    dns.rrset.from_text(question.name, ttl, "IN", question.rdtype, text)
                )
        elif self.rcode == dns.rcode.NOERROR:
            name = self.question(query).split()[0]
            if not any(record.split()[0] == name for record in self.records):
                response.set_rcode(dns.rcode.NXDOMAIN)
        if not response.answer and self.authority:
            name, ttl, _, kind, *rest = self.authority.split()
            response.authority.append(dns.rrset.from_text(name, ttl, "IN", kind, " ".join(rest)))
        return response


class OverTCP(Int16StringReceiver):
    def __init__(self, server: NameServer) -> None:
        self.server = server

    def stringReceived(self, string: bytes) -> None:
        query = dns.message.from_wire(string)
        self.server.queries.append(query)
        wire = self.server.respond(query).to_wire(max_size=65535)
        framed = len(wire).to_bytes(2, "big") + wire
        for at in range(0, len(framed), 7):  # TCP may join pieces, or not
            self.transport.write(framed[at : at + 7])


def listen(
    test: TestCase,
    server: NameServer,
    port: int = 0,
    *,
    interface: str = LOOPBACK,
    tcp: bool = False,
) -> int:
    """Let a name server listen until the end of a test; return its port."""
    core = reactor
    while tcp:  # TCP first: more of its ports are in use, also by connections that have ended
        factory = Factory.forProtocol(lambda: OverTCP(server))
        listening = core.listenTCP(port, factory, interface=interface)  # type: ignore[attr-defined]
        test.addCleanup(listening.stopListening)
        both: int = listening.getHost().port
        try:
            bound = core.listenUDP(both, server, interface=interface)  # type: ignore[attr-defined]
        except CannotListenError:
            if port:
                raise
            continue  # another program has this one for UDP
        test.addCleanup(bound.stopListening)
        return both
    bound = core.listenUDP(port, server, interface=interface)  # type: ignore[attr-defined]
    test.addCleanup(bound.stopListening)
    number: int = bound.getHost().port
    return number
