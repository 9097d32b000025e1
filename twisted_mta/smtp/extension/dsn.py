"""DSN (RFC 3461): which notices a sender asks for, and their content.

The requests are kept with the envelope, and the queue fulfills them. They are kept in a form that
can be passed on to any next hop with DSN: ASCII, keywords in upper case, values as the client
encoded them.

With RFC 6533 an original recipient may be an international address. Its two encodings mean the
same; the one that needs no SMTPUTF8 is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...mail.address import Mailbox
from ...mail.envelope import Parameters, Recipient
from ...mail.reply import Reply
from ...mail.utf8_address import decode_utf8_address, encode_utf8_address
from ...mail.xtext import decode_xtext, encode_xtext
from ..command import CommandError
from . import Extension
from .outgoing import OutgoingExtension
from .views import OutgoingView

LONGEST_ENVELOPE_ID = 100
"""Characters of ENVID, as xtext (RFC 3461 §4.4)."""

LONGEST_ORIGINAL_RECIPIENT = 500
"""Characters of ORCPT, as xtext (RFC 3461 §4.2)."""

_NOTIFY = ("SUCCESS", "FAILURE", "DELAY")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~.-]+")  # RFC 3461 §4.2: an atom


def _malformed(syntax: str) -> CommandError:
    return CommandError(Reply.of(501, "5.4", f"Syntax: {syntax}"))


def _read_ret(value: str | None) -> str:
    # RFC 3461 §4.3
    content = (value or "").upper()
    if content not in ("FULL", "HDRS"):
        raise _malformed("RET=FULL or RET=HDRS")
    return content


def _read_envid(value: str | None) -> str:
    # RFC 3461 §4.4: printable US-ASCII, in xtext.
    problem = _malformed(f"ENVID=xtext of at most {LONGEST_ENVELOPE_ID} characters")
    if not value or len(value) > LONGEST_ENVELOPE_ID:
        raise problem
    try:
        decoded = decode_xtext(value)
    except ValueError:
        raise problem from None
    if not _is_graphic(decoded):
        raise problem
    return value


def _read_notify(value: str | None) -> str:
    # RFC 3461 §4.1
    keywords = (value or "").upper().split(",")
    if keywords == ["NEVER"]:
        return "NEVER"
    if any(keyword not in _NOTIFY for keyword in keywords):
        raise _malformed("NOTIFY=NEVER or NOTIFY=SUCCESS,FAILURE,DELAY or some of these")
    return ",".join(keyword for keyword in _NOTIFY if keyword in keywords)


def _read_orcpt(value: str | None) -> str:
    # RFC 3461 §4.2
    kind, semicolon, address = (value or "").partition(";")
    problem = _malformed(f"ORCPT=type;xtext of at most {LONGEST_ORIGINAL_RECIPIENT} characters")
    if not semicolon or not address or not _ADDRESS_TYPE.fullmatch(kind):
        raise problem
    kind = kind.lower()
    try:
        if kind == "utf-8":
            # RFC 6533 §3
            address = encode_utf8_address(decode_utf8_address(address))
        elif not _is_graphic(decoded := decode_xtext(address)):
            # Postfix uses one address type for all. What that cannot express, RFC 6533's type can.
            if kind != "rfc822" or not decoded.isprintable():
                raise problem
            kind, address = "utf-8", encode_utf8_address(decoded)
    except ValueError:
        raise problem from None
    read = f"{kind};{address}"
    if len(read) > LONGEST_ORIGINAL_RECIPIENT:
        raise problem
    return read


def forwarded(parameters: Parameters, mailbox: Mailbox, *, several: bool) -> Parameters:
    """Return the parameters of RCPT for a member of an alias.

    Args:
        parameters: of the RCPT command for the alias.
        mailbox: the alias.
        several: whether it has more than one member. Then there is no success notice for any of
            them, but one that the alias was expanded (RFC 3461 §5.2.7.3).
    """
    changed = dict(parameters)
    notify = changed.get("NOTIFY")
    if several and isinstance(notify, str) and "SUCCESS" in notify:
        changed["NOTIFY"] = ",".join(notify.split(",")[1:]) or "NEVER"
    if "ORCPT" not in changed:
        # RFC 3461 §5.2.7.2: so that the sender recognizes it in a notice.
        original = _typed(mailbox)
        if len(original) <= LONGEST_ORIGINAL_RECIPIENT:
            changed["ORCPT"] = original
    return changed


def merged(parameters: Parameters, others: Parameters) -> Parameters:
    """Return the parameters of a recipient with two RCPT: it notifies where either asks for it."""
    if parameters == others:
        return parameters
    requests = [
        str(each.get("NOTIFY", "FAILURE,DELAY")).split(",") for each in (parameters, others)
    ]
    keywords = [keyword for keyword in _NOTIFY if any(keyword in each for each in requests)]
    return {**others, **parameters, "NOTIFY": ",".join(keywords) or "NEVER"}


def _typed(mailbox: Mailbox) -> str:
    if mailbox.is_ascii:
        return f"rfc822;{encode_xtext(str(mailbox))}"
    return f"utf-8;{encode_utf8_address(str(mailbox))}"


def _is_graphic(text: str) -> bool:
    return text.isascii() and text.isprintable()


DSN = Extension(
    "DSN",
    mail={"RET": _read_ret, "ENVID": _read_envid},
    rcpt={"NOTIFY": _read_notify, "ORCPT": _read_orcpt},
    # As long as the parameters can be: RFC 5321 §4.5.3.1.4 has it that extensions add to a line.
    mail_octets=len(" RET=FULL ENVID=") + LONGEST_ENVELOPE_ID,
    rcpt_octets=len(" NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=") + LONGEST_ORIGINAL_RECIPIENT,
)


class OutgoingDSN(OutgoingExtension):
    """The parameters, passed on unchanged; none is added (RFC 3461 §5.2.1).

    A next hop without DSN gets none of them; then the queue notifies the sender (§5.2.2).
    """

    keyword = "DSN"

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return RET and ENVID."""
        return _given(transaction.message.envelope.parameters, "RET", "ENVID")

    def rcpt(
        self, transaction: OutgoingView, recipient: Recipient, announced: str
    ) -> Iterable[str]:
        """Return NOTIFY and ORCPT."""
        return _given(recipient.parameters, "NOTIFY", "ORCPT")


def _given(parameters: Parameters, *keywords: str) -> Iterable[str]:
    if not parameters:
        return ()  # as of most recipients
    return [f"{keyword}={parameters[keyword]}" for keyword in keywords if keyword in parameters]


DSN_OUT = OutgoingDSN()
