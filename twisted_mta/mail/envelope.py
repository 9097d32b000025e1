"""The envelope of a message (RFC 5321 §2.3.1): the reverse-path and the recipients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NewType

from attrs import frozen

from .address import Mailbox
from .reply import Reply

RecipientNumber = NewType("RecipientNumber", int)
"""The place of a recipient in its envelope, from 0; with the queue id it identifies a delivery."""

Parameters = Mapping[str, str | int | None]
"""ESMTP parameters: from the upper-case keyword to the value, as the extension read it."""

NO_PARAMETERS: Parameters = {}

TLS_OPTIONAL = "TLS-REQUIRED"
"""The parameter that keeps the field ``TLS-Required: No`` (RFC 8689 §4.1); MAIL takes it from no
client."""


@frozen
class Recipient:
    """A recipient of an envelope, with its progress in the queue.

    Attributes:
        number: its place in the envelope.
        mailbox: the mailbox that the message is delivered to.
        parameters: the ESMTP parameters of its RCPT command.
        attempts: the number of attempts so far.
        last_reply: the reply of the last attempt; None before the first.
        last_remote: the peer that sent it, ``host[address]:port``; None: it is our own.
        original: the mailbox that the sender wrote, where an alias led from there to ``mailbox``;
            None: ``mailbox``.
        reverse_path: the reverse-path on the wire instead of the envelope's, where we forward the
            mail (SRS); None: the envelope's. Notices always go to the envelope's.
        warned: Whether the sender has had a delay notice for it.
        aliases: the aliases that led from ``original`` to ``mailbox``, the first one first. A copy
            for another host carries them in its trace (`message.delivery_fields`).
    """

    number: RecipientNumber
    mailbox: Mailbox
    parameters: Parameters = NO_PARAMETERS
    attempts: int = 0
    last_reply: Reply | None = None
    last_remote: str | None = None
    original: Mailbox | None = None
    reverse_path: Mailbox | None = None
    warned: bool = False
    aliases: tuple[Mailbox, ...] = ()

    def is_to_notify(self, event: Literal["SUCCESS", "FAILURE", "DELAY"]) -> bool:
        """Whether the sender wants notice of ``event`` (RFC 3461 §4.1; by default not SUCCESS)."""
        wanted = self.parameters.get("NOTIFY")
        if not isinstance(wanted, str):
            return event != "SUCCESS"
        return event in wanted.split(",")


@frozen
class Envelope:
    """The envelope of a message (RFC 5321 §2.3.1).

    Attributes:
        reverse_path: where bounces go; None: the null reverse-path, ``<>``.
        recipients: one for each accepted RCPT (or each mailbox that it expands to), in their order.
        parameters: the ESMTP parameters of MAIL that outlive the session (``BODY``, …).
    """

    reverse_path: Mailbox | None
    recipients: tuple[Recipient, ...]
    parameters: Parameters = NO_PARAMETERS

    @property
    def binary(self) -> bool:
        """Whether the content is any octets, not lines (``BODY=BINARYMIME``, RFC 3030 §3)."""
        return self.parameters.get("BODY") == "BINARYMIME"

    @property
    def priority(self) -> int:
        """The priority, from -9 to 9 with the highest first (RFC 6710); 0 is the default."""
        return int(self.parameters.get("MT-PRIORITY") or 0)

    @property
    def requires_tls(self) -> bool:
        """Whether the message goes on only under TLS, to verified servers (RFC 8689 §4.1)."""
        return "REQUIRETLS" in self.parameters

    @property
    def tls_optional(self) -> bool:
        """Whether the sender lets it go on in clear, despite the policies of the recipient.

        RFC 8689 §3, ``TLS-Required: No``; §4.1: REQUIRETLS overrides it.
        """
        return TLS_OPTIONAL in self.parameters and not self.requires_tls
