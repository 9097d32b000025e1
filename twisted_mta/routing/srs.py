"""SRS, the sender rewriting scheme: forward mail with a reverse-path of ours, which leads back.

A forwarder is not among the hosts that the SPF record of the sender's domain permits. So the
reverse-path of forwarded mail becomes a mailbox of ours that contains the original one::

    ann@sender.example       SRS0=HASH=DAY=sender.example=ann@us.example
    SRS0=x=y@first.example   SRS1=HASH=first.example==x=y@us.example
    a local part too long    SRS0=HASH=DAY==TAG@us.example

The second form is for mail that was forwarded before: the name does not grow with the number of
forwarders, and a notice goes from the last forwarder to the first one, and from there to the
sender. HASH proves that the mailbox was written here: a shortened HMAC of the rest. Without it,
such a mailbox would make us an open relay. DAY limits its validity. A local part has 64 octets at
most (RFC 5321 §4.5.3.1.1), and servers refuse longer ones: a sender that would exceed them is kept
in a table, under the TAG.

Other systems may change the case of a local part: case has no meaning here.

Pure: key, time and table are arguments.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from typing import Protocol

from ..mail.address import Mailbox, domain_name

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # base 32 (RFC 4648 §6) survives a change of case
_DAY = 86_400.0
_DAYS = 1024  # in two letters: day numbers repeat after three years
_HASH = 6  # letters, 30 bits: guessing takes 10^9 refused RCPT commands
# A message may be queued for 5 days by each of a few hosts, and so may its notice.
_VALID = 21  # days
_TAG = 16  # letters, 80 bits
_LONGEST_LOCAL_PART = 64  # octets (RFC 5321 §4.5.3.1.1)
# RFC 5321 §4.5.3.1.3: a path has 256 octets at most, with its brackets.
_LONGEST = 254

# A forwarder may choose the separator after SRS0; the others are fixed.
_SRS = re.compile(r"SRS([01])[-+=](.*)", re.IGNORECASE | re.DOTALL)


class BadSRS(Exception):
    """A mailbox in the form of SRS that was not written here; the text says why."""


class TooOld(BadSRS):
    """A mailbox that was written here, too long ago."""


class TagTable(Protocol):
    """Senders that are too long for a rewritten mailbox, by tag (`sender_tags.SenderTags`)."""

    @property
    def has_room(self) -> bool:
        """Whether one more sender may be tagged."""
        ...

    def find(self, tag: str) -> Mailbox:
        """Return the sender with a tag.

        Raises:
            FileNotFoundError: there is none, or no longer.
            OSError: the table cannot be read.
            ValueError: the entry is damaged.
        """
        ...


def is_srs(mailbox: Mailbox) -> bool:
    """Whether a mailbox has the form of SRS, written here or elsewhere."""
    return _SRS.fullmatch(mailbox.local_part) is not None


class SenderRewriting:
    """Rewrites reverse-paths, and restores them.

    Args:
        domain: of rewritten mailboxes, canonical.
        key: of the HMAC; at least 16 octets.
        tags: the senders that are too long; None: they are not rewritten.

    Raises:
        ValueError: the key is too short.
    """

    def __init__(self, domain: str, key: bytes, tags: TagTable | None = None) -> None:
        if len(key) < 16:
            raise ValueError(f"found an SRS key of {len(key)} octets, expected at least 16")
        self.domain = domain
        self._key = key
        self._tags = tags

    def rewritten(self, reverse_path: Mailbox, now: float) -> Mailbox:
        """Return the mailbox of ours that leads back to ``reverse_path``.

        Where that would be too long, it has the tag of ``reverse_path`` (`tag_of`), which has to be
        in the table before the mailbox is used. Without room there, or where even that would exceed
        the length of a path, it is ``reverse_path`` itself.

        Args:
            reverse_path: of the message to forward.
            now: seconds since the epoch.
        """
        match = _SRS.fullmatch(reverse_path.local_part)
        local_part: str | None = None
        if match and match[1] == "0":
            # The tail keeps the separator after SRS0, so that the mailbox can be restored.
            local_part = self._forwarded(reverse_path.domain, reverse_path.local_part[4:])
        elif match:
            _, domain, tail = (*match[2].split("=", 2), "", "")[:3]
            if domain and tail:
                local_part = self._forwarded(domain, tail)
        if local_part is None:
            local_part = self._signed(reverse_path.domain, reverse_path.local_part, now)
        mailbox = Mailbox(local_part, self.domain)
        if not _is_short(mailbox) and self._tags is not None and self._tags.has_room:
            mailbox = Mailbox(self._signed("", self._tag(reverse_path), now), self.domain)
        return mailbox if _is_short(mailbox) else reverse_path

    def tag_of(self, mailbox: Mailbox) -> str | None:
        """Return the key of the table in a mailbox that `rewritten` returned; None: it has none."""
        match = _SRS.fullmatch(mailbox.local_part)
        if not match or match[1] != "0":
            return None
        _, day, domain, tag = (*match[2].split("=", 3), "", "", "")[:4]
        return None if domain or not tag else _key(day, tag)

    def restored(self, mailbox: Mailbox, now: float) -> Mailbox:
        """Return the reverse-path that a mailbox of ours was rewritten from.

        Args:
            mailbox: in a domain of ours, and `is_srs`.
            now: seconds since the epoch.

        Raises:
            TooOld: it was written more than 21 days ago, or its sender is not in the table.
            BadSRS: it was not written here.
            OSError: the table cannot be read.
        """
        match = _SRS.fullmatch(mailbox.local_part)
        if not match:
            raise BadSRS("not a rewritten mailbox")
        digest, _, rest = match[2].partition("=")
        if not hmac.compare_digest(digest.upper().encode(), self._hash(match[1], rest).encode()):
            raise BadSRS("not a mailbox that was made here")
        try:
            if match[1] == "1":
                domain, _, tail = rest.partition("=")
                return Mailbox(f"SRS0{tail}", domain_name(domain))
            day, domain, local_part = rest.split("=", 2)
            if has_expired(day, now):
                raise TooOld("made too long ago")
            if domain or not local_part:
                return Mailbox(local_part, domain_name(domain))
            if self._tags is None:
                raise TooOld("the table of senders is not in use")
            return self._tags.find(_key(day, local_part))
        except FileNotFoundError:
            raise TooOld("the sender is not in the table") from None
        except ValueError:  # AddressError is one
            raise BadSRS("not a mailbox that was made here") from None

    def _forwarded(self, domain: str, tail: str) -> str:
        rest = f"{domain}={tail}"
        return f"SRS1={self._hash('1', rest)}={rest}"

    def _signed(self, domain: str, local_part: str, now: float) -> str:
        day = _day(now)
        rest = f"{_LETTERS[day >> 5]}{_LETTERS[day & 31]}={domain}={local_part}"
        return f"SRS0={self._hash('0', rest)}={rest}"

    def _tag(self, sender: Mailbox) -> str:
        # The case of the sender counts, unlike in `_hash`.
        text = f"tag {sender}".encode("utf-8", "surrogatepass")
        return b32encode(hmac.digest(self._key, text, "sha256"))[:_TAG].decode("ascii")

    def _hash(self, form: str, rest: str) -> str:
        # The form is a part of it: otherwise one form could be presented as the other.
        digest = hmac.digest(
            self._key, f"{form}{rest}".lower().encode("utf-8", "surrogatepass"), "sha256"
        )
        return b32encode(digest)[:_HASH].decode("ascii")


def has_expired(day: str, now: float) -> bool:
    """Whether mailboxes written on a day, in its two letters, are valid no longer.

    Raises:
        ValueError: it is no day.
    """
    high, low = map(_LETTERS.index, day.upper())
    return (_day(now) - (high << 5 | low)) % _DAYS > _VALID


def _day(now: float) -> int:
    return int(now // _DAY) % _DAYS


def _key(day: str, tag: str) -> str:
    return f"{day}-{tag}".upper()


def _is_short(mailbox: Mailbox) -> bool:
    """Whether local part and path are within the lengths of RFC 5321, as they are written."""
    path = str(mailbox).encode("utf-8", "surrogatepass")
    local_part = path[: -len(mailbox.domain) - 1]
    return len(local_part) <= _LONGEST_LOCAL_PART and len(path) <= _LONGEST
