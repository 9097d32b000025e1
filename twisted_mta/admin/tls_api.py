"""The TLS of next hops over HTTP: hosts, policies, handshakes, probes.

GET  /v1/tls                 the hosts that TLS was used with, each with its last handshake
GET  /v1/tls/<domain>        those that are or are below a domain; and where mail for it goes
POST /v1/tls/<domain>/probe  the same, with a session with each target; needs the scope act over TCP
POST /v1/tls/<host>/forget   a host is no longer known to do TLS; needs the scope act over TCP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure

from ..interfaces import Clock
from .http import READING, Request, Response, error_response, json_response, only
from .questions import (
    TLS_DOMAIN,
    TLS_FORGET,
    TLS_HANDSHAKES,
    TLS_HOSTS,
    Agents,
    Question,
)
from .status import VERSION

PATH = "/v1/tls"

_ACTIONS = ("probe", "forget")


class TLSAPI:
    """Answers requests for `PATH`, and those below it.

    Args:
        agents: are asked.
        clock: for time-outs.
    """

    def __init__(self, agents: Agents, *, clock: Clock) -> None:
        self._agents = agents
        self._clock = clock

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request."""
        name, _, action = request.path.removeprefix(PATH).removeprefix("/").partition("/")
        if action and action not in _ACTIONS:
            ways = ", ".join(f"POST {PATH}/<name>/{each}" for each in _ACTIONS)
            return error_response(f"there is GET {PATH}/<domain>, {ways}", 404)
        if not action:
            if request.method not in READING:
                return only(READING)
            return Deferred.fromCoroutine(self._shown(name or None)).addErrback(_failed)
        if request.method != "POST":
            return only(("POST",))
        if request.public:
            return error_response(
                f"{action} is answered at the control socket, and to a login, only", 403
            )
        asked = self._forget(name) if action == "forget" else self._shown(name, probe=True)
        return Deferred.fromCoroutine(asked).addErrback(_failed)

    async def _forget(self, host: str) -> Response:
        ports = await self._ask(TLS_FORGET, host=host)
        if not ports:
            return error_response(f"{host} is not known to do TLS", 404)
        return json_response({"version": VERSION, "host": host, "ports": ports})

    async def _shown(self, domain: str | None, *, probe: bool = False) -> Response:
        facts: Mapping[str, Any] = {}
        if domain is not None:
            # Any process: all have the same settings and ask the same DNS.
            shard = min(self._agents.shards())
            asked = self._agents.ask_shard(shard, TLS_DOMAIN, domain=domain, probe=probe)
            facts = {"domain": await asked.addTimeout(TLS_DOMAIN.timeout, self._clock)}
        hosts = await self._ask(TLS_HOSTS, domain=domain)
        handshakes = await self._ask(TLS_HANDSHAKES)
        by_host = {(each["host"], each["port"]): each for each in handshakes}
        for target in facts["domain"]["targets"] if facts else ():
            target["handshake"] = by_host.get((target["host"], target["port"]))
        shown = [{**host, "handshake": by_host.get((host["host"], host["port"]))} for host in hosts]
        return json_response({"version": VERSION, "hosts": shown, **facts})

    async def _ask(self, question: Question, **arguments: Any) -> Sequence[Any]:
        asked = self._agents.ask(question, **arguments)
        answer: Sequence[Any] = await asked.addTimeout(question.timeout + 1, self._clock)
        return answer


def _failed(failure: Failure) -> Response:
    if failure.check(TimedOut, LookupError):
        return error_response("no answer in time; try again", 503)
    failure.trap(ValueError)
    return error_response(failure.getErrorMessage(), 400)
