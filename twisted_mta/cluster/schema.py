"""The tables of a cluster: one file for each version, applied in order by the first that comes.

They have a version of their own, beside that of the queue's tables in the same schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from psycopg import Connection

Database = Connection[tuple[Any, ...]]
"""A connection."""

SCHEMA = "twisted_mta"
"""The schema (namespace) of the tables, as that of the queue."""

_LOCK = 0x7477_6D74_61  # the advisory lock of those that upgrade, as that of the queue
_VERSION = "cluster_version"


class NewerTables(Exception):
    """A newer program has upgraded the tables."""


def scripts() -> list[str]:
    """Return the SQL that leads from each version to the next, beginning with no tables."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".sql"))
    return [file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)]


def upgrade(database: Database, steps: Sequence[str]) -> None:
    """Bring the tables to the version of this program, in a transaction of its own.

    Raises:
        NewerTables: the version is higher.
    """
    if version(database) == len(steps):
        return
    with database.transaction():
        database.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        database.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        database.execute(f"CREATE TABLE IF NOT EXISTS {_VERSION} (number integer NOT NULL)")
        found = version(database)
        if found is None:
            found = 0
            database.execute(f"INSERT INTO {_VERSION} VALUES (0)")
        if found > len(steps):
            raise NewerTables(
                f"the tables of the cluster have version {found}, and this program knows"
                f" {len(steps)}: a newer program used them; run that program"
            )
        for step in steps[found:]:
            database.execute(step)
        database.execute(f"UPDATE {_VERSION} SET number = %s", (len(steps),))


def version(database: Database) -> int | None:
    """Return the version of the tables; None: there are none."""
    [(table,)] = database.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.{_VERSION}",)).fetchall()
    if table is None:
        return None
    rows = database.execute(f"SELECT number FROM {_VERSION}").fetchall()
    return int(rows[0][0]) if rows else None
