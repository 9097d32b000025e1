"""Mailboxes, paths and domains (RFC 5321 §4.1.2, RFC 6531 §3.3): one parser, one canonical form.

Policy and routing see canonical values alone, so that no spelling of an address means one thing to
one of them and another to the other. A canonical local-part has no quotes and keeps its case
(§2.4). A canonical domain is in lower case, in A-labels, without a trailing dot; an address literal
(§4.1.3) is as the ``ipaddress`` module writes it.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import idna
from attrs import field, frozen


class AddressError(ValueError):
    """A text is not an address; the message says why, for people, in printable ASCII."""


# RFC 5321 §4.1.2, with RFC 6531 §3.3 adding UTF8-non-ascii to atext, qtextSMTP and sub-domain:
#
#   Path           = "<" [ A-d-l ":" ] Mailbox ">"
#   A-d-l          = At-domain *( "," At-domain )
#   Mailbox        = Local-part "@" ( Domain / address-literal )
#   Local-part     = Dot-string / Quoted-string
#   Quoted-string  = DQUOTE *( qtextSMTP / %d92 %d32-126 ) DQUOTE
#
# The control characters from U+0080 to U+009F are left out: no mailbox needs them, and a terminal
# or a line reader may obey them. The characters of a domain are checked by `domain_name`, which
# gives a reason. Quantifiers are possessive: no two neighbors match the same characters.
#
# Dots may stand at an end of a Dot-string and in a row: providers in Japan gave such addresses to
# millions of people (docomo, au), and the local-part is only for its own host to read (§2.3.11).
#
# The characters of both are classes of what is not allowed: `re` takes milliseconds to prepare one
# with ranges up to U+10FFFF.
_DOT_STRING = r'[^\x00-\x20"(),:;<>@\[\\\]\x7f-\x9f]++'
_QUOTED_STRING = r'"(?:[^\x00-\x1f"\\\x7f-\x9f]++|\\[\x20-\x7e])*+"'
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
_LOOSE_DOT = re.compile(r"\A\.|\.\.|\.\Z")

# Characters of a local-part that is normalized: the time is quadratic in combining characters, and
# RFC 5321 §4.5.3.1.1 allows 64 octets.
_LONGEST_NORMALIZED = 1_024

# RFC 5321 §4.1.2: sub-domain = Let-dig [Ldh-str]. The underscore is a leniency: hosts of Windows
# networks have it in their names, and no other server that we know refuses their mail.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


@frozen
class Mailbox:
    """A mailbox in canonical form.

    Attributes:
        local_part: the local-part without quotes and backslashes, its case kept.
        domain: lower-case A-labels, or an address literal in brackets; empty only for
            ``<postmaster>`` without a domain (RFC 5321 §4.1.1.3).
        quoted: whether a local-part with a dot at an end, or dots in a row, came in quotes, and
            goes on in quotes. It is the same mailbox without them.
    """

    local_part: str
    domain: str
    quoted: bool = field(default=False, eq=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """Return the mailbox in ``text``: ``user@example.net``, without angle brackets.

        Raises:
            AddressError: ``text`` is no mailbox.
        """
        match = _MAILBOX.fullmatch(text)
        if not match:
            raise AddressError("not of the form local-part@domain")
        return _mailbox(match)

    @property
    def is_ascii(self) -> bool:
        """Whether it needs no SMTPUTF8 (the domain never does, in A-labels)."""
        return self.local_part.isascii()

    def __str__(self) -> str:
        """The mailbox as RFC 5321 writes it, with quotes where it needs them."""
        local_part = self.local_part
        if self.quoted or not _DOT_STRING_ONLY.fullmatch(local_part):
            local_part = '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local_part}@{self.domain}" if self.domain else local_part


def path(text: str, start: int = 0) -> tuple[Mailbox | None, int]:
    """Read the path of MAIL or RCPT at ``start``; a source route is dropped (RFC 5321 §3.6.1, §C).

    Returns:
        The mailbox (None: the null path ``<>``), and the index behind the closing bracket.

    Raises:
        AddressError: no path stands there.
    """
    if text.startswith("<>", start):
        return None, start + 2
    match = _PATH.match(text, start)
    if not match:
        raise AddressError(_reason(text[start:]))
    if match["postmaster"]:
        return Mailbox("postmaster", ""), match.end()
    return _mailbox(match), match.end()


def _mailbox(match: re.Match[str]) -> Mailbox:
    local_part = match["local"]
    if local_part[0] == '"':
        local_part = re.sub(r"\\(.)", r"\1", local_part[1:-1])
        quoted = _LOOSE_DOT.search(local_part) is not None
        return Mailbox(local_part, domain_name(match["domain"]), quoted)
    return Mailbox(local_part, domain_name(match["domain"]))


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
        AddressError: ``text`` is neither.
    """
    if text.startswith("["):
        return f"[{_literal(text)}]"
    name = text.removesuffix(".").lower()
    if not name.isascii():
        if len(name) > 253:  # A-labels are no shorter, and take time to compute
            raise AddressError("not a domain name")
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise AddressError(f"not an internationalized domain name: {error!a}") from None
    if len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):  # RFC 1035 §2.3.4
        raise AddressError("not a domain name")
    return name


@lru_cache(maxsize=1024)
def u_labels(domain: str) -> str:
    """Return a canonical domain with its A-labels decoded to U-labels (RFC 5890 §2.3.2.1).

    A domain with a label that only looks like an A-label is returned unchanged.
    """
    if "xn--" not in domain:
        return domain
    try:
        name = idna.decode(domain)
        # A label made by an older mapping would not encode to itself again.
        return name if domain_name(name) == domain else domain
    except (idna.IDNAError, AddressError):
        return domain


def folded(local_part: str) -> str:
    """Return a local-part of ours for comparisons: in lower case and normalized.

    Two encodings of one character (é) are one mailbox (RFC 6532 §3.1). Local-parts of other domains
    are never changed: only their own hosts may compare them (RFC 5321 §2.4).
    """
    if local_part.isascii() or len(local_part) > _LONGEST_NORMALIZED:
        return local_part.lower()
    # Lower-casing needs normalized text, and may undo the normalization: normalize before and
    # after.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", local_part).lower())


def is_postmaster(mailbox: Mailbox) -> bool:
    """Whether the local part is ``postmaster``, in any case, with or without a tag.

    It exists in every domain that takes mail (RFC 5321 §4.5.1).
    """
    return folded(mailbox.local_part).partition("+")[0] == "postmaster"


def _literal(text: str) -> str:
    # RFC 5321 §4.1.3: "[" ( IPv4-address-literal / "IPv6:" IPv6-addr ) "]". No other tag was ever
    # registered, so we could deliver to no General-address-literal.
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
    """Return the IP address in a canonical address literal; None: ``domain`` is a domain name."""
    if not domain.startswith("["):
        return None
    return domain[1:-1].removeprefix("IPv6:")


def address_literal(address: str) -> str:
    """Return the address literal (RFC 5321 §4.1.3) of an IP address as a socket gives it."""
    address = address.partition("%")[0]  # a link-local scope has no meaning on other hosts
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
