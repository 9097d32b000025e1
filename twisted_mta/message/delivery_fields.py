"""The fields of a delivered or forwarded copy: Return-Path, Delivered-To, X-Spam-Flag, …."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..mail.address import Mailbox
from ..mail.printable import printable
from ..mail.utf8_address import decode_utf8_address, encode_utf8_address

_LONGEST_MAILBOX = 900  # octets, so that a line stays below 998
_LONGEST_REASON = 900  # octets, likewise
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def return_path(reverse_path: Mailbox | None) -> bytes:
    """Return the field that final delivery puts first (RFC 5321 §4.4), with its CR LF.

    Args:
        reverse_path: the reverse-path of the envelope; None: the null reverse-path.
    """
    if reverse_path is None:
        return b"Return-Path: <>\r\n"
    return f"Return-Path: <{_field_text(reverse_path)}>\r\n".encode()


def delivered_to(mailbox: Mailbox, original: Mailbox | None) -> bytes:
    """Return the fields that name the recipient of a copy, with their CR LF.

    Delivered-To is that of RFC 9228. Postfix and others write X-Original-To too; people sort mail
    for a sub-address, an alias or a catch-all by it, as no other field need name them.

    Args:
        mailbox: the mailbox that the copy was delivered to.
        original: the mailbox that the sender wrote; None: ``mailbox``.
    """
    field = f"Delivered-To: {_field_text(mailbox)}\r\n"
    if original is not None:
        field = f"X-Original-To: {_field_text(original)}\r\n{field}"
    return field.encode()


def alias_fields(aliases: Sequence[Mailbox]) -> bytes:
    """Return a Delivered-To field for each alias of a forwarded copy, the last one on top.

    Mail that comes back to one of them is in a loop (RFC 9228). They are ASCII, so that the copy
    needs no more extensions than the message.

    Args:
        aliases: the aliases that led to the recipient, the first one first.
    """
    addresses = [_ascii_address(each) for each in reversed(aliases)]
    return "".join(
        f"Delivered-To: {each}\r\n" for each in addresses if len(each) <= _LONGEST_MAILBOX
    ).encode()


def junk_fields(reason: str) -> bytes:
    """Return the fields that tell the next hop to file a copy among junk, with their CR LF.

    X-Spam-Flag is SpamAssassin's: rules of Sieve, of Exchange and of mail programs look for it.
    It has one value alone, so that they may compare the whole; the reason is a field of its own.

    Args:
        reason: for people.
    """
    return f"X-Spam-Flag: YES\r\nX-Spam-Reason: {printable(reason)[:_LONGEST_REASON]}\r\n".encode()


def read_delivered_to(value: bytes) -> Mailbox | None:
    """Return the mailbox that a Delivered-To field of any program names; None: it names none.

    Args:
        value: the octets behind the colon, folded or not.
    """
    text = value.replace(b"\r\n", b"").strip(b" \t").decode("utf-8", "replace")
    text = text.removeprefix("<").removesuffix(">")
    try:
        return Mailbox.parse(decode_utf8_address(text) if "\\x{" in text else text)
    except ValueError:  # AddressError is one
        return None


def _ascii_address(mailbox: Mailbox) -> str:
    address = str(mailbox)
    return address if mailbox.is_ascii else encode_utf8_address(address)


def _field_text(mailbox: Mailbox) -> str:
    address = str(mailbox)
    return printable(address) if _CONTROLS.search(address) else address
