"""The schema of the store in PostgreSQL: one file for each version, applied in order."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from ..contract import NewerSchema, StoreError
from .rows import Database

SCHEMA = "twisted_mta"
"""The schema (namespace) of the tables."""

_LOCK = 0x7477_6D74_61  # "twmta": the advisory lock of those that upgrade


def scripts() -> list[str]:
    """Return the SQL that leads from each version to the next, beginning with an empty database."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".sql"))
    return [file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)]


def upgrade(database: Database, steps: Sequence[str]) -> None:
    """Bring the schema to the version of this program, in the transaction that is open.

    Of two programs that start at once, one waits until the other has done it.

    Raises:
        NewerSchema: the version is higher.
    """
    database.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    if version(database) is None:
        database.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        database.execute("CREATE TABLE version (number integer NOT NULL)")
        database.execute("INSERT INTO version VALUES (0)")
    found = version(database)
    assert found is not None
    _require_known(found, len(steps))
    for step in steps[found:]:
        database.execute(step)
    if found < len(steps):
        database.execute("UPDATE version SET number = %s", (len(steps),))


def require_version(database: Database) -> None:
    """Check that the schema has the version of this program, without a change to it.

    Raises:
        NewerSchema: the version is higher.
        StoreError: it is lower, or there are no tables.
    """
    found, known = version(database), len(scripts())
    if found is None:
        raise StoreError("the database has no queue: no MTA was started on it yet")
    _require_known(found, known)
    if found < known:
        raise StoreError(
            f"the queue has schema version {found}, of an older program, and this program reads"
            f" {known}; start the MTA once, or read it with that program"
        )


def _require_known(found: int, known: int) -> None:
    if found > known:
        raise NewerSchema(
            f"the queue has schema version {found}, and this program knows {known}: a newer"
            " program used it; run that program, or name another database"
        )


def version(database: Database) -> int | None:
    """Return the version of the tables; None: there are none."""
    [(table,)] = database.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.version",)).fetchall()
    if table is None:
        return None
    [(number,)] = database.execute("SELECT number FROM version").fetchall()
    return int(number)
