"""Questions to name servers, asked one after the other within a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
from attrs import define, field, frozen

from ..mail.next_hop import Host
from ..mail.printable import printable

if TYPE_CHECKING:
    from ..interfaces import WallTime

_TIMEOUT = 2.0  # seconds for one question; a nearby resolver with an empty cache needs one


_PAYLOAD = 1232


_WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)


class TooLate(Exception):
    """The deadline of all questions has passed."""


class NoAnswer(Exception):
    """No name server gave a usable answer."""


class Declined(NoAnswer):
    """A name server answered, and not this question; it may answer others."""


class _MaybeNoEDNS(Exception):
    """No usable answer, perhaps because of the OPT record in the question (RFC 6891 §7)."""


@frozen
class Answer:
    """The answer of a name server.

    Attributes:
        records: of the type in question, after following aliases (CNAME); may be empty.
        exists: whether the name exists.
        authenticated: whether the AD bit is set: the server says that it has validated the answer.
        seconds: until the answer.
        edns: whether the server understands EDNS.
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
        nameservers: the servers that `lookup` asks, in order.
        until: wall time of the deadline.
        wall_time: the wall clock.
        timeout: seconds for one question.
    """

    nameservers: list[Host]
    until: float
    wall_time: WallTime
    timeout: float = _TIMEOUT
    _known: dict[tuple[str, str], Answer] = field(factory=dict)
    _without_edns: list[Host] = field(factory=list)

    def ask(self, nameserver: Host, name: str, type: str) -> Answer:
        """Return the answer of one name server.

        Raises:
            NoAnswer: there is none, or it is not usable; the message says why.
            TooLate: the deadline has passed.
        """
        start = self.wall_time()
        edns = nameserver not in self._without_edns
        try:
            response = self._exchange(nameserver, name, type, edns=edns)
        except _MaybeNoEDNS as error:
            if not edns:
                raise NoAnswer(str(error)) from None
            edns = False
            try:
                response = self._exchange(nameserver, name, type, edns=False)
            except _MaybeNoEDNS:
                raise NoAnswer(str(error)) from None
            self._without_edns.append(nameserver)
        records: Sequence[Any] = ()
        with suppress(dns.exception.DNSException):  # a loop of aliases
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
        timeout = min(self.timeout, self.until - self.wall_time())
        if timeout <= 0:
            raise TooLate
        try:
            question = dns.message.make_query(
                dns.name.from_text(name), type, use_edns=0 if edns else False, payload=_PAYLOAD
            )
            # RFC 6840 §5.7: AD in a question asks for AD in the answer.
            question.flags |= dns.flags.AD
            response, _ = dns.query.udp_with_fallback(
                question, nameserver.name, timeout=timeout, port=nameserver.port
            )
        except dns.exception.Timeout:
            raise _MaybeNoEDNS(f"no answer within {timeout:.1f} s") from None
        except (EOFError, dns.exception.DNSException, ValueError) as error:
            raise _MaybeNoEDNS(printable(str(error))) from None
        except OSError as error:
            raise NoAnswer(error.strerror or printable(str(error))) from None
        rcode = response.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            knows_edns = response.edns >= 0 and rcode not in _WITHOUT_EDNS
            raise (Declined if knows_edns else _MaybeNoEDNS)(dns.rcode.to_text(rcode))
        return response

    def lookup(self, name: str, type: str) -> Answer:
        """Return the answer of the first name server that answers.

        Raises:
            NoAnswer: none does; the message is about the last.
            TooLate: the deadline has passed.
        """
        known = self._known.get((name, type))
        if known is None:
            why = "no name server is known"
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
        """Return the addresses of a host, IPv4 first; [] if it has none.

        Raises:
            NoAnswer: one family cannot be looked up, and the other has no address.
            TooLate: the deadline has passed.
        """
        addresses: list[str] = []
        failure: NoAnswer | None = None
        for type in ("A", "AAAA"):
            try:
                addresses += [record.address for record in self.lookup(name, type).records]
            except NoAnswer as error:
                failure = error
        if failure is not None and not addresses:
            raise failure
        return addresses
