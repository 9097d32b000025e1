"""The schema of the store in PostgreSQL: one file for each version, applied in order."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from ..contract import NewerSchema
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
    if _version(database) is None:
        database.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        database.execute("CREATE TABLE version (number integer NOT NULL)")
        database.execute("INSERT INTO version VALUES (0)")
    version = _version(database)
    assert version is not None
    if version > len(steps):
        raise NewerSchema(
            f"the queue has schema version {version}, and this program knows {len(steps)}: a newer"
            " program used it; run that program, or name another database"
        )
    for step in steps[version:]:
        database.execute(step)
    if version < len(steps):
        database.execute("UPDATE version SET number = %s", (len(steps),))


def _version(database: Database) -> int | None:
    [(table,)] = database.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.version",)).fetchall()
    if table is None:
        return None
    [(number,)] = database.execute("SELECT number FROM version").fetchall()
    return int(number)
