"""The messages of ACME as values: requests, answers, and what is read of the JSON in them.

Everything that a server sends is bounded, checked and printable before it goes anywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from ...mail.printable import printable

LARGEST = 131_072
"""Octets of an answer: a directory has one thousand, a chain of certificates ten thousand."""

_LONGEST_URL = 2048
_LONGEST_DETAIL = 300  # characters of a server's words in a reason
_MOST_NAMES = 200  # of an order
_NONCE = re.compile(r"[0-9A-Za-z_-]{1,512}")  # RFC 8555 §6.5.1
_TOKEN = re.compile(r"[0-9A-Za-z_-]{1,256}")  # RFC 8555 §8.3
_ERROR = "urn:ietf:params:acme:error:"


@frozen
class ACMEError(Exception):
    """No certificate this time.

    Attributes:
        reason: one line, printable.
        wait: seconds before which the server wants no further attempt; None: it does not say.
        spent: whether a certificate was issued all the same, which counts against the limits of
            the authority.
        kind: the error type of the server (RFC 8555 §6.7), such as ``rateLimited``; empty: none.
    """

    reason: str
    wait: float | None = None
    spent: bool = False
    kind: str = ""

    def __str__(self) -> str:
        return self.reason


@frozen
class Request:
    """A request to send.

    Attributes:
        method: ``GET``, ``HEAD`` or ``POST``.
        url: where.
        content: a signed request, for ``POST``.
    """

    method: str
    url: str
    content: bytes | None = field(default=None, repr=False)


@frozen
class Answer:
    """The answer of a server.

    Attributes:
        code: the status code.
        headers: by name in lower case; the last of several.
        content: the body.
        now: wall time at which it came, seconds since the epoch.
    """

    code: int
    headers: Mapping[str, str]
    content: bytes
    now: float

    @property
    def is_good(self) -> bool:
        """Whether the request has succeeded."""
        return 200 <= self.code < 300

    @property
    def media_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def nonce(self) -> str | None:
        """A nonce for the next request (RFC 8555 §6.5); None: none that can be used."""
        nonce = self.headers.get("replay-nonce", "")
        return nonce if _NONCE.fullmatch(nonce) else None

    @property
    def location(self) -> str:
        """The URL of what was made.

        Raises:
            ACMEError: there is none.
        """
        return url(self.headers.get("location"), "Location")

    @property
    def retry_after(self) -> float | None:
        """Seconds until the server wants to be asked again (RFC 9110 §10.2.3); None: not said."""
        written = self.headers.get("retry-after", "").strip()
        if re.fullmatch("[0-9]{1,9}", written):
            return float(written)
        moment = _http_date(written)
        return None if moment is None else max(0.0, moment - self.now)

    @property
    def clock_difference(self) -> float:
        """Seconds by which the server's clock is ahead of ours; 0 where it does not say."""
        moment = _http_date(self.headers.get("date", ""))
        return 0.0 if moment is None else moment - self.now

    def json(self) -> Mapping[str, Any]:
        """Return the JSON object in it.

        Raises:
            ACMEError: it has none.
        """
        if self.media_type not in ("application/json", "application/problem+json"):
            found = printable(self.media_type)[:60] or "no media type"
            raise ACMEError(f"the answer has {found}, expected application/json")
        try:
            value = json.loads(self.content)
        except (ValueError, RecursionError):
            raise ACMEError("the answer is not JSON") from None
        if not isinstance(value, dict):
            raise ACMEError(f"the answer is {kind_of(value)} of JSON, expected an object")
        return value

    @property
    def problem(self) -> Problem:
        """The problem that an answer that is not good describes (RFC 8555 §6.7)."""
        try:
            value = self.json()
        except ACMEError:
            value = {}
        return Problem.read(value, self.code)


@frozen
class Problem:
    """A problem that a server describes.

    Attributes:
        kind: its type without the namespace, such as ``badNonce``; empty: another.
        text: one line, printable.
    """

    kind: str
    text: str

    @classmethod
    def read(cls, value: object, code: int | None = None) -> Problem:
        """Read a problem document (RFC 9457), as far as it can be read."""
        document = value if isinstance(value, dict) else {}
        name = document.get("type")
        kind = name.removeprefix(_ERROR) if isinstance(name, str) and _ERROR in name else ""
        detail = document.get("detail")
        words = _shortened(detail) if isinstance(detail, str) else ""
        several = document.get("subproblems")
        for each in several[:3] if isinstance(several, list) else ():
            below = each.get("detail") if isinstance(each, dict) else None
            if isinstance(below, str) and _shortened(below) not in words:
                words = f"{words}; {_shortened(below)}" if words else _shortened(below)
        kind = printable(kind)[:60]
        what = " ".join(each for each in (str(code) if code else "", kind) if each)
        return cls(kind, f"{what}: {words}" if what and words else what or words or "no reason")


@frozen(kw_only=True)
class Directory:
    """The addresses of a server's functions (RFC 8555 §7.1.1).

    Attributes:
        new_nonce: gives nonces.
        new_account: makes an account.
        new_order: takes an order.
        renewal_info: tells when to renew (RFC 9773 §3); None: it does not.
        needs_binding: whether an account needs external account binding.
        profiles: the kinds of certificates that it offers.
    """

    new_nonce: str
    new_account: str
    new_order: str
    renewal_info: str | None
    needs_binding: bool
    profiles: Sequence[str]

    @classmethod
    def read(cls, answer: Answer) -> Directory:
        """Read a directory.

        Raises:
            ACMEError: it is none.
        """
        value = answer.json()
        meta = value.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        profiles = meta.get("profiles")
        info = value.get("renewalInfo")
        return cls(
            new_nonce=url(value.get("newNonce"), "newNonce"),
            new_account=url(value.get("newAccount"), "newAccount"),
            new_order=url(value.get("newOrder"), "newOrder"),
            renewal_info=None if info is None else url(info, "renewalInfo"),
            needs_binding=meta.get("externalAccountRequired") is True,
            profiles=[str(each) for each in profiles] if isinstance(profiles, dict) else (),
        )


@frozen(kw_only=True)
class Order:
    """An order of a certificate (RFC 8555 §7.1.3).

    Attributes:
        status: ``pending``, ``ready``, ``processing``, ``valid`` or ``invalid``.
        authorizations: their URLs.
        finalize: takes the certificate request.
        certificate: the URL of the certificate; None: there is none yet.
        problem: why it has become invalid; None: not said.
    """

    status: str
    authorizations: Sequence[str]
    finalize: str
    certificate: str | None
    problem: Problem | None

    @classmethod
    def read(cls, answer: Answer) -> Order:
        """Read an order.

        Raises:
            ACMEError: it is none.
        """
        value = answer.json()
        several = value.get("authorizations")
        if not isinstance(several, list) or not 0 < len(several) <= _MOST_NAMES:
            raise ACMEError("the order has no list of authorizations")
        certificate, error = value.get("certificate"), value.get("error")
        return cls(
            status=_word(value, "status", "order"),
            authorizations=[url(each, "authorizations") for each in several],
            finalize=url(value.get("finalize"), "finalize"),
            certificate=None if certificate is None else url(certificate, "certificate"),
            problem=None if error is None else Problem.read(error),
        )


@frozen(kw_only=True)
class Challenge:
    """A challenge (RFC 8555 §7.1.5), as far as one of the kind http-01 is there.

    Attributes:
        url: takes our word that it is answered.
        token: names the answer.
        status: ``pending``, ``processing``, ``valid`` or ``invalid``.
        problem: why it is invalid; None: not said.
    """

    url: str
    token: str
    status: str
    problem: Problem | None


@frozen(kw_only=True)
class Authorization:
    """An authorization for one name (RFC 8555 §7.1.4).

    Attributes:
        name: the name.
        status: ``pending``, ``valid``, ``invalid``, ``deactivated``, ``expired`` or ``revoked``.
        challenge: by HTTP; None: it offers none.
        offered: the kinds of all challenges, printable.
    """

    name: str
    status: str
    challenge: Challenge | None
    offered: Sequence[str]

    @classmethod
    def read(cls, answer: Answer) -> Authorization:
        """Read an authorization.

        Raises:
            ACMEError: it is none.
        """
        value = answer.json()
        identifier, several = value.get("identifier"), value.get("challenges")
        name = identifier.get("value") if isinstance(identifier, dict) else None
        if not isinstance(name, str) or not isinstance(several, list):
            raise ACMEError("the authorization has no identifier, or no challenges")
        found = [each for each in several[:20] if isinstance(each, dict)]
        challenge = next((each for each in found if each.get("type") == "http-01"), None)
        return cls(
            name=name.lower(),
            status=_word(value, "status", "authorization"),
            challenge=None if challenge is None else _challenge(challenge),
            offered=[printable(str(each.get("type")))[:30] for each in found],
        )


def _challenge(value: Mapping[str, Any]) -> Challenge:
    token, error = value.get("token"), value.get("error")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ACMEError("the challenge has no token of base64url")
    return Challenge(
        url=url(value.get("url"), "url of the challenge"),
        token=token,
        status=_word(value, "status", "challenge"),
        problem=None if error is None else Problem.read(error),
    )


def url(value: object, name: str) -> str:
    """Return a URL that a server has sent.

    Args:
        value: what it has sent.
        name: of the field, for an error.

    Raises:
        ACMEError: it is no URL of HTTPS (RFC 8555 §6.1).
    """
    if isinstance(value, str) and len(value) <= _LONGEST_URL and value.isascii():
        try:
            parts = urlsplit(value)
            sound = parts.scheme == "https" and parts.hostname and parts.port != 0
        except ValueError:
            sound = False
        if sound and value.isprintable() and " " not in value and "\\" not in value:
            return value
    raise ACMEError(f"{name}: the server sends no URL of HTTPS")


def moment_of(value: object) -> float | None:
    """Return the wall time of a date (RFC 3339); None: it is none."""
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return None if moment.tzinfo is None else moment.timestamp()
    except (ValueError, OverflowError):
        return None


def kind_of(value: object) -> str:
    """Return the kind of a value of JSON, in words."""
    kinds = {list: "a list", str: "a string", type(None): "null", bool: "a truth value"}
    return kinds.get(type(value), "a number")


def _word(value: Mapping[str, Any], name: str, of: str) -> str:
    word = value.get(name)
    if not isinstance(word, str):
        raise ACMEError(f"the {of} has no {name}")
    return printable(word)[:30]


def _shortened(text: str) -> str:
    text = printable(text[: 2 * _LONGEST_DETAIL])
    return text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}..."


def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text[:64])
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
