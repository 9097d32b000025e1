"""A scripted name server on loopback, in a thread: a check blocks while it asks."""

from __future__ import annotations

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.next_hop import Host


class NameServer:
    """Answers from a dictionary; unknown names are NXDOMAIN.

    Attributes:
        records: texts by "name TYPE", the name with its final dot.
        signed: questions whose answers have AD.
        bogus: questions that are answered with SERVFAIL, since signatures are wrong.
        signs_all: whether all answers have AD.
        rcode: the reply code of all answers; None: answers from ``records``.
        without_edns: the reply code for questions with an OPT record; "": no answer.
        nxdomain: questions that are answered with NXDOMAIN, even if the name exists.
        failing: questions that are answered with SERVFAIL.
        silent: questions that get no answer.
        asked: all questions, in order.
        host: the server's address and port.
    """

    def __init__(self, test: SynchronousTestCase) -> None:
        self.records: dict[str, list[str]] = {". SOA": ["a. b. 1 2 3 4 5"]}
        self.signed = ["iana.org. SOA"]
        self.bogus = ["dnssec-failed.org. A"]
        self.signs_all = False
        self.rcode: dns.rcode.Rcode | None = None
        self.without_edns: str | None = None
        self.nxdomain: list[str] = []
        self.failing: list[str] = []
        self.silent: list[str] = []
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.host = Host("127.0.0.1", self._socket.getsockname()[1])
        thread = threading.Thread(target=self._serve)
        thread.start()
        test.addCleanup(self._end, thread)

    def _end(self, thread: threading.Thread) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self.host.name, self.host.port))
        thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            datagram, peer = self._socket.recvfrom(65535)
            if not datagram:
                return
            query = dns.message.from_wire(datagram)
            if _asked(query) in self.silent:
                continue
            if query.edns < 0 or self.without_edns is None:
                self._socket.sendto(self._answer(query).to_wire(), peer)
            elif self.without_edns:
                response = dns.message.make_response(query)
                response.use_edns(False)
                response.set_rcode(dns.rcode.from_text(self.without_edns))
                self._socket.sendto(response.to_wire(), peer)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        (question,) = query.question
        asked = _asked(query)
        self.asked.append(asked)
        response = dns.message.make_response(query)
        # RFC 6840 §5.7: AD is set only if the question asks for it.
        if query.flags & dns.flags.AD and (self.signs_all or asked in self.signed):
            response.flags |= dns.flags.AD
        if self.rcode is not None:
            response.set_rcode(self.rcode)
        elif asked in self.failing or asked in self.bogus:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif asked in self.nxdomain:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif asked in self.records:
            response.answer.append(
                dns.rrset.from_text_list(
                    question.name, 60, "IN", question.rdtype, self.records[asked]
                )
            )
        elif not any(known.split()[0] == str(question.name) for known in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response


def _asked(query: dns.message.Message) -> str:
    (question,) = query.question
    return f"{question.name} {dns.rdatatype.to_text(question.rdtype)}"
