"""A delivery that keeps messages in memory, and fails a test that calls it out of order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import Sink
from ..mail.address import Mailbox
from ..mail.decision import ContentDecision, Decision
from ..mail.envelope import Parameters
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..smtp.command import Greeting
from ..smtp.server.session import Session


@frozen
class Delivered:
    """An accepted message, with the facts of its session.

    Attributes:
        reverse_path: the reverse-path; None: the null reverse-path.
        recipients: the forward-paths, in order.
        parameters: the parameters of MAIL, by upper-case keyword.
        content: the content.
        greeting: the command that opened the session; None: there was none.
        helo: the argument of that command.
        tls: the TLS session; None: in clear.
    """

    reverse_path: Mailbox | None
    recipients: tuple[Mailbox, ...]
    parameters: Parameters
    content: bytes
    greeting: Greeting | None
    helo: str
    tls: TLSFacts | None


class RecordingDelivery:
    """A delivery that accepts everything except given refusals (`interfaces.Delivery`).

    Attributes:
        calls: each call in order: ``mail``, ``rcpt``, ``open``, ``finish``, ``abort``.
        messages: the accepted messages, in order.
        open_sinks: the number of contents that were begun and not yet finished or aborted.
        when: the argument of that name; may be changed.

    Args:
        refusals: the refusals, by the path of MAIL or RCPT as ``str`` writes it; ``""`` is the
            beginning of the content, ``"."`` its end, and ``".bob@example.net"`` its end for one
            recipient.
        when: called before each answer, which is given when its Deferred fires; None: every answer
            is given at once.
    """

    def __init__(
        self,
        *,
        refusals: Mapping[str, Reply] | None = None,
        when: Callable[[], Deferred[None]] | None = None,
    ) -> None:
        self.calls: list[str] = []
        self.messages: list[Delivered] = []
        self.open_sinks = 0
        self._refusals = refusals or {}
        self.when = when

    def client(self, session: Session) -> Decision:
        """Accept."""
        return None

    def helo(self, session: Session) -> Decision:
        """Accept."""
        return None

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Decide on a reverse-path (`interfaces.Delivery`)."""
        self.calls.append("mail")
        return self._answer(self._refusals.get("<>" if reverse_path is None else str(reverse_path)))

    def rcpt(
        self, session: Session, forward_path: Mailbox, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Decide on a forward-path (`interfaces.Delivery`)."""
        self.calls.append("rcpt")
        return self._answer(self._refusals.get(str(forward_path)))

    def open(self, session: Session) -> Sink | Reply | Deferred[Sink | Reply]:
        """Begin a message (`interfaces.Delivery`)."""
        self.calls.append("open")
        refusal = self._refusals.get("")
        answer: Sink | Reply = _Content(self, session) if refusal is None else refusal

        def not_opened(failure: Failure) -> Failure:
            if not isinstance(answer, Reply):
                answer.abort()
            return failure

        if self.when is None:
            return answer
        return self.when().addCallbacks(lambda _: answer, not_opened)

    def ended(self, session: Session) -> None:
        """Do nothing (`interfaces.Delivery`)."""

    def _answer(self, decision: Decision) -> Decision | Deferred[Decision]:
        if self.when is None:
            return decision
        return self.when().addCallback(lambda _: decision)

    def _taken(self, delivered: Delivered) -> ContentDecision | Deferred[ContentDecision]:
        refusal = self._refusals.get(".")
        each = [self._refusals.get(f".{mailbox}") for mailbox in delivered.recipients]
        if refusal is None and None in each:
            taken = (
                mailbox for mailbox, no in zip(delivered.recipients, each, strict=True) if not no
            )
            self.messages.append(evolve(delivered, recipients=tuple(taken)))
        decision = each if refusal is None and any(each) else refusal
        return decision if self.when is None else self.when().addCallback(lambda _: decision)


class _Content:
    """The content of one message (`interfaces.Sink`)."""

    def __init__(self, delivery: RecordingDelivery, session: Session) -> None:
        transaction = session.transaction
        assert transaction is not None, "content begins in a transaction"
        assert transaction.recipients, "content begins after a recipient"
        self._delivery = delivery
        self._pieces: list[bytes] = []
        self._ended: Literal["", "finish", "abort"] = ""
        self._reverse_path = transaction.reverse_path
        self._recipients: Sequence[Mailbox] = [each.mailbox for each in transaction.recipients]
        self._parameters = transaction.parameters
        self._session = session
        delivery.open_sinks += 1

    def write(self, content: bytes) -> None:
        """Keep the octets (`interfaces.Sink`)."""
        assert not self._ended, f"content was written after {self._ended}"
        self._pieces.append(content)

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """Keep the message (`interfaces.Sink`)."""
        self._end("finish")
        session = self._session
        return self._delivery._taken(
            Delivered(
                self._reverse_path,
                tuple(self._recipients),
                self._parameters,
                b"".join(self._pieces),
                session.greeting,
                session.helo,
                session.tls,
            )
        )

    def abort(self) -> None:
        """Discard the message (`interfaces.Sink`)."""
        self._end("abort")

    def _end(self, how: Literal["finish", "abort"]) -> None:
        assert not self._ended, f"content had {how} after {self._ended}"
        self._ended = how
        self._delivery.calls.append(how)
        self._delivery.open_sinks -= 1
