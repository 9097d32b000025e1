"""The id by which a report tells the account and the queue id of the message that it is about.

It is encrypted and authenticated (AES-SIV, RFC 5297) with a key of ours: recipients learn nothing
of our accounts, and only a receiver of the message knows an id that counts (RFC 9477 §6).
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

from attrs import frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from ...mail.queue_id import QueueId

_LONGEST_ACCOUNT = 100  # octets
_LONGEST = 400  # characters of an id
_ID = re.compile(r"[A-Za-z0-9_-]+")
_QUEUE_ID = 8  # octets
_USE = [b"CFBL-Feedback-ID"]  # what is authenticated beside the content


@frozen
class Reported:
    """What an id tells.

    Attributes:
        message: the queue id.
        account: as `policy.sending_limits.account_of` names it, at most 100 octets of it; empty:
            the client had no name.
    """

    message: QueueId
    account: str


class FeedbackIds:
    """Makes and reads ids.

    Args:
        key: 32 octets.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESSIV(key)

    def make(self, message: QueueId, account: str) -> str:
        """Return the id for a message of an account: letters, digits, ``-`` and ``_``."""
        content = int(message).to_bytes(_QUEUE_ID, "big") + account.encode()[:_LONGEST_ACCOUNT]
        return urlsafe_b64encode(self._cipher.encrypt(content, _USE)).decode("ascii").rstrip("=")

    def read(self, id: str) -> Reported | None:
        """Return what an id tells; None: it is not ours."""
        if len(id) > _LONGEST or not _ID.fullmatch(id):
            return None
        try:
            octets = urlsafe_b64decode(id + "=" * (-len(id) % 4))
            content = self._cipher.decrypt(octets, _USE)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        account = content[_QUEUE_ID:].decode("utf-8", "ignore")
        return Reported(QueueId(int.from_bytes(content[:_QUEUE_ID], "big")), account)
