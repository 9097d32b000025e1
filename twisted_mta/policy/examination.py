"""What policies see of a session, and what they find out about its mail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from twisted.internet.defer import Deferred, succeed

from ..mail.address import Mailbox
from ..mail.assessment import Verdict
from ..mail.envelope import Parameters
from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from ..message.authentication_results import MethodResult
from ..smtp.command import Greeting
from ..smtp.extension.views import SessionView
from ..smtp.peer import Peer
from .answers import Rewrite

_HELO, _MAILFROM = "smtp.helo", "smtp.mailfrom"


class PolicySession:
    """A session as policies see it.

    Args:
        view: of the session.

    Attributes:
        is_stranger: whether the client may not relay, and has not authenticated itself, as of the
            latest command.
        reverse_name: the name of the client's address in the DNS, confirmed by a look-up of that
            name (RFC 8601 §2.7.3); None: there is none, or it is not known yet.
        examination: of the present transaction; None outside of one.
        memory: for policies to keep what they like until the session ends, by a key of their own.
        opinion: what was found out before the first transaction; it holds for each of them.
        at_end: called when the session ends.
    """

    def __init__(self, view: SessionView, *, is_stranger: bool = True) -> None:
        self._view = view
        self.is_stranger = is_stranger
        self.reverse_name: str | None = None
        self.examination: Examination | None = None
        self.memory: dict[object, object] = {}
        self.opinion = Opinion()
        self.peer = view.peer
        self.at_end: list[Callable[[], object]] = []

    def end(self) -> None:
        """Let policies know that the session has ended."""
        while self.at_end:
            self.at_end.pop()()

    @property
    def address(self) -> str | None:
        """The IP address of the client, as text; None on a UNIX socket."""
        return self.peer.address

    @property
    def proxy(self) -> Peer | None:
        """The proxy that speaks for the client (XCLIENT); None where it is connected itself."""
        return self._view.proxy

    @property
    def local_address(self) -> str | None:
        """Our own address as the client sees it; None where it is not known."""
        return self._view.local_address

    @property
    def local_port(self) -> int:
        """Our own port as the client sees it; 0 where it is not known."""
        return self._view.local_port

    @property
    def declared_size(self) -> int:
        """The octets of the content that the client has declared (RFC 1870), from RCPT on; or 0."""
        transaction = self._view.transaction
        size = None if transaction is None else transaction.parameters.get("SIZE")
        return size if isinstance(size, int) else 0

    @property
    def greeting(self) -> Greeting | None:
        """The verb that the client greeted us with; None before."""
        return self._view.greeting

    @property
    def helo(self) -> str:
        """The name in the client's greeting; empty before."""
        return self._view.helo

    @property
    def tls(self) -> TLSFacts | None:
        """What the TLS handshake achieved; None in clear."""
        return self._view.tls

    @property
    def identity(self) -> str | None:
        """The authenticated user (RFC 4954); None without."""
        return self._view.identity

    @property
    def mechanism(self) -> str:
        """The SASL mechanism of the authenticated user; empty without, or where it is not known."""
        return self._view.mechanism

    @property
    def lmtp(self) -> bool:
        """Whether the session speaks LMTP (RFC 2033)."""
        return self._view.lmtp


class Opinion:
    """The answers of policies that wait to be carried out.

    Attributes:
        fields: whole header fields to put in front of the message.
        rewrites: changes, in their order.
        quarantine: why the message belongs among junk; empty where it does not.
        hold: why the message is to be held in the queue; empty where it is not.
        verdicts: of policies that have answered.
        replaced: what stands above our Received field instead of results and of marks so far; None:
            these.
        added: fields that we add below our Received field, until they are part of a new header.
        mail_parameters: changes to those of MAIL.
        rcpt_parameters: those of RCPT for recipients that a policy gave, where it gave any.
    """

    def __init__(self, before: Opinion | None = None) -> None:
        self.fields: list[bytes] = [] if before is None else [*before.fields]
        self.rewrites: list[Rewrite] = [] if before is None else [*before.rewrites]
        self.quarantine: str = "" if before is None else before.quarantine
        self.hold: str = ""
        self.verdicts: list[Verdict] = [] if before is None else [*before.verdicts]
        self.replaced: bytes | None = None
        self.added = b""
        self.mail_parameters: dict[str, str | int | None] = {}
        self.rcpt_parameters: dict[Mailbox, Parameters] = {}

    def replace_fields(self, above: bytes) -> None:
        """Let other fields stand above our Received; those below it are in the new header."""
        self.replaced, self.added = above, b""
        self.fields.clear()


class Examination:
    """What policies find out about one transaction.

    A policy of authentication (SPF, DKIM, …) calls `conclude` once, with what it has found. Another
    one that builds upon it waits for `concluded`.

    Args:
        session: of the transaction.
        sender: the reverse-path; None: the null one.
        awaited: the names of the policies that will call `conclude`.

    Attributes:
        trusted_chain: the domain of the trusted sealer whose ARC chain passes (RFC 8617); empty:
            there is none.
        opinion: the answers that wait to be carried out.
        memory: for policies to keep what they like until the transaction ends, by a key of their
            own.
        unread: the names of the policies that failed while they took the body.
        id: the queue id of the message; empty before its content begins.
        fields: returns the fields above our Received, as they stand now.
    """

    def __init__(
        self, session: PolicySession, sender: Mailbox | None, *, awaited: Iterable[str] = ()
    ) -> None:
        self.session = session
        self.sender = sender
        self.trusted_chain = ""
        self.opinion = Opinion(session.opinion)
        self.memory: dict[object, object] = {}
        self.unread: set[str] = set()
        self.id = ""
        self.fields: Callable[[], bytes] = bytes
        self._of_envelope = 0  # rewrites that came before the content
        self._waiting: dict[str, list[Deferred[Sequence[MethodResult]]]] = {
            name: [] for name in awaited
        }
        self._results: dict[str, Sequence[MethodResult]] = dict.fromkeys(awaited, ())
        self._in_order: Sequence[MethodResult] | None = ()  # None: to be put in order anew

    def begin_content(self, id: str, fields: Callable[[], bytes]) -> None:
        """Begin the content.

        Args:
            id: the queue id.
            fields: see the attribute.
        """
        self.id, self.fields = id, fields
        # Answers to RCPT were about one recipient each, and are in force already.
        self._of_envelope = len(self.opinion.rewrites)

    @property
    def recipients_instead(self) -> Sequence[Mailbox] | None:
        """The recipients that policies give in place of all, empty for none; None: all stay."""
        given = [each.recipients for each in self.opinion.rewrites[self._of_envelope :]]
        return next((each for each in reversed(given) if each is not None), None)

    def conclude(self, policy: str, results: Sequence[MethodResult]) -> None:
        """Record what a policy has found; a second call changes nothing."""
        waiting = self._waiting.pop(policy, None)
        if waiting is None and policy in self._results:
            return
        self._results[policy] = tuple(results)
        self._in_order = None
        for each in waiting or ():
            each.callback(self._results[policy])

    def concluded(self, policy: str) -> Deferred[Sequence[MethodResult]]:
        """Return what a policy has found, once it has; empty where it is not asked.

        Canceling the Deferred does no harm to others that wait.
        """
        waiting = self._waiting.get(policy)
        if waiting is None:
            return succeed(self._results.get(policy, ()))
        done: Deferred[Sequence[MethodResult]] = Deferred(waiting.remove)
        waiting.append(done)
        return done

    @property
    def is_complete(self) -> bool:
        """Whether all policies that are asked have found what they will find."""
        return not self._waiting

    def is_concluded(self, policy: str) -> bool:
        """Whether a policy has found what it will find, or is not asked."""
        return policy not in self._waiting

    @property
    def results(self) -> Sequence[MethodResult]:
        """What was found so far, as one Authentication-Results field shows it.

        SPF of HELO comes first, and of MAIL FROM last: a reader that keeps one of both keeps that
        of MAIL FROM.
        """
        if self._in_order is None:
            found = (each for results in self._results.values() for each in results)
            self._in_order = sorted(found, key=_place)
        return self._in_order

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What was found so far, for the log, the queue and the operator."""
        return self.verdicts_with(self.results)

    def verdicts_with(self, results: Iterable[MethodResult]) -> tuple[Verdict, ...]:
        """Return `verdicts`, where `results` are at hand."""
        found = [
            _verdict(each.method, each.result, each.properties, each.reason or each.comment)
            for each in results
        ]
        return (*found, *self.opinion.verdicts)


def _place(result: MethodResult) -> int:
    if result.method != "spf":
        return 1
    return 2 if any(name == _MAILFROM for name, _ in result.properties) else 0


@lru_cache(maxsize=1024)  # mail of one sender has the same results but for its signatures
def _verdict(
    method: str, result: str, properties: tuple[tuple[str, str], ...], remark: str
) -> Verdict:
    about = " ".join(f"{name}={value}" for name, value in properties)
    return Verdict(method, result, printable(": ".join(filter(None, (about, remark)))))
