"""``mailto`` URIs as the address of a mailbox (RFC 6068)."""

from __future__ import annotations

from urllib.parse import unquote

from .address import AddressError, Mailbox


def mailto(uri: str) -> Mailbox | None:
    """Return the mailbox of a ``mailto`` URI (RFC 6068 §2); None: it is none, or not an ASCII one.

    Header fields in the URI are ignored.
    """
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != "mailto":
        return None
    try:
        mailbox = Mailbox.parse(unquote(rest.partition("?")[0], errors="strict"))
    except (AddressError, UnicodeDecodeError):
        return None
    return mailbox if mailbox.is_ascii and not mailbox.domain.startswith("[") else None
