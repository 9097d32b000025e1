"""Groups of domains by their mail exchangers: all of a group share limits and suspension.

The exchangers of a domain are known after its MX look-up. So the first attempt for a domain only
looks it up, and its mail moves to the group before anything connects. Each later look-up shows
whether the domain is still in its group.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from ..mail.next_hop import NextHop

# Name servers of a domain may have different answers: mail must not move to and fro between them.
_STEADY = 300.0  # seconds for which a domain stays in its group
_MOST = 100_000  # domains; others are looked up again before they are tried

ExchangerOf = Callable[[str, str], str]
"""Returns the pattern of the group that a domain with a most preferred exchanger is in; empty: in
none: `Config.exchanger_of`."""


@frozen
class _Known:
    exchanger: str
    since: float


class ExchangerGroups:
    """The groups of the domains that were looked up.

    Args:
        exchanger_of: the group by domain and exchanger, by the configuration in force.
        seconds: the monotonic time.
    """

    def __init__(self, exchanger_of: ExchangerOf, seconds: Callable[[], float]) -> None:
        self._exchanger_of = exchanger_of
        self._seconds = seconds
        self._known: dict[str, _Known] = {}  # the last looked up is the last

    def note(self, domain: str, exchanger: str) -> None:
        """Take note of the most preferred exchanger of a domain."""
        known = self._known.pop(domain, None)
        group = self._exchanger_of(domain, exchanger)
        now = self._seconds()
        if known is None:
            if not group:
                return  # as most domains are: nothing to remember
            known = _Known(exchanger, now)
            if len(self._known) == _MOST:
                del self._known[next(iter(self._known))]
        elif group == self._exchanger_of(domain, known.exchanger):
            known = evolve(known, exchanger=exchanger)
        elif now - known.since >= _STEADY:
            known = _Known(exchanger, now)
        self._known[domain] = known

    def grouped(self, next_hop: NextHop) -> NextHop:
        """Return a next hop as one of its group, as far as that is known."""
        if not next_hop.domain:
            return next_hop
        known = self._known.get(next_hop.domain)
        group = "" if known is None else self._exchanger_of(next_hop.domain, known.exchanger)
        return next_hop if group == next_hop.exchanger else evolve(next_hop, exchanger=group)
