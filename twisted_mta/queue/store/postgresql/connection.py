"""Connections to a queue in PostgreSQL: their settings, and what the server has to promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import errors
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from ....system.postgresql import PatientConnection
from .schema import SCHEMA

PATIENCE = PatientConnection.patience
"""Seconds that a statement may take."""

_SETTINGS: Mapping[str, Any] = {
    "connect_timeout": 2,  # seconds; less is not possible
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,  # milliseconds
    "client_encoding": "UTF8",
    # The transaction of a machine that is cut off ends, and its locks, long before its leases do.
    "options": (
        f"-c search_path={SCHEMA} -c lock_timeout=1000 -c statement_timeout=30000"
        " -c idle_in_transaction_session_timeout=10000"
        r" -c default_transaction_isolation=read\ committed"
    ),
}


# Of a server that refuses a connection now, as libpq and the server write it.
_PASSING = (
    "session is read-only",  # a standby that is not promoted yet
    "too many clients",
    "too many connections",
    "remaining connection slots are reserved",
)


class NotAdmitted(OSError):
    """The server answers, and refuses the account, the database or the host."""


def connect(url: str, seconds: Callable[[], float], *, read_only: bool = False) -> Connection:
    """Return a connection to the server with a queue.

    Args:
        url: of the database, as libpq reads it.
        seconds: a monotonic clock.
        read_only: whether nothing is to be written. A standby is good enough then.

    Raises:
        NotAdmitted: it answers, and refuses the connection; trying again is of no use.
        OSError: the server would lose mail when its machine fails.
        psycopg.Error: it cannot be reached.
    """
    try:
        database = _connected(url)
    except psycopg.OperationalError:
        if PGconn.ping(make_conninfo(url, **_SETTINGS).encode()) != Ping.OK:
            raise
        try:  # it may have come up meanwhile
            database = _connected(url)
        except psycopg.OperationalError as error:
            if any(passing in str(error) for passing in _PASSING):
                raise
            raise NotAdmitted(str(error)) from error
    database.seconds = seconds
    try:
        if read_only:
            database.execute("SET default_transaction_read_only = on")
        else:
            _require_durability(database)
    except BaseException:
        database.close()
        raise
    return database


def _connected(url: str) -> Connection:
    return Connection.connect(url, autocommit=True, **_SETTINGS)


def may_pass(error: Exception) -> bool:
    """Whether an error of `connect`, or of a statement, says nothing against the settings.

    The server cannot be reached, is about to start or to stop, is a standby, or is too busy.
    """
    return isinstance(error, psycopg.OperationalError | errors.ReadOnlySqlTransaction)


def _require_durability(database: Connection) -> None:
    [(fsync, commit, full)] = database.execute(
        "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
        " current_setting('full_page_writes')"
    ).fetchall()
    if "off" in (fsync, full):
        raise OSError(
            f"it has fsync = {fsync} and full_page_writes = {full}, and would lose mail;"
            " expected on for both"
        )
    if commit == "off":
        database.execute("SET synchronous_commit = on")


class Connection(PatientConnection):
    """A connection to a queue."""
