"""SPF as a policy: both identities of a stranger are checked at MAIL."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, FirstError, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...mail.address import AddressError, Mailbox, domain_name
from ...mail.printable import printable
from ...mail.reply import Reply
from ...message.authentication_results import MethodResult
from ...system.coroutines import outcome, started
from ..examination import PolicySession
from .evaluation import Checker, Claim
from .result import Result

NAME = "spf"
"""The name of the policy, and of the method in Authentication-Results (RFC 8601 §2.7.2)."""

FAILED = (MethodResult(NAME, "temperror", "the check was not finished in time"),)
"""What is recorded where the policy fails, or has no answer in time."""

_HELO, _MAILFROM = "smtp.helo", "smtp.mailfrom"
_LONGEST_LINE = 400  # characters of a line of a reply, which has 510 (RFC 5321 §4.5.3.1.5)

_NO_ADDRESS = Result("none", problem="the address of the client is not known")
_NO_DOMAIN = Result("none", problem="the greeting has no domain name")
_UNFINISHED = Result("temperror", problem=FAILED[0].reason)


class SPFPolicy:
    """Checks the HELO and the MAIL FROM identity of each transaction (RFC 7208 §2.3, §2.4).

    Both are always checked, at the same time. With a null reverse-path there is the HELO identity
    alone, which §2.4 makes the MAIL FROM identity.

    Where it enforces, ``fail`` of the MAIL FROM identity is refused with ``550 5.7.23`` (§8.4, RFC
    7372 §3.2). So is ``fail`` of the HELO identity, which §2.3 calls conclusive, unless the MAIL
    FROM identity passes: then the owner of the reverse-path has named this very client, and mail is
    not lost by a wrong name in the configuration of a host. No other result refuses, also not
    ``temperror`` and ``permerror``, for which §8.6 and §8.7 allow it.

    It concludes the examination with a result for each identity.

    Args:
        checker: evaluates the records.
        enforces: whether MAIL waits for the results, and a ``fail`` is refused; otherwise MAIL goes
            on at once.
    """

    _log = Logger()

    def __init__(self, checker: Checker, *, enforces: bool) -> None:
        self._checker = checker
        self._enforces = enforces

    def mail(self, session: PolicySession, sender: Mailbox | None) -> Deferred[Reply | None] | None:
        """Begin the check; return the refusal."""
        refusal = started(self._check(session, sender))
        if self._enforces:
            return refusal
        refusal.addErrback(self._failed)
        return None

    def _failed(self, failure: Failure) -> None:
        self._log.failure("an SPF check failed", failure)

    async def _check(self, session: PolicySession, sender: Mailbox | None) -> Reply | None:
        examination = session.examination
        helo = session.helo
        results: Sequence[Result] = ()
        try:
            checks = [outcome(self._helo(session))]
            if sender is not None:
                checks.append(outcome(self._mail_from(session, sender)))
            results = await _all(checks)
        except FirstError as error:
            # Of a check that was canceled: the deadline of the policy, or the client has left.
            error.subFailure.raiseException()
        finally:
            if examination is not None:
                examination.conclude(NAME, _method_results(helo, sender, results))
        if not self._enforces:
            return None
        return _refusal(session, sender, *results)

    async def _helo(self, session: PolicySession) -> Result:
        if session.address is None:
            return _NO_ADDRESS
        helo = session.helo
        known = session.memory.get(self)
        if isinstance(known, tuple) and known[0] == helo:
            result: Result = known[1]
            return result
        try:
            domain = domain_name(helo)
        except AddressError:
            return _NO_DOMAIN
        claim = Claim(address=session.address, domain=domain, helo=helo)
        result = await self._checker.check(claim)
        if result.result != "temperror":
            session.memory[self] = (helo, result)  # for the next transaction
        return result

    async def _mail_from(self, session: PolicySession, sender: Mailbox) -> Result:
        if session.address is None:
            return _NO_ADDRESS
        return await self._checker.check(
            Claim(
                address=session.address,
                domain=sender.domain,
                local_part=sender.local_part,
                helo=session.helo,
            )
        )


async def _all(checks: Sequence[Result | Deferred[Result]]) -> Sequence[Result]:
    results = [each for each in checks if isinstance(each, Result)]
    if len(results) == len(checks):
        return results  # at once, as with answers in the cache
    waiting = (succeed(each) if isinstance(each, Result) else each for each in checks)
    return await gatherResults(waiting, consumeErrors=True)


def _method_results(
    helo: str, sender: Mailbox | None, results: Sequence[Result]
) -> list[MethodResult]:
    try:
        identities = [(_HELO, domain_name(helo))]
    except AddressError:
        identities = [(_HELO, helo)]
    if sender is not None:
        identities.append((_MAILFROM, str(sender)))
    return [
        MethodResult(NAME, result.result, properties=(identity,), comment=result.reason)
        for identity, result in zip(identities, results or [_UNFINISHED, _UNFINISHED], strict=False)
    ]


def _refusal(
    session: PolicySession, sender: Mailbox | None, helo: Result, mail_from: Result | None = None
) -> Reply | None:
    """Return the reply to a ``fail`` (RFC 7208 §8.4)."""
    if mail_from is not None and sender is not None and mail_from.result == "fail":
        return _reply(f"{session.address} may not send mail of {sender.domain}", mail_from)
    if helo.result == "fail" and (mail_from is None or mail_from.result != "pass"):
        return _reply(f"{session.address} may not use the name {session.helo}", helo)
    return None


def _reply(what: str, result: Result) -> Reply:
    lines = [f"{printable(what)[:_LONGEST_LINE]}, says its SPF record"]
    if result.explanation:
        # §6.2: it has to be clear whose words these are.
        lines.append(f"{result.domain} explains: {result.explanation}")
    return Reply.of(550, "7.23", *lines)
