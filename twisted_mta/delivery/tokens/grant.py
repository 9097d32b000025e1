"""Requests to a token server, and its answers (RFC 6749); pure."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import Any
from urllib.parse import quote_plus, urlencode

from attrs import field, frozen

from ...config.token_account import TokenGrant
from ...mail.printable import printable
from .token import NoToken, Token

LARGEST = 65_536
"""Octets of an answer."""

FORM = "application/x-www-form-urlencoded"
"""The media type of requests (RFC 6749 §4.4.2, §6)."""

_SHOWN = 200  # characters of an error
_UNSAID = 3600.0  # seconds that a token is taken to be valid, where the answer does not say
_SHORTEST, _LONGEST = 1.0, 30 * 86_400.0  # seconds of a life

# RFC 6749 §5.2: what no other attempt cures.
_LASTING = (
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
)


@frozen
class Secrets:
    """Our secrets at a token server.

    Attributes:
        client_secret: empty: there is none.
        refresh_token: empty: there is none.
    """

    client_secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)


@frozen
class Granted:
    """What a token server has granted.

    Attributes:
        token: the access token.
        refresh_token: that replaces ours; empty: ours stays (RFC 6749 §6).
    """

    token: Token
    refresh_token: str = field(default="", repr=False)


def content(grant: TokenGrant, secrets: Secrets, *, in_body: bool) -> bytes:
    """Return the content of a request.

    Args:
        grant: what is asked for.
        secrets: ours.
        in_body: whether the client's secret is part of it, and not of `authorization`.
    """
    fields = {"client_id": grant.client_id}
    if secrets.refresh_token:
        fields |= {"grant_type": "refresh_token", "refresh_token": secrets.refresh_token}
    else:
        fields["grant_type"] = "client_credentials"
    if grant.scope:
        fields["scope"] = grant.scope
    if in_body and secrets.client_secret:
        fields["client_secret"] = secrets.client_secret
    return urlencode(fields).encode("ascii")


def authorization(grant: TokenGrant, secrets: Secrets) -> str:
    """Return the Authorization field; empty where we have no secret (RFC 6749 §2.3.1)."""
    if not secrets.client_secret:
        return ""
    pair = f"{quote_plus(grant.client_id)}:{quote_plus(secrets.client_secret)}"
    return f"Basic {b64encode(pair.encode('ascii')).decode('ascii')}"


class ClientRefused(NoToken):
    """The token server does not take our client's credentials."""


def granted(code: int, answer: bytes, retry_after: str, secrets: Secrets, now: float) -> Granted:
    """Return what an answer grants (RFC 6749 §5.1).

    Args:
        code: the status code.
        answer: the body.
        retry_after: the Retry-After field; empty: there is none.
        secrets: that must not be shown.
        now: seconds since the epoch.

    Raises:
        NoToken: nothing.
        ClientRefused: likewise.
    """
    try:
        values: Any = json.loads(answer.decode("utf-8"))
    except (ValueError, RecursionError):
        values = None
    if code != 200:
        raise _refusal(code, values, retry_after, secrets)
    if not isinstance(values, dict):
        raise NoToken("the token server answers no JSON object, expected one with access_token")
    value, kind = values.get("access_token"), values.get("token_type", "Bearer")
    if not isinstance(value, str):
        raise NoToken("the token server's answer has no access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        shown = _shown(str(kind), secrets)
        raise NoToken(f"found the token type {shown}, expected Bearer", lasting=True)
    refresh_token = values.get("refresh_token", "")
    if not isinstance(refresh_token, str):
        refresh_token = ""
    return Granted(Token.lasting(value, _seconds(values.get("expires_in")), now), refresh_token)


def _seconds(written: object) -> float:
    if isinstance(written, str) and re.fullmatch(r"[0-9]{1,9}", written, re.ASCII):
        written = int(written)  # as some servers write it
    if isinstance(written, bool) or not isinstance(written, int | float) or written != written:
        return _UNSAID
    return min(max(float(min(written, _LONGEST)), _SHORTEST), _LONGEST)


def _refusal(code: int, values: Any, retry_after: str, secrets: Secrets) -> NoToken:
    error = values.get("error") if isinstance(values, dict) else None
    wait = float(retry_after) if re.fullmatch("[0-9]{1,6}", retry_after, re.ASCII) else 0.0
    if not isinstance(error, str):
        return NoToken(f"the token server answers {code}, expected 200", retry_after=wait)
    description = values.get("error_description")
    text = error if not isinstance(description, str) else f"{error}: {description}"
    reason = f"the token server refuses: {_shown(text, secrets)}"
    if error == "invalid_client" or code == 401:
        return ClientRefused(reason, lasting=True, retry_after=wait)
    return NoToken(reason, lasting=error in _LASTING, retry_after=wait)


def _shown(text: str, secrets: Secrets) -> str:
    """Return a server's words, printable and short, unless they repeat a secret."""
    known = (secrets.client_secret, secrets.refresh_token)
    if any(each and each in text for each in known):
        return "(text left out: it repeats a secret)"
    return printable(" ".join(text.split()))[:_SHOWN]
