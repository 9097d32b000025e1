"""Lists in the DNS as a policy: mail of strangers is refused, deferred or marked by them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from ...mail.address import AddressError, Mailbox, domain_name
from ...mail.reply import Reply
from ..answers import Answers, EnvelopeView, Mark
from ..examination import PolicySession
from ..lists.exemptions import Exemptions
from .blocklist import NAME, Blocklist, Listing, Lookup

FIELD = "X-Listed-By"
"""The field that a list with ``action = "mark"`` adds."""


class DNSBLPolicy:
    """Looks clients, their names and senders up in lists.

    The look-ups begin as soon as it is known what to look up, all at the same time. RCPT waits for
    those that may refuse, and the end of the content for those that mark. A list that does not
    answer refuses nothing.

    Args:
        lists: to be asked.
        exemptions: from them.
    """

    def __init__(self, lists: Sequence[Blocklist], exemptions: Exemptions) -> None:
        self._lists = {
            of: [each for each in lists if each.settings.of == of]
            for of in ("client", "helo", "sender")
        }
        self._exemptions = exemptions

    def client(self, session: PolicySession) -> None:
        """Begin to look up the address of the client."""
        self._of_client(session)

    def helo(self, session: PolicySession) -> None:
        """Begin to look up the name in a greeting."""
        self._of_helo(session)

    def mail(self, session: PolicySession, sender: Mailbox | None) -> None:
        """Begin to look up the domain of a reverse-path."""
        self._of_sender(session)

    def rcpt(self, session: PolicySession, recipient: Mailbox) -> Awaitable[Reply | None] | None:
        """Return the refusal of a recipient, once the lists have answered."""
        lookups = [
            each
            for action in ("refuse", "defer")
            for each in self._lookups(session)
            if each.settings.action == action
        ]
        if all(each.done and each.listing is None for each in lookups):
            return None
        return self._refusal(session, recipient, lookups)

    async def _refusal(
        self, session: PolicySession, recipient: Mailbox, lookups: Sequence[Lookup]
    ) -> Reply | None:
        for each in lookups:
            listing = await each.wait()
            if listing is not None:
                reply = _reply(listing)
                return await self._exemptions.refusal(NAME, session, recipient, reply)
        return None

    async def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Answers:
        """Return the refusal that has waited for signatures, or the marks of a message."""
        refusal = await self._exemptions.after_content(NAME, session)
        if refusal is not None:
            return refusal
        listings = await self.marks(session)
        if not listings or await self._exemptions.of_message(NAME, session):
            return None
        return [
            Mark(
                [
                    (
                        FIELD,
                        f"{each.settings.name}; {each.settings.of}={each.subject};"
                        f" answer={','.join(each.answers)}",
                    )
                ],
                reason=str(each),
            )
            for each in listings
        ]

    async def marks(self, session: PolicySession) -> Sequence[Listing]:
        """Return the hits of lists that mark."""
        lookups = [each for each in self._lookups(session) if each.settings.action == "mark"]
        listings = [await each.wait() for each in lookups]
        return [each for each in listings if each is not None]

    # What is looked up. It begins at once, if it has not begun.

    def _lookups(self, session: PolicySession) -> Iterator[Lookup]:
        yield from self._of_client(session)
        yield from self._of_helo(session)
        yield from self._of_sender(session)

    def _of_client(self, session: PolicySession) -> Sequence[Lookup]:
        lists = self._lists["client"]
        if not lists or session.address is None or self._exemptions.client(session) is not None:
            return ()
        known = session.memory.get((self, "client"))
        if isinstance(known, list):
            return known
        address = _plain(session.address)
        lookups = [] if address.is_loopback else [each.address(address) for each in lists]
        session.memory[self, "client"] = lookups
        return lookups

    def _of_helo(self, session: PolicySession) -> Sequence[Lookup]:
        lists, helo = self._lists["helo"], session.helo
        if not lists or _is_near(session) or self._exemptions.client(session) is not None:
            return ()
        known = session.memory.get((self, "helo"))
        if isinstance(known, tuple) and known[0] == helo:
            lookups: list[Lookup] = known[1]
            return lookups
        domain = _domain(helo)
        lookups = [each.domain(domain) for each in lists] if domain else []
        session.memory[self, "helo"] = (helo, lookups)
        return lookups

    def _of_sender(self, session: PolicySession) -> Sequence[Lookup]:
        lists, examination = self._lists["sender"], session.examination
        if (
            not lists
            or examination is None
            or examination.sender is None
            or _is_near(session)
            or self._exemptions.client(session) is not None
        ):
            return ()
        known = examination.memory.get((self, "sender"))
        if isinstance(known, list):
            return known
        domain = _domain(examination.sender.domain)
        lookups = [each.domain(domain) for each in lists] if domain else []
        examination.memory[self, "sender"] = lookups
        return lookups


def _plain(address: str) -> IPv4Address | IPv6Address:
    """Return an address without its zone; IPv4 mapped into IPv6 is IPv4."""
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def _is_near(session: PolicySession) -> bool:
    """Whether a client is on this machine."""
    return session.address is None or _plain(session.address).is_loopback


def _domain(name: str) -> str:
    """Return a name as a domain that a list may have; empty: it is an address, or no full name."""
    try:
        domain = domain_name(name)
    except AddressError:
        return ""
    last = domain.rpartition(".")[2]
    # Lists of domains refuse to be asked about addresses, which end with a number.
    return "" if "." not in domain or domain.startswith("[") or last.isdecimal() else domain


def _reply(listing: Listing) -> Reply:
    code = 451 if listing.settings.action == "defer" else 550
    lines = [f"{listing.subject} is listed by {listing.settings.name}"]
    if listing.text:
        lines.append(f"{listing.settings.name} says: {listing.text}")
    return Reply.of(code, "7.1", *lines)
