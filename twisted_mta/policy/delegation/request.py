"""The requests to policy services: the attributes that Postfix 3.7 sends, in its order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.tls_facts import TLSFacts
from ...mail.xtext import encode_xtext
from ..examination import PolicySession

State = Literal["MAIL", "RCPT", "DATA", "END-OF-MESSAGE"]
"""The command that the client has given."""

UNKNOWN = "unknown"
"""The address of a client on a UNIX socket; the name of one without a confirmed name."""

_CONTROL = re.compile("[\0-\x1f\x7f]")
_PROTOCOLS = {"HELO": "SMTP", "LHLO": "LMTP"}

# RFC 4514 §3: attributes stand between commas and plus signs that are not escaped.
_ATTRIBUTE = re.compile(r"(?:[^,+\\]|\\.)+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@frozen(kw_only=True)
class Subject:
    """What a request is about, besides its session.

    Attributes:
        state: the stage.
        sender: the reverse-path; None: the null one.
        recipient: the forward-path; None: there is none, or more than one.
        recipients: how many there are; 0 before DATA.
        size: octets: declared by the client, or at the end those of the content; 0: not known.
        queue_id: empty before the content.
        instance: the same in all requests about one message, and in no others.
        context: ``policy_context`` of the settings.
    """

    state: State
    sender: Mailbox | None
    recipient: Mailbox | None = None
    recipients: int = 0
    size: int = 0
    queue_id: str = ""
    instance: str = ""
    context: str = ""


def request(attributes: Iterable[tuple[str, str]]) -> bytes:
    """Return a request: no value can end its line, or the request."""
    lines = (f"{name}={_CONTROL.sub('?', value)}\n" for name, value in attributes)
    return "".join((*lines, "\n")).encode("utf-8", "replace")


def attributes(session: PolicySession, subject: Subject) -> Iterable[tuple[str, str]]:
    """Yield the attributes of a request, as Postfix names them.

    The reverse name of a client is known as far as a look-up has confirmed it: both names of the
    client are that one.
    """
    name = session.peer.name or session.reverse_name or UNKNOWN
    tls = session.tls
    yield "request", "smtpd_access_policy"
    yield "protocol_state", subject.state
    yield "protocol_name", _PROTOCOLS.get(session.greeting or "HELO", "ESMTP")
    yield "client_address", (session.address or UNKNOWN).partition("%")[0]
    yield "client_name", name
    yield "client_port", str(session.peer.port)
    yield "reverse_client_name", name
    yield "server_address", (session.local_address or "").partition("%")[0]
    yield "server_port", str(session.local_port)
    yield "helo_name", session.helo
    yield "sender", "" if subject.sender is None else str(subject.sender)
    yield "recipient", "" if subject.recipient is None else str(subject.recipient)
    yield "recipient_count", str(subject.recipients)
    yield "queue_id", subject.queue_id
    yield "instance", subject.instance
    yield "size", str(subject.size)
    yield "etrn_domain", ""
    yield "stress", ""
    yield "sasl_method", session.mechanism
    yield "sasl_username", session.identity or ""
    yield "sasl_sender", ""
    yield from _certificate(tls)
    yield "encryption_protocol", "" if tls is None else tls.version
    yield "encryption_cipher", "" if tls is None else tls.cipher
    yield "encryption_keysize", str(0 if tls is None else tls.bits)
    yield "policy_context", subject.context


def _certificate(tls: TLSFacts | None) -> Iterable[tuple[str, str]]:
    verified = tls is not None and tls.peer_verified
    fingerprint = (tls.peer_fingerprint or "").upper() if tls is not None else ""
    for name, full in (
        ("ccert_subject", tls.peer_subject if tls is not None else None),
        ("ccert_issuer", tls.peer_issuer if tls is not None else None),
    ):
        yield name, encode_xtext(_common_name(full or "")) if verified else ""
    pairs = (fingerprint[at : at + 2] for at in range(0, len(fingerprint), 2))
    yield "ccert_fingerprint", ":".join(pairs)
    yield "ccert_pubkey_fingerprint", ""


def _common_name(name: str) -> str:
    """Return the CN of a distinguished name (RFC 4514); empty: it has none."""
    for attribute in _ATTRIBUTE.findall(name):
        type, _, value = attribute.partition("=")
        if type.upper() == "CN":
            return _ESCAPED.sub(r"\1", value)
    return ""
