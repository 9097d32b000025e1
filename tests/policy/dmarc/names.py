"""A resolver of TXT records alone."""

from collections.abc import Mapping, Sequence

from twisted_mta.testing.resolver import FakeResolver


class Names(FakeResolver):
    """Answers with TXT records, one or several for a name."""

    def __init__(self, records: Mapping[str, str | Sequence[str]] | None = None) -> None:
        super().__init__(
            texts={
                name: [found] if isinstance(found, str) else found
                for name, found in (records or {}).items()
            }
        )

    @property
    def queries(self) -> list[str]:
        """The names that were looked up, in order."""
        return [name for _, name in self.lookups]
