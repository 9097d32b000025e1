"""The schema of the embedded store: one file to a version, applied in order and never changed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from importlib import resources

from ..contract import NewerSchema


def scripts() -> list[str]:
    """Return the SQL that leads from each version to the next, from the empty database on."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".sql"))
    return [file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)]


def upgrade(database: sqlite3.Connection, steps: Sequence[str]) -> bool:
    """Bring the schema to the version of this program, one step after the other.

    Returns:
        Whether it was another one.

    Raises:
        NewerSchema: it is beyond that version.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise NewerSchema(
            f"the queue has schema version {version} and this program knows {len(steps)}:"
            " it was used by a newer one; use that, or another --state-dir"
        )
    for number, step in enumerate(steps[version:], start=version + 1):
        with transaction(database):
            for statement in _statements(step):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
    return bool(version < len(steps))


def _statements(script: str) -> Iterator[str]:
    """Split a script: `executescript` would commit the transaction that holds it together."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Do what is within in one transaction, or none of it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors; then there is nothing to roll back.
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
