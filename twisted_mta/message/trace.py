"""Trace fields (RFC 5321 §4.4): Received with its ``with`` types, Return-Path, and Delivered-To.

Pure. Whatever a peer chose (its greeting, its reverse name, its certificate) is quoted here so that
it can neither end the field, nor a comment, nor pass for something that we say ourselves.
"""

from __future__ import annotations

import re
import time as calendar
from collections.abc import Sequence
from functools import lru_cache

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
from ..mail.utf8_address import decode_utf8_address, encode_utf8_address
from ..smtp.command import Greeting

# RFC 3848 and RFC 6531 §4.3 as one table: the protocol by (greeting, SMTPUTF8). A HELO session has
# no extensions, so no letters follow its name either, though TLS may well be active: then that is
# said in the comment.
_PROTOCOLS: dict[tuple[Greeting, bool], str] = {
    ("HELO", False): "SMTP",
    ("HELO", True): "SMTP",
    ("EHLO", False): "ESMTP",
    ("EHLO", True): "UTF8SMTP",
    ("LHLO", False): "LMTP",
    ("LHLO", True): "UTF8LMTP",
}

_WIDTH = 78  # RFC 5322 §2.1.1: no line should be longer, without its CR LF
_QUOTED = 200  # characters of one thing that a peer said; lines stay far below 998 octets
_LONGEST_MAILBOX = 900  # octets in `for`, for the same reason

# RFC 5321 §4.1.2 without the underscore that `domain_name` lets pass for routing: a field that
# other programs parse is no place for leniency.
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_FOR_CLAUSE = re.compile(rb"\r\n\tfor <[^\r\n]*>(;(?: |\r\n\t))?")
_COMMENT_SPECIALS = re.compile(r"[()\\]")

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def with_type(greeting: Greeting, *, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """Return the protocol for the ``with`` clause (RFC 3848, RFC 6531 §4.3).

    Args:
        greeting: the command that the client introduced itself with.
        tls: TLS is active, by STARTTLS or implicitly.
        authenticated: AUTH succeeded in this session, after the last STARTTLS.
        smtputf8: the MAIL command had the SMTPUTF8 parameter.
    """
    protocol = _PROTOCOLS[greeting, smtputf8]
    if greeting == "HELO":
        return protocol
    return protocol + "S" * tls + "A" * authenticated  # RFC 3848: S comes first


@lru_cache(maxsize=16)
def date_time(second: int, utc_offset: int = 0) -> str:
    """Return a date as RFC 5322 §3.3 writes it: ``Sun, 22 Nov 2026 10:00:00 +0000``.

    Args:
        second: since the epoch.
        utc_offset: how many seconds local time is ahead of UTC; a multiple of 60.
    """
    local = calendar.gmtime(second + utc_offset)
    hours, minutes = divmod(abs(utc_offset) // 60, 60)
    return (
        f"{_DAYS[local.tm_wday]}, {local.tm_mday} {_MONTHS[local.tm_mon - 1]} {local.tm_year:04}"
        f" {local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02}"
        f" {'-' if utc_offset < 0 else '+'}{hours:02}{minutes:02}"
    )


def received(
    *,
    greeting: Greeting,
    helo: str,
    peer_address: str | None,
    peer_name: str | None,
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
        greeting: the command that the client introduced itself with.
        helo: the name it gave, as it came.
        peer_address: where it connected from; None for a UNIX socket.
        peer_name: the name of that address in the DNS, if it was looked up and has one.
        by: our own name, a domain.
        queue_id: the message's.
        recipient: the only recipient; None where there are several, none of which must learn of
            the others (RFC 5321 §7.2).
        tls: what the handshake achieved, None in clear.
        authenticated: as for `with_type`.
        smtputf8: as for `with_type`.
        priority: that it has from here on; 0 is not worth a word (RFC 6710).
        time: seconds since the epoch.
        utc_offset: as for `date_time`.
    """
    start = _from_clause(helo, peer_address, peer_name, tls)
    protocol = with_type(
        greeting, tls=tls is not None, authenticated=authenticated, smtputf8=smtputf8
    )
    date = date_time(int(time), utc_offset)
    # "by NAME with PROTOCOL id ID" fits on a line unless our own name is very long.
    fold = " " if len(by) <= 36 else "\r\n\t"
    clause = _for_clause(recipient, smtputf8) if recipient is not None else ";\r\n\t"
    if priority:  # RFC 6710 §4.4: a clause behind all others
        clause = f"{clause.rstrip()[:-1]}\r\n\tpriority {priority}; "
    return f"{start}\r\n\tby {by}{fold}with {protocol} id {queue_id}{clause}{date}\r\n".encode()


def in_ascii(trace: bytes) -> bytes:
    """Return a field that `received` made without its ``for`` clause, if that is not ASCII.

    It may say less, and then goes to next hops without SMTPUTF8 too.
    """
    return trace if trace.isascii() else _FOR_CLAUSE.sub(_without, trace, count=1)


def _without(found: re.Match[bytes]) -> bytes:
    return b";\r\n\t" if found[1] else b""


def return_path(reverse_path: Mailbox | None) -> bytes:
    """Return the field that final delivery puts first (RFC 5321 §4.4), with its CR LF.

    Args:
        reverse_path: of the envelope; None is the null reverse-path.
    """
    if reverse_path is None:
        return b"Return-Path: <>\r\n"
    return f"Return-Path: <{_field_text(reverse_path)}>\r\n".encode()


def delivered_to(mailbox: Mailbox, original: Mailbox | None) -> bytes:
    """Return the fields that say whose copy this is, with their CR LF.

    RFC 9228 has the one. Postfix and others write both, and people sort by them what came for a
    sub-address, an alias or a catch-all, none of which the other fields need tell.

    Args:
        mailbox: where it was delivered.
        original: what the sender wrote, None where it is the same.
    """
    field = f"Delivered-To: {_field_text(mailbox)}\r\n"
    if original is not None:
        field = f"X-Original-To: {_field_text(original)}\r\n{field}"
    return field.encode()


def passed(aliases: Sequence[Mailbox]) -> bytes:
    """Return the fields of a copy that leaves by aliases, with their CR LF, the last alias on top.

    RFC 9228: mail that comes back to one of them is in a loop. They are ASCII, so that the copy
    needs no other extensions than the message.

    Args:
        aliases: by which it leaves, the first one first.
    """
    addresses = [_ascii_address(each) for each in reversed(aliases)]
    return "".join(
        f"Delivered-To: {each}\r\n" for each in addresses if len(each) <= _LONGEST_MAILBOX
    ).encode()


def mailbox_of(delivered_to: bytes) -> Mailbox | None:
    """Return the mailbox that a Delivered-To field names, whoever wrote it; None: it names none.

    Args:
        delivered_to: what stands behind the colon, folded or not.
    """
    text = delivered_to.replace(b"\r\n", b"").strip(b" \t").decode("utf-8", "replace")
    text = text.removeprefix("<").removesuffix(">")
    try:
        return Mailbox.parse(decode_utf8_address(text) if "\\x{" in text else text)
    except ValueError:  # AddressError is one
        return None


def _ascii_address(mailbox: Mailbox) -> str:
    address = str(mailbox)
    return address if mailbox.is_ascii else encode_utf8_address(address)


def _field_text(mailbox: Mailbox) -> str:
    path = str(mailbox)
    return printable(path) if _CONTROLS.search(path) else path


def _domain(text: str) -> str | None:
    """Return ``text`` as RFC 5321's Domain or address-literal, with A-labels; None if it is not."""
    try:
        name = domain_name(text)
    except AddressError:
        return None
    return name if name.startswith("[") or _DOMAIN.fullmatch(name) else None


def _comment(text: str) -> str:
    """Return ``text`` for the inside of a comment (RFC 5322 §3.2.2), shortened if need be."""
    text = printable(text)
    if len(text) > _QUOTED:
        text = text[:_QUOTED] + "..."
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
        domain = None  # an address-literal demands a TCP-info behind it, and there is none
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
        # What we found comes first: no name, however it is made up, can then pass for it.
        comments += [
            f"(client certificate {'verified' if tls.peer_verified else 'not verified'},",
            f"SHA-256 {tls.peer_fingerprint or 'unknown'},",
            f"subject {_comment(tls.peer_subject or 'none')},",
            f"issuer {_comment(tls.peer_issuer or 'none')})",
        ]
    return comments


@lru_cache(maxsize=1024)
def _for_clause(recipient: Mailbox, smtputf8: bool) -> str:
    """Return the clause with its folds, from the end of the id up to the date."""
    if smtputf8:
        recipient = Mailbox(recipient.local_part, u_labels(recipient.domain))
    path = str(recipient)
    # RFC 6531 §3.7.3: UTF-8 stands here only in a message that has SMTPUTF8.
    shown = not _CONTROLS.search(path) and (smtputf8 or path.isascii())
    size = len(path.encode()) if shown else 0
    if not shown or size > _LONGEST_MAILBOX:
        return ";\r\n\t"
    # The date has 31 octets; tab, "for <", ">;" and a space go before it.
    fold = " " if size + 8 + 1 + 31 <= _WIDTH else "\r\n\t"
    return f"\r\n\tfor <{path}>;{fold}"


def _folded(words: list[str]) -> str:
    """Join ``words`` by spaces, folding between them, or at spaces inside, where a line is full."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append("")
        for part in word.split(" ") if len(word) >= _WIDTH else [word]:
            if lines[-1] and len(lines[-1]) + 1 + len(part) > _WIDTH:
                lines.append("")
            lines[-1] = f"{lines[-1]} {part}" if lines[-1] else part
    return "\r\n\t".join(lines)
