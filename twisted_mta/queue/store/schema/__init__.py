"""The schema of the embedded store: one file for each version, applied in order, never changed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from importlib import resources

from ..contract import NewerSchema


def scripts() -> list[str]:
    """Return the SQL that leads from each version to the next, beginning with an empty database."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".sql"))
    return [file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name)]


def upgrade(database: sqlite3.Connection, steps: Sequence[str]) -> bool:
    """Bring the schema to the version of this program, in one transaction.

    A new database goes through all versions too, and would wait for the disk after each.

    Returns:
        Whether the schema changed.

    Raises:
        NewerSchema: the version is higher.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise NewerSchema(
            f"the queue has schema version {version}, and this program knows {len(steps)}: a newer"
            " program used it; run that program, or name another --state-dir"
        )
    if version == len(steps):
        return False
    with transaction(database):
        for step in steps[version:]:
            for statement in _statements(step):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(steps)}")
    return True


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script; `executescript` would commit the transaction around it."""
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
    """Commit the statements of the ``with`` block in one transaction, or roll all of them back."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # After some errors SQLite has rolled back by itself, and ROLLBACK fails.
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
