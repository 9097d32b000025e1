"""Fetch the policy of a domain by HTTPS (RFC 8461 §3.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import frozen
from twisted.internet.defer import Deferred

from ...mail.address import AddressError, domain_name
from ...mail.printable import printable
from ..https import PORT, Head, HTTPSClient, HTTPSError, Request, Unproved
from .policy import Policy, PolicyError

_PATH = "/.well-known/mta-sts.txt"
_SHOWN = 100  # characters of an error

Trouble = Literal["sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"]
"""The result type of a policy that cannot be had (RFC 8460 §4.3.2.2)."""

Fetch = Callable[[str], "Deferred[Policy]"]
"""Fetch the policy of a domain; fails with `FetchError`."""


@frozen
class FetchError(HTTPSError):
    """The policy of a domain cannot be had.

    Attributes:
        reason: for people, printable.
        trouble: for reports.
    """

    trouble: Trouble = "sts-policy-fetch-error"

    __str__ = HTTPSError.__str__


class Fetcher:
    """Fetches policies; `fetch` is a `Fetch`.

    Args:
        client: takes answers of `policy.LARGEST` octets.
        port: of policy hosts.
    """

    def __init__(self, client: HTTPSClient, *, port: int = PORT) -> None:
        self._client = client
        self._port = port

    def fetch(self, domain: str) -> Deferred[Policy]:
        """Fetch the policy of ``domain``, within a minute (RFC 8461 §3.3).

        Args:
            domain: in A-labels.

        Returns:
            Fails with `FetchError`; may be canceled.
        """
        return Deferred.fromCoroutine(self._fetch(domain))

    async def _fetch(self, domain: str) -> Policy:
        try:
            host = domain_name(f"mta-sts.{domain}")
        except AddressError:
            raise FetchError("the name of its policy host would be too long") from None
        request = Request(host=host, port=self._port, path=_PATH)
        try:
            octets = await self._client.send(request, accept=_accept)
        except FetchError:
            raise
        except Unproved as error:
            raise FetchError(error.reason, "sts-webpki-invalid") from None
        except HTTPSError as error:
            raise FetchError(error.reason) from None
        try:
            return Policy.parse(octets)
        except PolicyError as error:
            raise FetchError(f"{host}: {error}", "sts-policy-invalid") from None


def _accept(head: Head) -> None:
    if head.code != 200:
        # RFC 8461 §3.3: redirects must not be followed.
        raise FetchError(f"{head.target} answers {head.code}, expected 200")
    if [kind.partition(";")[0].strip().lower() for kind in head.types] != ["text/plain"]:
        found = " and ".join(head.types) or "no type"
        raise FetchError(
            f"{head.target} sends {printable(found)[:_SHOWN]}, expected text/plain",
            "sts-policy-invalid",
        )
