"""A session with a host that carries no mail: what its TLS is now, and whether it suffices."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred

from ..mail.next_hop import Target
from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from ..mail.tls_policy import TLSPolicy
from ..smtp.client.step import Unusable
from ..smtp.conversation import Line
from .connection import Connection
from .connections import Connections
from .terms import Terms

_LONGEST = 32.0
"""Seconds of a session: a person waits for it. A handshake alone may take 30 s."""


@frozen(kw_only=True)
class Probed:
    """What came of a probe.

    Attributes:
        conversation: with the host, from the greeting to QUIT.
        usable: whether a delivery would have gone on.
        verdict: the same for people, with the reason.
        tls: what the handshake achieved; None: there was none.
    """

    conversation: Sequence[Line] = ()
    usable: bool
    verdict: str
    tls: TLSFacts | None = None


async def probe(
    connections: Connections, target: Target, terms: Terms, policy: TLSPolicy
) -> Probed:
    """Connect, send EHLO, do the handshake that a delivery would, and send QUIT.

    No account is used, and no session is resumed, so that the server has to prove itself. As in a
    delivery, a small ClientHello follows a large one without an answer.

    Args:
        connections: of the relay.
        target: an address of the host.
        terms: of a connection to it.
        policy: the TLS that the connection must have.
    """
    if policy.problem is not None:
        return Probed(usable=False, verdict=policy.problem)
    if terms.credentials is not None and policy.level in ("none", "may"):
        policy = evolve(policy, level="encrypt")
    terms = evolve(terms, credentials=None)
    first = await _session(connections, target, terms, policy)
    if isinstance(first, Probed):
        return first
    connection, unusable = first
    if unusable is None or not connections.may_try_small_hello(connection):
        return _judged(connection, unusable)
    second = await _session(connections, target, terms, policy, small_hello=True)
    if isinstance(second, Probed):
        return _judged(connection, unusable)
    before = [*connection.conversation.lines(), Line("note", "once more, with a small ClientHello")]
    connection, unusable = second
    found = _judged(connection, unusable)
    return evolve(found, conversation=[*before, *found.conversation])


async def _session(
    connections: Connections,
    target: Target,
    terms: Terms,
    policy: TLSPolicy,
    *,
    small_hello: bool = False,
) -> tuple[Connection, Unusable | None] | Probed:
    try:
        connection = await connections.open(
            target, terms, policy, small_hello=small_hello, resumes=False
        )
    except Exception as error:
        return Probed(usable=False, verdict=f"no connection: {printable(str(error))}")
    ended: Deferred[Unusable | None] = Deferred(lambda _: connection.abort())

    def end(unusable: Unusable | None) -> None:
        if not ended.called:  # canceled: the connection ends a little later
            ended.callback(unusable)

    connection.probe(end)
    text = f"a probe takes {_LONGEST:g} s at the most"
    timing_out = connections.reactor.callLater(_LONGEST, connection.abort, text)
    try:
        return connection, await ended
    finally:
        if timing_out.active():
            timing_out.cancel()


def _judged(connection: Connection, unusable: Unusable | None) -> Probed:
    level, tls = connection.policy.level, connection.session.tls
    lines = connection.conversation.lines()
    if unusable is not None:
        reply = unusable.reply.text if unusable.remote is None else str(unusable.reply)
        if unusable.clear_retry:
            verdict = f"TLS fails, and mail would go in clear, as level {level} allows: {reply}"
            return Probed(conversation=lines, usable=True, verdict=verdict, tls=unusable.tls)
        verdict = f"mail would not go there: {reply}"
        return Probed(conversation=lines, usable=False, verdict=verdict, tls=unusable.tls)
    if tls is None:
        why = "TLS is off" if level == "none" else "STARTTLS is of no use"
        verdict = f"mail would go in clear: {why}, as level {level} allows"
        return Probed(conversation=lines, usable=True, verdict=verdict)
    why = tls.peer_problem or f"level {level} does not demand it"
    verdict = f"mail would go under TLS, {tls.verdict or f'not verified: {why}'}"
    return Probed(conversation=lines, usable=True, verdict=verdict, tls=tls)
