"""The results of sessions with mail exchangers, for reports on TLS (RFC 8460 §4.3)."""

from __future__ import annotations

from collections.abc import Iterator

from ..mail.next_hop import NextHop, Target
from ..mail.tls_policy import TLSPolicy
from ..mail.tls_result import ResultType, TLSResult
from ..smtp.client.step import Unusable
from ..tls.failure_types import failure_type
from .connection import Connection, Result


def session_results(
    next_hop: NextHop, connection: Connection, result: Result
) -> Iterator[TLSResult]:
    """Yield what a new session says, when its first transaction has ended.

    Nothing where hosts were not found by MX, where no TLS was to be tried, and where the session
    ended before it could be.

    Args:
        next_hop: that the session is with.
        connection: of the session.
        result: of the first transaction.
    """
    policy = connection.policy
    # RFC 8460 §3: the sessions of reports, which are marked TLS-Required: No, are not reported; nor
    # is what others mark so, for which the policies of the domain are set aside.
    if policy.level == "none" or connection.terms.wish == "optional":
        return
    yield from host_results(next_hop, connection.target, policy)
    found = _found(connection, result)
    if found is not None and _is_reported(next_hop):
        if policy.trouble is not None and policy.patterns:
            return  # the host is none of the policy, which is the failure of this session
        if policy.trouble is not None:
            policy = TLSPolicy(level=policy.level)  # the session went on without it
        type, reason = found
        yield _result(next_hop, connection.target, policy, type, reason, connection.source)


def host_results(next_hop: NextHop, target: Target, policy: TLSPolicy) -> Iterator[TLSResult]:
    """Yield why a policy that a host should be under could not be had, or cannot be fulfilled."""
    if policy.trouble is not None and _is_reported(next_hop):
        reason = policy.problem or policy.trouble_reason
        yield _result(next_hop, target, policy, policy.trouble, reason)


def _is_reported(next_hop: NextHop) -> bool:
    return next_hop.transport == "smtp" and bool(next_hop.domain)


def _found(connection: Connection, result: Result) -> tuple[ResultType | None, str] | None:
    """Return the type of a failure, or None for a success, and the reason; None: no TLS was tried.

    A server under MTA-STS in testing mode may not be verified, and gets the mail all the same: this
    is a failure (RFC 8461 §5). Elsewhere a server that gets the mail is none.
    """
    refused = isinstance(result, Unusable) and result.stage == "tls"
    tls = connection.session.tls
    if tls is not None:
        if tls.peer_problem is not None and (refused or connection.policy.kind == "sts"):
            return failure_type(tls.peer_problem), tls.peer_problem
        return None, ""
    if not isinstance(result, Unusable):
        return "starttls-not-supported", ""
    if not (result.stage == "tls" or result.clear_retry or result.tls_missing):
        return None
    if result.remote is not None or result.reply.status == "7.4":
        return "starttls-not-supported", result.reply.text
    return "validation-failure", result.reply.text


def _result(
    next_hop: NextHop,
    target: Target,
    policy: TLSPolicy,
    type: ResultType | None,
    reason: str,
    source: str | None = None,
) -> TLSResult:
    return TLSResult(
        recipient_domain=next_hop.domain,
        policy_domain=policy.domain or next_hop.domain,
        policy_type=policy.kind,
        policy_strings=policy.strings,
        mx_patterns=policy.patterns,
        result=type,
        receiving_mx=target.name,
        receiving_ip=target.address,
        sending_ip=source,
        information=reason,
    )
