"""Rows of reports."""

from typing import Any

from twisted_mta.policy.dmarc.discovery import Published
from twisted_mta.policy.dmarc.observation import Observation, Row
from twisted_mta.policy.dmarc.record import Record

RECORD = b"v=DMARC1; p=reject; rua=mailto:reports@example.com"


def published(text: bytes = RECORD, domain: str = "example.com") -> Published:
    record = Record.parse(text)
    assert record is not None
    return Published(domain, record, text)


def row(source: str = "192.0.2.1", **values: Any) -> Row:
    settings: dict[str, Any] = {
        "disposition": "none",
        "dkim": False,
        "spf": False,
        "reasons": (),
        "header_from": "example.com",
        "envelope_from": "sender.example",
    }
    return Row(source=source, **{**settings, **values})


def observation(
    source: str = "192.0.2.1", text: bytes = RECORD, domain: str = "example.com"
) -> Observation:
    return Observation(published(text, domain), row(source))
