"""What a server offers in its reply to EHLO, and the extensions that a client uses with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from ...mail.envelope import Recipient
from ...mail.reply import Reply
from ..extension.limits import NO_LIMITS, Limits
from ..extension.outgoing import OutgoingExtension
from ..extension.standard import OUTGOING
from ..extension.views import OutgoingView
from .reply_reader import REMEMBERED


class Agreement:
    """The extensions that a client may use with a server, by the questions that they answer.

    Most extensions answer few of the questions, and an agreement serves thousands of messages.

    Args:
        capabilities: what the server announced: parameters by upper-case keyword.
        extensions: the client side of each extension.

    Attributes:
        capabilities: see the argument.
        limits: of the session and its transactions (RFC 9422).
        pipelining: whether commands may be sent in groups (RFC 2920).
        notifies: whether the server takes the sender's wishes for notices (RFC 3461).
    """

    def __init__(
        self,
        capabilities: Mapping[str, str],
        extensions: Sequence[OutgoingExtension] = OUTGOING,
    ) -> None:
        self.capabilities = capabilities
        announced_limits = capabilities.get("LIMITS")
        self.limits = Limits.announced(announced_limits) if announced_limits else NO_LIMITS
        self.pipelining = "PIPELINING" in capabilities
        self.notifies = "DSN" in capabilities
        known = [(each, capabilities.get(each.keyword)) for each in extensions]
        refusing = [pair for pair in known if _overrides(pair[0], "refusal")]
        self._refusing = {
            converted: [pair for pair in refusing if pair[0].converts is converted]
            for converted in (False, True)
        }
        self._refusing_recipients = [
            pair for pair in known if _overrides(pair[0], "recipient_refusal")
        ]
        announced = [(each, value) for each, value in known if value is not None]
        self._of_mail = [pair for pair in announced if _overrides(pair[0], "mail")]
        self._of_rcpt = [pair for pair in announced if _overrides(pair[0], "rcpt")]

    @classmethod
    def by_reply(cls, reply: Reply, extensions: tuple[OutgoingExtension, ...]) -> Agreement:
        """Return the agreement with a server, by its reply to EHLO (RFC 5321 §4.1.1.1)."""
        # The first line has the name of the server, and perhaps words for people.
        lines = reply.lines if _is_auth(reply.lines[0]) else reply.lines[1:]
        if sum(map(len, lines)) > REMEMBERED:
            return cls(_capabilities(lines), extensions)
        return _agreement(lines, extensions)

    def refusal(self, transaction: OutgoingView, *, converted: bool) -> Reply | None:
        """Return the reply that fails a message; None if it may be sent.

        Args:
            transaction: of the message.
            converted: whether to ask the extensions whose refusal conversion avoids, or the others.
        """
        for extension, announced in self._refusing[converted]:
            if (refusal := extension.refusal(transaction, announced)) is not None:
                return refusal
        return None

    def recipient_refusal(self, transaction: OutgoingView, recipient: Recipient) -> Reply | None:
        """Return the reply that fails one recipient; None if RCPT may be sent."""
        for extension, announced in self._refusing_recipients:
            refusal = extension.recipient_refusal(transaction, recipient, announced)
            if refusal is not None:
                return refusal
        return None

    def mail(self, transaction: OutgoingView) -> bytes:
        """Return the MAIL command, with the parameters of extensions that the server announced."""
        words = [f"MAIL FROM:<{transaction.message.envelope.reverse_path or ''}>"]
        for extension, announced in self._of_mail:
            words.extend(extension.mail(transaction, announced))
        return f"{' '.join(words)}\r\n".encode()

    def rcpt(self, transaction: OutgoingView, recipient: Recipient) -> bytes:
        """Return the RCPT command of a recipient."""
        words = [f"RCPT TO:<{recipient.mailbox}>"]
        for extension, announced in self._of_rcpt:
            words.extend(extension.rcpt(transaction, recipient, announced))
        return f"{' '.join(words)}\r\n".encode()


def _overrides(extension: OutgoingExtension, question: str) -> bool:
    return getattr(type(extension), question) is not getattr(OutgoingExtension, question)


@lru_cache(maxsize=64)  # a server says the same on each connection
def _agreement(lines: tuple[str, ...], extensions: tuple[OutgoingExtension, ...]) -> Agreement:
    return Agreement(_capabilities(lines), extensions)


_OWN_CODE = re.compile("2[0-9]{2} ")  # of a line, where the lines of a reply have different ones


def _words(line: str) -> tuple[str, str]:
    """Return the keyword of a line in upper case, and its parameters."""
    line = line[4:] if _OWN_CODE.match(line) else line
    keyword, parameters = [*line.split(None, 1), "", ""][:2]
    return keyword.upper(), parameters


def _is_auth(line: str) -> bool:
    """Whether a line is ``AUTH=PLAIN LOGIN``.

    Servers of the last century, and those made for their clients, write it so.
    """
    return "AUTH=" in line.upper() and _words(line)[0].startswith("AUTH=")


def _capabilities(lines: tuple[str, ...]) -> Mapping[str, str]:
    """Return the parameters in lines of a reply to EHLO, by upper-case keyword."""
    capabilities: dict[str, str] = {}
    for line in lines:
        keyword, parameters = _words(line)
        if keyword.startswith("AUTH="):
            keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
        parameters = parameters.strip()
        if keyword == "AUTH" and keyword in capabilities:
            parameters = f"{capabilities[keyword]} {parameters}"
        capabilities[keyword] = parameters
    return capabilities
