"""TODO: say what this file holds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
from attrs import define, field, frozen

from ...interfaces import WallTime
from ...mail.next_hop import Host
from ...mail.printable import printable

_PATIENCE = 2.0  # seconds for one question; a resolver near by that knows nothing yet needs one


_PAYLOAD = 1232


_WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)


class TooLate(Exception):
    """The time for all questions is over."""


class NoAnswer(Exception):
    """No name server gave a usable answer."""


class _Unlike(Exception):
    """No usable answer, maybe since the question had an OPT record (RFC 6891 §7)."""


@frozen
class Answer:
    """What a name server said.

    Attributes:
        records: those of the type asked for, behind any aliases; empty where there are none.
        exists: whether the name exists.
        authenticated: whether it says that it validated this (AD).
        seconds: how long it took.
        edns: whether the question could have an OPT record.
    """

    records: Sequence[Any]
    exists: bool
    authenticated: bool
    seconds: float
    edns: bool = True


@define
class Questions:
    """Asks name servers, within a deadline.

    Attributes:
        nameservers: whom to ask; who gives no answer is asked no more.
        until: wall time of the deadline.
        wall_time: what time it is.
        timeout: seconds for one question.
    """

    nameservers: list[Host]
    until: float
    wall_time: WallTime
    timeout: float = _PATIENCE
    _known: dict[tuple[str, str], Answer] = field(factory=dict)
    _without_edns: list[Host] = field(factory=list)

    def ask(self, nameserver: Host, name: str, type: str) -> Answer:
        """Return what one name server says.

        Raises:
            NoAnswer: nothing of use; why.
            TooLate: see there.
        """
        start = self.wall_time()
        edns = nameserver not in self._without_edns
        try:
            response = self._exchange(nameserver, name, type, edns=edns)
        except _Unlike as error:
            if not edns:
                raise NoAnswer(str(error)) from None
            edns = False
            try:
                response = self._exchange(nameserver, name, type, edns=False)
            except _Unlike:
                raise NoAnswer(str(error)) from None
            self._without_edns.append(nameserver)
        records: Sequence[Any] = ()
        with suppress(dns.exception.DNSException):  # aliases in a circle
            records = list(cast(dns.message.QueryMessage, response).resolve_chaining().answer or ())
        return Answer(
            records,
            response.rcode() != dns.rcode.NXDOMAIN,
            bool(response.flags & dns.flags.AD),
            self.wall_time() - start,
            edns,
        )

    def _exchange(
        self, nameserver: Host, name: str, type: str, *, edns: bool
    ) -> dns.message.Message:
        patience = min(self.timeout, self.until - self.wall_time())
        if patience <= 0:
            raise TooLate
        try:
            question = dns.message.make_query(
                dns.name.from_text(name), type, use_edns=0 if edns else False, payload=_PAYLOAD
            )
            # RFC 6840 §5.7: set in a question, it asks for AD in the answer.
            question.flags |= dns.flags.AD
            response, _ = dns.query.udp_with_fallback(
                question, nameserver.name, timeout=patience, port=nameserver.port
            )
        except dns.exception.Timeout:
            raise _Unlike(f"no answer within {patience:.1f} s") from None
        except (EOFError, dns.exception.DNSException, ValueError) as error:
            raise _Unlike(printable(str(error))) from None
        except OSError as error:
            raise NoAnswer(error.strerror or printable(str(error))) from None
        rcode = response.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            knows = response.edns >= 0 and rcode not in _WITHOUT_EDNS
            raise (NoAnswer if knows else _Unlike)(dns.rcode.to_text(rcode))
        return response

    def lookup(self, name: str, type: str) -> Answer:
        """Return what the first name server that answers says.

        Raises:
            NoAnswer: none does; why the last did not.
            TooLate: see there.
        """
        known = self._known.get((name, type))
        if known is None:
            why = "there is no name server"
            for nameserver in self.nameservers:
                try:
                    known = self.ask(nameserver, name, type)
                    break
                except NoAnswer as error:
                    why = str(error)
            else:
                raise NoAnswer(why)
            self._known[name, type] = known
        return known

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of a host, in no special order; empty where it has none.

        Raises:
            NoAnswer: one family cannot be looked up, and the other has none.
            TooLate: likewise.
        """
        found: list[str] = []
        failure: NoAnswer | None = None
        for type in ("A", "AAAA"):
            try:
                found += [record.address for record in self.lookup(name, type).records]
            except NoAnswer as error:
                failure = error
        if failure is not None and not found:
            raise failure
        return found
