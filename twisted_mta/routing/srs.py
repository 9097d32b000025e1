"""SRS, the sender rewriting scheme: how mail is forwarded in our own name, and notices come back.

Who forwards mail cannot leave its reverse-path as it is, where the domain in it says by SPF who may
send for it: we are not among them. So the reverse-path becomes a mailbox of ours, and holds the old
one::

    ann@sender.example       SRS0=HASH=DAY=sender.example=ann@us.example
    SRS0=x=y@first.example   SRS1=HASH=first.example==x=y@us.example

The second line is what was forwarded already: however often mail is forwarded, the name does not
grow, and a notice goes from the last to the first of those who did it, and from there to the
sender. HASH proves that we wrote it: an HMAC of the rest, shortened. Without that, anybody could
have us relay by writing such a mailbox. DAY limits how long it holds.

Systems on the way may change the case of a local-part: nothing here depends on it.

Pure: the key and the time are handed in.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode

from ..mail.address import AddressError, Mailbox, domain_name

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # base 32 (RFC 4648 §6): survives a change of case
_DAY = 86_400.0
_DAYS = 1024  # two letters; who was away for longer than three years gets no notice
_HASH = 6  # letters, 30 bits: 10^9 addresses to be guessed, each a refused RCPT
# A message may be queued for 5 days by each of a few hosts, and so may its notice.
_VALID = 21
# RFC 5321 §4.5.3.1.3: a path has 256 octets with its brackets.
_LONGEST = 254

# What parts SRS0 and the hash is free for the forwarder to choose; what follows that is not.
_SRS = re.compile(r"SRS([01])[-+=](.*)", re.IGNORECASE | re.DOTALL)


class BadSRS(Exception):
    """A mailbox that looks like one of SRS and holds no reverse-path of ours; the text says why."""


class TooOld(BadSRS):
    """It was written here, too long ago."""


def is_srs(mailbox: Mailbox) -> bool:
    """Whether a mailbox has the form of a rewritten one, whoever wrote it."""
    return _SRS.fullmatch(mailbox.local_part) is not None


class SenderRewriting:
    """Writes and reads such mailboxes.

    Args:
        domain: canonical; where notices come back to us.
        key: what proves that we wrote one; at least 16 octets.

    Raises:
        ValueError: the key is too short.
    """

    def __init__(self, domain: str, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError(f"a key of {len(key)} octets can be guessed; 16 at least would do")
        self.domain = domain
        self._key = key

    def rewritten(self, reverse_path: Mailbox, now: float) -> Mailbox:
        """Return the mailbox of ours that leads back to ``reverse_path``.

        Where that would be longer than a path may be, it is ``reverse_path`` itself.

        Args:
            reverse_path: of the message that is forwarded.
            now: seconds since the epoch.
        """
        found = _SRS.fullmatch(reverse_path.local_part)
        local_part: str | None = None
        if found and found[1] == "0":
            # Its tail keeps what parted it from SRS0, so that it can be put together again.
            local_part = self._forwarded(reverse_path.domain, reverse_path.local_part[4:])
        elif found:
            _, domain, tail = (*found[2].split("=", 2), "", "")[:3]
            if domain and tail:
                local_part = self._forwarded(domain, tail)
        if local_part is None:
            day = _day(now)
            rest = f"{_LETTERS[day >> 5]}{_LETTERS[day & 31]}={reverse_path.domain}"
            rest += f"={reverse_path.local_part}"
            local_part = f"SRS0={self._hash('0', rest)}={rest}"
        mailbox = Mailbox(local_part, self.domain)
        return mailbox if len(str(mailbox).encode()) <= _LONGEST else reverse_path

    def restored(self, mailbox: Mailbox, now: float) -> Mailbox:
        """Return the mailbox that one of ours leads back to.

        Args:
            mailbox: in our domain, and `is_srs`.
            now: seconds since the epoch.

        Raises:
            TooOld: we wrote it more than 21 days ago.
            BadSRS: we did not write it.
        """
        found = _SRS.fullmatch(mailbox.local_part)
        if not found:
            raise BadSRS("not a rewritten mailbox")
        given, _, rest = found[2].partition("=")
        if not hmac.compare_digest(given.upper().encode(), self._hash(found[1], rest).encode()):
            raise BadSRS("not a mailbox that was made here")
        try:
            if found[1] == "1":
                domain, _, tail = rest.partition("=")
                return Mailbox(f"SRS0{tail}", domain_name(domain))
            written, domain, local_part = rest.split("=", 2)
            high, low = map(_LETTERS.index, written.upper())
            restored = Mailbox(local_part, domain_name(domain))
        except (ValueError, AddressError):
            raise BadSRS("not a mailbox that was made here") from None
        if (_day(now) - (high << 5 | low)) % _DAYS > _VALID:
            raise TooOld("made too long ago")
        return restored

    def _forwarded(self, domain: str, tail: str) -> str:
        rest = f"{domain}={tail}"
        return f"SRS1={self._hash('1', rest)}={rest}"

    def _hash(self, form: str, rest: str) -> str:
        # The form is a part of it: else what was written as the one could be read as the other.
        digest = hmac.digest(
            self._key, f"{form}{rest}".lower().encode("utf-8", "surrogatepass"), "sha256"
        )
        return b32encode(digest)[:_HASH].decode("ascii")


def _day(now: float) -> int:
    return int(now // _DAY) % _DAYS
