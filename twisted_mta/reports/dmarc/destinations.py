"""Where an aggregate report goes: destinations outside of the organization have to agree."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ...dns import LookupFailed, NoSuchDomain
from ...interfaces import Resolver
from ...mail.address import Mailbox
from ...mail.mailto import mailto
from ...policy.dmarc.discovery import Published, walk
from ...policy.dmarc.record import read_tags, uri_list

_LONGEST_NAME = 253  # characters: RFC 1035 §2.3.4


@frozen
class Destinations:
    """The mailboxes that get a report.

    Attributes:
        agreed: those that may get it, each once.
        unknown: whether a query failed, so that there may be more.
    """

    agreed: tuple[Mailbox, ...] = ()
    unknown: bool = False


async def destinations(published: Published, resolver: Resolver) -> Destinations:
    """Return where the report on a policy domain goes (RFC 9990 §4).

    Args:
        published: the record, and the policy domain.
        resolver: the DNS.
    """
    domain = published.domain
    organization = (await walk(domain, resolver)).organizational_domain
    agreed: dict[Mailbox, None] = {}
    unknown = False
    for mailbox in published.record.rua:
        try:
            found = await _of(mailbox, domain, organization, resolver)
        except LookupFailed:
            unknown = True
        else:
            agreed.update(dict.fromkeys(found))
    return Destinations(tuple(agreed), unknown)


async def _of(
    mailbox: Mailbox, domain: str, organization: str | None, resolver: Resolver
) -> Sequence[Mailbox]:
    """Return the mailboxes that get the report in place of one that the record names."""
    host = mailbox.domain
    if host == domain:
        return (mailbox,)
    other = (await walk(host, resolver)).organizational_domain
    if organization is None or other is None:
        raise LookupFailed(host, "TXT", "the organizational domain is not known")
    if organization == other:
        return (mailbox,)
    name = f"{domain}._report._dmarc.{host}"
    if len(name) > _LONGEST_NAME:
        return ()
    try:
        texts = await resolver.text(name)
    except NoSuchDomain:
        return ()
    records = [tags for text in texts if (tags := read_tags(text)) is not None]
    for tags in records:
        if "rua" in tags:
            # Step 9: another mailbox at the same host, or none.
            replacements = [mailto(uri) for uri in uri_list(tags["rua"])]
            if any(each is None or each.domain != host for each in replacements):
                return ()
            return [each for each in replacements if each is not None]
    return (mailbox,) if records else ()
