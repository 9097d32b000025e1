"""The answers to challenges by HTTP, ``/.well-known/acme-challenge/TOKEN`` (RFC 8555 §8.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...interfaces import Clock
from ..http import READING, Request, ResponderSite, Response, only, short

_PATH = "/.well-known/acme-challenge/"


def challenge_host(answers: Callable[[], Mapping[str, str]], *, reactor: Clock) -> ResponderSite:
    """Return the factory of connections to the host that a challenge is answered at.

    An authority may ask by any name, and from anywhere. Everything else is not found.

    Args:
        answers: returns the answers that are valid now, by token.
        reactor: times connections out.
    """

    def answer(request: Request) -> Response:
        if request.method not in READING:
            return only(READING)
        found = answers().get(request.path.removeprefix(_PATH))
        if not request.path.startswith(_PATH) or found is None:
            return short("not found", 404)
        return Response(body=found.encode("ascii"), content_type="application/octet-stream")

    return ResponderSite(answer, reactor=reactor)
