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

    from ...cluster import schema as cluster_schema
    from ...queue.store.postgresql import schema as queue_schema
    from ...queue.store.postgresql.connection import NotAdmitted, connect, require_durability

    try:
        connection = connect(config.queue.database, _seconds, read_only=True)
        try:
            require_durability(connection)
            queue = queue_schema.version(connection), len(queue_schema.scripts())
            cluster = cluster_schema.version(connection), len(cluster_schema.scripts())
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
    if queue[0] is None:
        yield Finding("note", _WHERE, "the database has no queue yet: the first start makes it")
        return
    yield from _version("the queue has schema version", *queue, "start on it")
    # A queue that was moved into the database has none before the first start.
    yield from _version("the tables of the cluster have version", *cluster, "share limits there")


def _version(what: str, found: int | None, known: int, older: str) -> Iterator[Finding]:
    """Yield a finding about the version of tables that this program would change, or not use."""
    if found is not None and found < known:
        yield Finding(
            "note",
            _WHERE,
            f"{what} {found}: the next start of this program brings it to {known}, after which"
            f" older programs no longer {older}",
        )
    elif found is not None and found > known:
        yield Finding(
            "error",
            _WHERE,
            f"{what} {found}, and this program knows {known}",
            "run the newer program",
        )


def _seconds() -> float:
    return monotonic_microseconds() / 1e6


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()))
