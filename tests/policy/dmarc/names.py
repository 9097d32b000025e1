"""A resolver of TXT records that are given as a dictionary."""

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, fail, succeed

from twisted_mta.dns import LookupFailed, NoSuchDomain


class Names:
    """Answers with TXT records; a name that is not there, and none below it, is NXDOMAIN.

    Attributes:
        queries: the names, in order.
        broken: names whose queries fail.
    """

    def __init__(self, records: Mapping[str, str | Sequence[str]] | None = None) -> None:
        self.records = dict(records or {})
        self.queries: list[str] = []
        self.broken: set[str] = set()

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        self.queries.append(domain)
        if domain in self.broken:
            return fail(LookupFailed(domain, "TXT", "SERVFAIL"))
        found = self.records.get(domain)
        if found is None:
            if any(name.endswith(f".{domain}") for name in self.records):
                return succeed(())
            return fail(NoSuchDomain(domain, "TXT", "NXDOMAIN"))
        texts = [found] if isinstance(found, str) else found
        return succeed([text.encode() for text in texts])
