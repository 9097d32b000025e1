"""The examination of one content by policies: its header, its octets as they stream, the whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import IO

from twisted.internet.defer import Deferred

from ..mail.address import Mailbox
from ..mail.assessment import Assessment, Verdict
from ..mail.reply import Reply
from ..message.authentication_results import (
    authentication_results,
    without_own,
)
from ..message.header import Header, raw_fields_but
from ..message.header_scanner import HeaderScanner
from ..policy.answers import EnvelopeView, Rewrite
from ..policy.chain import BodyReader, PolicyChain
from ..policy.composed import close_bodies, composed
from ..policy.examination import Examination
from ..system.coroutines import started

_PIECE = 64 * 1024  # octets that are copied at a time
_FIELDS = 200  # that are looked at for a piece
_PIECES = 16  # between two turns of the reactor: a piece takes some 50 µs, or 200 where fields go


class ContentExamination:
    """Shows the content of a message to policies while it comes in.

    Fields that pretend to be results of our own are removed from its header section (RFC 8601 §5),
    unless the client may relay without an account.

    Args:
        chain: the policies.
        examination: of the transaction.
        envelope: of the message.
        authserv_id: the name in our Authentication-Results fields; empty: there are none.

    Attributes:
        examination: see the argument.
        verdicts: of the policies, once `refusal` has ended.
    """

    def __init__(
        self,
        chain: PolicyChain,
        examination: Examination,
        envelope: EnvelopeView,
        authserv_id: str,
    ) -> None:
        self.examination = examination
        self._chain = chain
        self._envelope = envelope
        self._authserv_id = authserv_id
        self.verdicts: tuple[Verdict, ...] = ()
        self._readers: Sequence[BodyReader] = ()
        self._of_header: Deferred[Reply | None] | None = None  # None: the header is not complete

    def begin(self, section: bytes, rest: bytes) -> bytes:
        """Take the header section, and what came behind it so far; return what is to be stored."""
        session, header = self.examination.session, Header(section)
        self._of_header = started(self._chain.header(session, self._envelope, header))
        self._readers = self._chain.body_readers(session, self._envelope, header)
        self.show(rest[2:])  # without the empty line
        # A client that may relay, such as a filter, may hand our own results back to us.
        is_trusted = not session.is_stranger and session.identity is None
        if not self._authserv_id or is_trusted:
            return section + rest
        return without_own(section, self._authserv_id) + rest

    def show(self, octets: bytes) -> None:
        """Take more of the body."""
        if octets:
            for read in self._readers:
                read(octets)

    async def refusal(self, open_content: Callable[[], IO[bytes]]) -> Reply | None:
        """Return the reply with which the policies refuse the message; None: they do not.

        Args:
            open_content: opens the message as it was stored so far.

        Raises:
            OSError: it cannot be opened.
        """
        assert self._of_header is not None
        session = self.examination.session
        refusal = await self._of_header
        if refusal is None:
            try:
                refusal = await self._chain.message(session, self._envelope, open_content)
            except BaseException:
                close_bodies(self.rewrites)
                raise
        if refusal is not None:
            close_bodies(self.rewrites)
        results = self.examination.results
        self.verdicts = self.examination.verdicts_with(results)
        self._chain.count(results)
        return refusal

    # What follows from the answers.

    @property
    def fields(self) -> bytes:
        """The fields for the top of the message: Authentication-Results, then marks of policies."""
        opinion = self.examination.opinion
        if opinion.replaced is not None:
            return opinion.replaced + b"".join(opinion.fields)
        own = b""
        results = self.examination.results
        if results and self._authserv_id:
            # A mailbox beyond ASCII is that of MAIL, or stands in the header: the message needs
            # SMTPUTF8 anyway.
            smtputf8 = "SMTPUTF8" in self._envelope.parameters
            own = authentication_results(self._authserv_id, results, smtputf8=smtputf8)
        return own + b"".join(opinion.fields)

    @property
    def assessment(self) -> Assessment:
        """What is kept with the message."""
        opinion = self.examination.opinion
        return Assessment(self.verdicts, opinion.quarantine, hold=opinion.hold)

    @property
    def rewrites(self) -> Sequence[Rewrite]:
        """The changes that policies want, in their order."""
        return self.examination.opinion.rewrites

    @property
    def recipients_instead(self) -> Sequence[Mailbox] | None:
        """The recipients that policies give in place of all, empty for none; None: all stay."""
        return self.examination.recipients_instead

    @property
    def reverse_name(self) -> str | None:
        """The confirmed name of the client's address in the DNS; None: there is none."""
        return self.examination.session.reverse_name

    @property
    def changes_content(self) -> bool:
        """Whether the content itself is to be changed."""
        return any(each.changes_content for each in self.rewrites)

    async def rewrite(self, content: IO[bytes], store: Callable[[bytes], object]) -> None:
        """Write the content anew, as the policies want it.

        Args:
            content: as it came; read to its end.
            store: takes the pieces.

        Raises:
            OSError: it cannot be read or stored.
        """
        removed = {name for each in self.rewrites for name in each.remove}
        try:
            for number, piece in enumerate(_without(removed, composed(content, self.rewrites))):
                store(piece)
                if number % _PIECES == _PIECES - 1:
                    await self._chain.next_turn()
        finally:
            close_bodies(self.rewrites)


def _without(names: Collection[str], source: IO[bytes]) -> Iterator[bytes]:
    """Yield a content in pieces, without the header fields called ``names``."""
    pieces = iter(lambda: source.read(_PIECE), b"")
    if names:
        scanner, held = HeaderScanner(), bytearray()
        for piece in pieces:
            held += piece
            scanner.feed(piece)
            if scanner.ended:
                break
        kept = raw_fields_but(bytes(held[: scanner.size]), names)
        while some := list(islice(kept, _FIELDS)):
            yield b"".join(some)
        yield bytes(held[scanner.size :])
    yield from pieces
