"""The policies of domains: found out with the first mail, kept, and fetched again in time.

What is found out is on disk (`store.PolicyFile`), so that a restart and the other processes have
it: who hides the record and the policy host of a domain from us, after we have seen its policy, has
to do so until the policy expires, and not just for one lookup (RFC 8461 §10.2).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from typing import TypeVar

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, Executor, Random, Resolver, WallTime
from ...mail.printable import printable
from .fetcher import Fetch, FetchError
from .found import Found
from .kept import Kept
from .policy import PolicyError, record_id
from .store import PolicyFile

_T = TypeVar("_T")

_DAY = 86_400.0
_FRESH = 60.0  # seconds until the file is read again: another process may have found out more
_ROUND = 60.0  # seconds between two looks for policies to fetch again, at the least
_LONGEST_REST = 3_600.0  # and at the most: the wall clock may be set, another process may have died
_AT_ONCE = 16  # policies that are fetched again in one round: 23,000 a day
_MOST_WEIGHT = 20_000  # domains and patterns in memory


class PolicyCache:
    """Finds the policies of domains.

    Args:
        file: keeps them.
        fetch: fetches one.
        resolver: looks records up; it caches them for their time to live.
        executor: where the file is read and written.
        clock: for intervals.
        wall_time: seconds since the epoch.
        random: spreads the fetches of policies that came together.
    """

    _log = Logger()

    def __init__(
        self,
        file: PolicyFile,
        *,
        fetch: Fetch,
        resolver: Resolver,
        executor: Executor,
        clock: Clock,
        wall_time: WallTime,
        random: Random,
    ) -> None:
        self._file = file
        self._fetch = fetch
        self._resolver = resolver
        self._executor = executor
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._memory: OrderedDict[str, tuple[Kept | None, float]] = OrderedDict()
        self._weight = 0
        self._waiters: dict[str, list[Deferred[Kept]]] = {}
        self._fetching: dict[str, Deferred[None]] = {}
        self._running = False
        self._timer: IDelayedCall | None = None  # of the next round; None: in one, or stopped
        self._found_meanwhile = inf  # when to fetch again what was found out during a round

    def start(self) -> None:
        """Fetch policies again before they expire, from now on."""
        self._running = True
        self._rest(_ROUND)

    def stop(self) -> None:
        """Fetch nothing more."""
        self._running = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for fetching in tuple(self._fetching.values()):
            fetching.cancel()

    def find(self, domain: str) -> Deferred[Found]:
        """Find the policy that holds for mail to a domain now.

        This takes a lookup of the record, which may be cached; and with a record for which no
        policy is kept a fetch, up to a minute.

        Args:
            domain: in lower-case A-labels.

        Returns:
            Never fails: a domain of which nothing can be found out has no policy.
        """
        return Deferred.fromCoroutine(self._find(domain))

    async def _find(self, domain: str) -> Found:
        kept = await self._kept(domain)
        record, problem, trouble = await self._record(domain)
        now = self._wall_time()
        is_current = kept is not None and kept.in_force(now) and kept.id == record
        if record is not None and not is_current:
            kept = await self._updated(evolve(kept or Kept(domain=domain), used=now), record)
            now = self._wall_time()
            problem, trouble = kept.problem, kept.trouble
        if kept is None or not kept.in_force(now):
            return Found(domain=domain, problem=problem, trouble=trouble)
        if now - kept.used >= _DAY:
            kept = evolve(kept, used=now)
            self._remember(kept)
            await self._of_file("written", self._file.use, domain, now)
        # RFC 8461 §3.3: without a record, or a newer policy, the one that is kept applies.
        return Found(
            domain=domain,
            policy=kept.policy,
            id=kept.id,
            since=kept.since,
            problem=problem,
            trouble=trouble,
        )

    async def _record(self, domain: str) -> tuple[str | None, str, str]:
        """Return the id in the domain's record; or None, the problem and its kind."""
        name = f"_mta-sts.{domain}"
        try:
            id = record_id(await self._resolver.text(name))
        except CancelledError:
            raise
        except PolicyError as error:
            return None, f"{name}: {error}", "sts-policy-invalid"
        except Exception as error:
            return None, printable(str(error) or type(error).__name__), ""
        return (None, f"{name} has no record", "") if id is None else (id, "", "")

    # Fetching: one fetch of a domain at a time, for all that wait.

    def _updated(self, kept: Kept, id: str) -> Deferred[Kept]:
        """Fetch the policy for a record, unless that failed just now."""
        waiter: Deferred[Kept] = Deferred(lambda _: None)  # the fetch goes on for the others
        waiters = self._waiters.get(kept.domain)
        if waiters is not None:
            waiters.append(waiter)
            return waiter
        if not kept.may_fetch(id, self._wall_time()):
            waiter.callback(kept)
            return waiter
        domain = kept.domain
        self._waiters[domain] = [waiter]
        fetching = Deferred.fromCoroutine(self._fetched(kept, id))

        def ended(result: Kept | Failure) -> None:
            self._fetching.pop(domain, None)
            for each in self._waiters.pop(domain):
                if not each.called:
                    # Only a stop cancels a fetch.
                    each.callback(kept if isinstance(result, Failure) else result)
            if isinstance(result, Failure) and not result.check(CancelledError):
                self._log.failure("the policy of {domain} was not fetched", result, domain=domain)

        ending = fetching.addBoth(ended)
        if domain in self._waiters:
            self._fetching[domain] = ending
        return waiter

    async def _fetched(self, kept: Kept, id: str) -> Kept:
        before = kept
        try:
            policy = await self._fetch(kept.domain)
        except FetchError as error:
            now = self._wall_time()
            kept = kept.failed(id, error.reason, error.trouble, now)
            self._not_refreshed(kept, error.reason, now)
        else:
            kept = kept.renewed(policy, id, self._wall_time(), self._random.random())
            if (policy, id) != (before.policy, before.id):
                self._log.info(
                    "{domain} has an MTA-STS policy: {mode}, id {policy_id}, for {seconds} s:"
                    " {patterns}",
                    domain=kept.domain,
                    mode=policy.mode,
                    policy_id=id,
                    seconds=policy.max_age,
                    patterns=_listed(policy.patterns),
                )
        self._remember(kept)
        written = await self._of_file("written", self._file.write, kept)
        if written is not None:
            self._remember(written)
            self._plan(written.refresh)
        return written or kept

    def _not_refreshed(self, kept: Kept, problem: str, now: float) -> None:
        """Alert the operator, unless the policy says nothing anyhow (RFC 8461 §3.3)."""
        if not kept.in_force(now):
            self._log.info(
                "{domain} has a record of MTA-STS, and no policy can be had: {error}",
                domain=kept.domain,
                error=problem,
            )
        elif kept.policy is not None and kept.policy.mode != "none":
            self._log.warn(
                "the MTA-STS policy of {domain} cannot be fetched again, and the one of before is"
                " obeyed for {seconds} s more: {error}",
                domain=kept.domain,
                seconds=round(kept.expires - now),
                error=problem,
            )

    # Refreshing: in rounds, each of which begins when the first policy is due.

    def _rest(self, seconds: float) -> None:
        if self._running:
            self._timer = self._clock.callLater(seconds, self._begin_round)

    def _plan(self, refresh: float) -> None:
        """Begin the next round in time for a policy that is to be fetched again at ``refresh``."""
        if self._timer is None:
            self._found_meanwhile = min(self._found_meanwhile, refresh)
            return
        seconds = self._seconds_until(refresh)
        if seconds < self._timer.getTime() - self._clock.seconds():
            self._timer.reset(seconds)

    def _seconds_until(self, refresh: float) -> float:
        return min(max(refresh - self._wall_time(), _ROUND), _LONGEST_REST)

    def _begin_round(self) -> None:
        self._timer = None
        self._found_meanwhile = inf

        def failed(failure: Failure) -> float:
            self._log.failure("the policies of MTA-STS were not fetched again", failure)
            return _ROUND

        Deferred.fromCoroutine(self._round()).addErrback(failed).addCallback(self._rest)

    async def _round(self) -> float:
        """Fetch what is due; return the seconds until the next round."""
        due = await self._of_file("read", self._file.due, self._wall_time(), _AT_ONCE)
        await DeferredList([Deferred.fromCoroutine(self._refresh_one(kept)) for kept in due or ()])
        first = await self._of_file("read", self._file.next_refresh)
        if first is None:  # it cannot be read
            return _ROUND
        return self._seconds_until(min(first, self._found_meanwhile))

    async def _refresh_one(self, kept: Kept) -> None:
        id, problem, _ = await self._record(kept.domain)
        if id is not None:
            await self._updated(kept, id)
            return
        now = self._wall_time()
        self._not_refreshed(kept, problem, now)
        kept = kept.postponed(now)
        self._remember(await self._of_file("written", self._file.write, kept) or kept)

    # What is kept.

    async def _kept(self, domain: str) -> Kept | None:
        known = self._memory.get(domain)
        if known is not None and self._clock.seconds() - known[1] < _FRESH:
            self._memory.move_to_end(domain)
            return known[0]
        kept = await self._of_file("read", self._file.read, domain)
        if kept is None and known is not None:
            kept = known[0]  # the file has lost it, or cannot be read
        self._remember(kept, domain)
        return kept

    def _remember(self, kept: Kept | None, domain: str = "") -> None:
        domain = domain if kept is None else kept.domain
        before = self._memory.pop(domain, None)
        if before is not None:
            self._weight -= _weight(before[0])
        self._memory[domain] = kept, self._clock.seconds()
        self._weight += _weight(kept)
        while self._weight > _MOST_WEIGHT and len(self._memory) > 1:
            _, (oldest, _) = self._memory.popitem(last=False)
            self._weight -= _weight(oldest)

    async def _of_file(
        self, verb: str, function: Callable[..., _T], *arguments: object
    ) -> _T | None:
        """Call a method of the file; mail goes on without it."""
        try:
            return await self._executor(function, *arguments)
        except CancelledError:
            raise
        except Exception as error:  # OSError, sqlite3.Error, a row of a later version
            self._log.error(
                "the policies of MTA-STS cannot be {verb}: {error}",
                verb=verb,
                error=printable(str(error)),
            )
            return None


def _weight(kept: Kept | None) -> int:
    return 1 + (len(kept.policy.patterns) if kept is not None and kept.policy is not None else 0)


def _listed(patterns: Sequence[str]) -> str:
    more = f" and {len(patterns) - 5} more" if len(patterns) > 5 else ""
    return (", ".join(patterns[:5]) or "no hosts") + more
