"""The Received field (RFC 5321 §4.4) and its ``with`` types.

Text of a peer (its greeting, its reverse name, its certificate) is quoted so that it can neither
end the field or a comment, nor pass for our own words.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import evolve

from ..mail.address import (
    AddressError,
    Mailbox,
    address_literal,
    domain_name,
    literal_address,
    u_labels,
)
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..mail.tls_facts import TLSFacts
from ..smtp.command import Greeting
from .date import date_time

# RFC 3848 and RFC 6531 §4.3 as one table: the protocol by (greeting, SMTPUTF8). A HELO session has
# no extensions, so its name gets no letters, not even for TLS; a comment tells of that.
_PROTOCOLS: dict[tuple[Greeting, bool], str] = {
    ("HELO", False): "SMTP",
    ("HELO", True): "SMTP",
    ("EHLO", False): "ESMTP",
    ("EHLO", True): "UTF8SMTP",
    ("LHLO", False): "LMTP",
    ("LHLO", True): "UTF8LMTP",
}

_WIDTH = 78  # RFC 5322 §2.1.1: characters of a line without its CR LF
_LONGEST_COMMENT = 200  # characters of a peer's text; lines stay far below 998 octets
_LONGEST_MAILBOX = 900  # octets in a ``for`` clause, likewise

# RFC 5321 §4.1.2 without the underscore that `domain_name` allows for routing: other programs parse
# this field.
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FOR_CLAUSE = re.compile(rb"\r\n\tfor <[^\r\n]*>(;(?: |\r\n\t))?")
_COMMENT_SPECIALS = re.compile(r"[()\\]")


def with_type(greeting: Greeting, *, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """Return the protocol for the ``with`` clause (RFC 3848, RFC 6531 §4.3).

    Args:
        greeting: the command that opened the session.
        tls: Whether TLS is active, by STARTTLS or implicitly.
        authenticated: Whether AUTH succeeded in this session.
        smtputf8: Whether the MAIL command had the SMTPUTF8 parameter.
    """
    protocol = _PROTOCOLS[greeting, smtputf8]
    if greeting == "HELO":
        return protocol
    return protocol + "S" * tls + "A" * authenticated  # RFC 3848: S comes first


def received(
    *,
    greeting: Greeting | None,
    helo: str,
    peer_address: str | None,
    peer_name: str | None,
    user: int | None = None,
    names_client: bool = True,
    by: str,
    queue_id: QueueId,
    recipient: Mailbox | None,
    tls: TLSFacts | None,
    authenticated: bool,
    smtputf8: bool,
    priority: int = 0,
    time: float,
    utc_offset: int = 0,
) -> bytes:
    """Return a whole Received field (RFC 5321 §4.4), folded, with its CR LF.

    Args:
        greeting: the command that opened the session; None: the message comes from this program
            itself, without a client, and the field has neither a ``from`` nor a ``with`` clause.
        helo: the argument of that command.
        peer_address: the client's IP address; None for a UNIX socket.
        peer_name: the verified host name of that address; None: unknown.
        user: the id of a user of this machine whose program has sent the message: named in a
            comment, in place of a ``from`` clause. None: it came from elsewhere.
        names_client: Whether the field has a ``from`` clause, which shows where a user is; RFC 5321
            §4.4 asks for one.
        by: our own host name.
        queue_id: the message's queue id.
        recipient: the only recipient; None for several, as none may learn of the others (RFC 5321
            §7.2).
        tls: the TLS session; None in clear.
        authenticated: as for `with_type`.
        smtputf8: as for `with_type`.
        priority: the priority from here on; 0 gets no clause (RFC 6710).
        time: seconds since the epoch.
        utc_offset: as for `date_time`.
    """
    if names_client and greeting is not None and user is None:
        start = _from_clause(helo, peer_address, peer_name, tls) + "\r\n\tby"
    else:
        start = "Received: by"
    protocol = ""
    if greeting is not None:
        name = with_type(
            greeting, tls=tls is not None, authenticated=authenticated, smtputf8=smtputf8
        )
        protocol = f"with {name} "
    date = date_time(int(time), utc_offset)
    # "by NAME with PROTOCOL id ID" fits on a line unless our own name is very long.
    fold = " " if len(by) <= 36 else "\r\n\t"
    if user is not None:
        fold = f"{fold}(from user id {user})\r\n\t"
    clause = _for_clause(recipient, smtputf8) if recipient is not None else ";\r\n\t"
    if priority:  # RFC 6710 §4.4: a clause behind all others
        clause = f"{clause.rstrip()[:-1]}\r\n\tpriority {priority}; "
    return f"{start} {by}{fold}{protocol}id {queue_id}{clause}{date}\r\n".encode()


def without_utf8_recipient(trace: bytes) -> bytes:
    """Return trace fields whose Received field has no ``for`` clause, unless all are ASCII.

    The clause is optional, and a next hop without SMTPUTF8 takes ASCII alone.
    """
    return trace if trace.isascii() else _FOR_CLAUSE.sub(_clause_end, trace, count=1)


def _clause_end(clause: re.Match[bytes]) -> bytes:
    return b";\r\n\t" if clause[1] else b""


def _domain(text: str) -> str | None:
    """Return ``text`` as a Domain or address-literal (RFC 5321 §4.1.2); None: it is neither."""
    try:
        name = domain_name(text)
    except AddressError:
        return None
    return name if name.startswith("[") or _DOMAIN.fullmatch(name) else None


def _comment(text: str) -> str:
    """Return ``text`` for the inside of a comment (RFC 5322 §3.2.2), shortened if need be."""
    text = printable(text)
    if len(text) > _LONGEST_COMMENT:
        text = text[:_LONGEST_COMMENT] + "..."
    return _COMMENT_SPECIALS.sub(r"\\\g<0>", text)


@lru_cache(maxsize=1024)
def _from_clause(
    helo: str, peer_address: str | None, peer_name: str | None, tls: TLSFacts | None
) -> str:
    domain = _domain(helo)
    literal = address_literal(peer_address) if peer_address is not None else ""
    comments = []
    if literal:
        name = _domain(peer_name) if peer_name is not None else None
        if name is not None and not name.startswith("["):
            comments.append(f"({name} {literal})")  # RFC 5321 §4.4: TCP-info
        else:
            comments.append(f"({literal})")
            if peer_name is not None:
                comments.append(f"(reverse name {_comment(peer_name)})")
    elif domain is not None and literal_address(domain) is not None:
        domain = None  # the grammar demands TCP-info behind an address-literal, and there is none
    if domain is None:
        domain = literal or "unknown"
        comments.append(f"(greeted as {_comment(helo)})")
    if tls is not None:
        comments.extend(_tls_comments(tls))
    return _folded(["Received: from", domain, *comments])


def _tls_comments(tls: TLSFacts) -> list[str]:
    exchange = f", key exchange {_comment(tls.key_exchange)}" if tls.key_exchange else ""
    comments = [
        f"({_comment(tls.version)} with cipher {_comment(tls.cipher)}, {tls.bits} bits{exchange})"
    ]
    if tls.peer_subject is not None or tls.peer_fingerprint is not None:
        # Our verdict comes before the names: no made-up name can then pass for it.
        comments += [
            f"(client certificate {'verified' if tls.peer_verified else 'not verified'},",
            f"SHA-256 {tls.peer_fingerprint or 'unknown'},",
            f"subject {_comment(tls.peer_subject or 'none')},",
            f"issuer {_comment(tls.peer_issuer or 'none')})",
        ]
    return comments


@lru_cache(maxsize=1024)
def _for_clause(recipient: Mailbox, smtputf8: bool) -> str:
    """Return the clause with its folds, from behind the queue id to the beginning of the date."""
    if smtputf8:
        recipient = evolve(recipient, domain=u_labels(recipient.domain))
    path = str(recipient)
    # RFC 6531 §3.7.3: UTF-8 only in a message with SMTPUTF8.
    shown = not _CONTROLS.search(path) and (smtputf8 or path.isascii())
    size = len(path.encode()) if shown else 0
    if not shown or size > _LONGEST_MAILBOX:
        return ";\r\n\t"
    # Before the date's 31 octets stand a tab, "for <", ">;" and a space.
    fold = " " if size + 8 + 1 + 31 <= _WIDTH else "\r\n\t"
    return f"\r\n\tfor <{path}>;{fold}"


def _folded(words: list[str]) -> str:
    """Join ``words`` by spaces; fold a full line between words, or at a space inside one."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append("")
        for part in word.split(" ") if len(word) >= _WIDTH else [word]:
            if lines[-1] and len(lines[-1]) + 1 + len(part) > _WIDTH:
                lines.append("")
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return "\r\n\t".join(lines)
