"""Paths and mailboxes (RFC 5321 §4.1.2, §4.1.3; RFC 6531 §3.3): one parser, one canonical form.

Policy and routing see only what this module returns, so no spelling of an address can mean one
thing to the one and another to the other. Canonical is: the local-part without its quotes, its case
kept (§2.4); the domain in lower case, as A-labels, without a trailing dot; an address literal as
the ``ipaddress`` module writes it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import idna
from attrs import frozen


class AddressError(ValueError):
    """Not an address; the message says why, for people, in printable ASCII."""


# RFC 5321 §4.1.2, with RFC 6531 §3.3 adding UTF8-non-ascii to atext, qtextSMTP and sub-domain:
#
#   Path           = "<" [ A-d-l ":" ] Mailbox ">"
#   A-d-l          = At-domain *( "," At-domain )
#   Mailbox        = Local-part "@" ( Domain / address-literal )
#   Local-part     = Dot-string / Quoted-string
#   Quoted-string  = DQUOTE *( qtextSMTP / %d92 %d32-126 ) DQUOTE
#
# The control characters from U+0080 to U+009F are left out: no mailbox needs them, and a terminal
# or a reader of lines may obey them. Which characters a domain may have is for `domain_name` to
# say, with a reason. Quantifiers are possessive: nothing that one has taken could be another's.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\xa0-\U0010ffff-]++"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*+"
_QUOTED_STRING = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\xa0-\U0010ffff]++|\\[\x20-\x7e])*+"'
_DOMAIN = r"[^\s@<>,:\"()\[\]\\]++"
_LITERAL = r"\[[^\]\s]*+\]"
_SOURCE_ROUTE = rf"(?:@(?:{_DOMAIN}|{_LITERAL})(?:,@(?:{_DOMAIN}|{_LITERAL}))*:)?"

_MAILBOX = re.compile(
    rf"(?P<local>{_DOT_STRING}|{_QUOTED_STRING})@(?P<domain>{_DOMAIN}|{_LITERAL})"
)
_PATH = re.compile(
    rf"<(?:{_SOURCE_ROUTE}{_MAILBOX.pattern}|(?P<postmaster>[Pp][Oo][Ss][Tt][Mm][Aa][Ss][Tt][Ee][Rr]))>"
)
_DOT_STRING_ONLY = re.compile(_DOT_STRING)

# Characters of a local-part that is normalized; it is quadratic in those that combine with one, and
# RFC 5321 §4.5.3.1.1 has 64 octets in all.
_LONGEST_NORMALIZED = 1_024

# RFC 5321 §4.1.2 sub-domain = Let-dig [Ldh-str]. The underscore is a leniency: hosts of Windows
# networks have it in their names, and no other server that we know refuses their mail.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


@frozen
class Mailbox:
    """A mailbox in canonical form.

    Attributes:
        local_part: its meaning, without quotes or backslashes; case as it was written.
        domain: lower-case A-labels, or an address literal in brackets; empty only for the
            ``<postmaster>`` of RFC 5321 §4.1.1.3, which stands without a domain.
    """

    local_part: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Return the mailbox that ``text`` (``user@example.net``, without brackets) names.

        Raises:
            AddressError: it names none.
        """
        found = _MAILBOX.fullmatch(text)
        if not found:
            raise AddressError("not of the form local-part@domain")
        return _mailbox(found)

    @property
    def is_ascii(self) -> bool:
        """Whether it can travel without SMTPUTF8 (its domain always can, as A-labels)."""
        return self.local_part.isascii()

    def __str__(self) -> str:
        """The mailbox as RFC 5321 writes it, quoted where it has to be."""
        local_part = self.local_part
        if not _DOT_STRING_ONLY.fullmatch(local_part):
            local_part = '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local_part}@{self.domain}" if self.domain else local_part


def path(text: str, start: int = 0) -> tuple[Mailbox | None, int]:
    """Read a path of MAIL or RCPT at ``start``; a source route is dropped (RFC 5321 §3.6.1, §C).

    Returns:
        The mailbox (None for the null path ``<>``) and the index behind the closing bracket.

    Raises:
        AddressError: there is no path.
    """
    if text.startswith("<>", start):
        return None, start + 2
    found = _PATH.match(text, start)
    if not found:
        raise AddressError(_reason(text[start:]))
    if found["postmaster"]:
        return Mailbox("postmaster", ""), found.end()
    return _mailbox(found), found.end()


def _mailbox(found: re.Match[str]) -> Mailbox:
    local_part = found["local"]
    if local_part[0] == '"':
        local_part = re.sub(r"\\(.)", r"\1", local_part[1:-1])
    return Mailbox(local_part, domain_name(found["domain"]))


def _reason(text: str) -> str:
    if not text.startswith("<"):
        return "an address stands in angle brackets"
    if ">" not in text:
        return "the closing angle bracket is missing"
    if "@" not in text:
        return "an address needs a domain"
    return "not of the form <local-part@domain>"


@lru_cache(maxsize=4096)
def domain_name(text: str) -> str:
    """Return the canonical form of a domain or address literal.

    Raises:
        AddressError: it is neither.
    """
    if text.startswith("["):
        return f"[{_literal(text)}]"
    name = text.removesuffix(".").lower()
    if not name.isascii():
        if len(name) > 253:  # its A-labels are no shorter, and take time to be made
            raise AddressError("not a domain name")
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise AddressError(f"not an internationalised domain name: {error!a}") from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):  # RFC 1035 §2.3.4
        raise AddressError("not a domain name")
    return name


@lru_cache(maxsize=1024)
def u_labels(domain: str) -> str:
    """Return a canonical domain with U-labels where it has A-labels (RFC 5890 §2.3.2.1).

    What stands for none (a label that only looks like an A-label) stays as it is.
    """
    if "xn--" not in domain:
        return domain
    try:
        name = idna.decode(domain)
        # A label that was let through by an older mapping, and would come back as another.
        return name if domain_name(name) == domain else domain
    except (idna.IDNAError, AddressError):
        return domain


def folded(local_part: str) -> str:
    """Return the form under which our own mailboxes are known: lower case, normalized.

    Two ways to write one character (é) are one mailbox: RFC 6532 §3.1. Those of other domains are
    for those domains to compare, and are never changed (RFC 5321 §2.4).
    """
    if local_part.isascii() or len(local_part) > _LONGEST_NORMALIZED:
        return local_part.lower()
    # Lower case may undo the normalization, so that comes last; and needs it, so it comes first.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local_part).lower())


def _literal(text: str) -> str:
    # RFC 5321 §4.1.3: "[" ( IPv4-address-literal / "IPv6:" IPv6-addr ) "]"; no other tag has ever
    # been registered, so a General-address-literal is nothing we could deliver to.
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            address = IPv6Address(inner[5:])
            if address.scope_id is not None:
                raise ValueError
            return f"IPv6:{address}"
        return str(IPv4Address(inner))
    except ValueError:
        raise AddressError("not an address literal") from None


def literal_address(domain: str) -> str | None:
    """Return the address inside a canonical address literal, or None for a domain name."""
    if not domain.startswith("["):
        return None
    return domain[1:-1].removeprefix("IPv6:")


def address_literal(address: str) -> str:
    """Return the literal (RFC 5321 §4.1.3) of an IPv4 or IPv6 address as the socket gave it."""
    address = address.partition("%")[0]  # a link-local scope means nothing elsewhere
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
