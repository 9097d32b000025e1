"""The database of a queue that several machines share: whether it can be used, and its tables."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import Config
from ...mail.printable import printable
from ...system.real_world import monotonic_microseconds
from .finding import Finding

_WHERE = "[mta] queue"


def database(config: Config) -> Iterator[Finding]:
    """Yield findings about the database; nothing is changed there."""
    if config.queue.database is None:
        return
    # Its client takes longer to import than the rest of the check.
    import psycopg

    from ...queue.store.postgresql.connection import NotAdmitted, connect, require_durability
    from ...queue.store.postgresql.schema import scripts, version

    try:
        connection = connect(config.queue.database, _seconds, read_only=True)
        try:
            require_durability(connection)
            found, known = version(connection), len(scripts())
        finally:
            connection.close()
    except (NotAdmitted, psycopg.ProgrammingError) as error:
        yield Finding("error", _WHERE, _one_line(error), "a start fails until that is mended")
        return
    except psycopg.OperationalError as error:
        yield Finding("error", _WHERE, _one_line(error), "mail is refused until it is there")
        return
    except (OSError, psycopg.Error) as error:
        yield Finding("error", _WHERE, _one_line(error))
        return
    if found is None:
        yield Finding("note", _WHERE, "the database has no queue yet: the first start makes it")
    elif found < known:
        yield Finding(
            "note",
            _WHERE,
            f"the queue has schema version {found}: the next start of this program brings it to"
            f" {known}, after which older programs no longer start on it",
        )
    elif found > known:
        yield Finding(
            "error",
            _WHERE,
            f"the queue has schema version {found}, and this program knows {known}",
            "run the newer program",
        )


def _seconds() -> float:
    return monotonic_microseconds() / 1e6


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))
