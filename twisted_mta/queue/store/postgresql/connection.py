"""Connections to a queue in PostgreSQL: their settings, and what the server has to promise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg
from attrs import frozen
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import Diagnostic
from psycopg.pq import PGconn, Ping

from ....system.postgresql import PatientConnection
from .schema import SCHEMA

_T = TypeVar("_T")

# Of a transaction that fails it warns that further statements were not run: the error is raised.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

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
        # A plan is kept: one that was made for an empty queue has to be good for a long one. Plans
        # are not compiled, which takes far longer than any of them runs.
        " -c enable_seqscan=off -c jit=off"
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


_GLANCE = 4.0  # seconds that a server has to say which one it is, where there are others


@frozen
class Timeline:
    """Which of the histories of a database a server goes on with.

    Attributes:
        system: the identifier that a server and its standbys have in common.
        number: rises at each promotion of a standby.
    """

    system: int
    number: int


def connect(
    url: str,
    seconds: Callable[[], float],
    *,
    read_only: bool = False,
    since: Timeline | None = None,
) -> Connection:
    """Return a connection to the server with a queue.

    Where the URL names several hosts and asks for one that can be written, all of them are asked:
    of several, the one that was promoted last is right. The others are primaries of before, which
    nobody has stopped.

    Args:
        url: of the database, as libpq reads it.
        seconds: a monotonic clock.
        read_only: whether nothing is to be written. A standby is good enough then.
        since: the timeline of an earlier connection.

    Raises:
        NotAdmitted: it answers, and refuses the connection; trying again is of no use.
        OSError: the server would lose mail when its machine fails.
        psycopg.Error: it cannot be reached, or is a primary of before.
    """
    database = _admitted(url, seconds, read_only=read_only)
    try:
        if read_only:
            database.execute("SET default_transaction_read_only = on")
        else:
            require_durability(database)
            database.timeline = timeline = _timeline(database)
            if since and since.system == timeline.system and since.number > timeline.number:
                raise psycopg.OperationalError(
                    f"the server at {database.info.host} port {database.info.port} is on timeline"
                    f" {timeline.number}, and the queue has gone on on {since.number}, as a standby"
                    " was promoted: stop that server, or make it a standby"
                )
    except BaseException:
        database.close()
        raise
    database.add_notice_handler(database.noticed)
    return database


class Connecting:
    """Connects to the server with a queue again and again, and to no primary of before.

    Args:
        url: of the database, as libpq reads it.
        seconds: a monotonic clock.
    """

    def __init__(self, url: str, seconds: Callable[[], float]) -> None:
        self._url = url
        self._seconds = seconds
        self._timeline: Timeline | None = None

    def __call__(self) -> PatientConnection:
        """Return a connection; raises as `connect` does."""
        database = connect(self._url, self._seconds, since=self._timeline)
        self._timeline = database.timeline
        return database


def _admitted(url: str, seconds: Callable[[], float], *, read_only: bool) -> Connection:
    connected = _readable if read_only else _writable
    try:
        return connected(url, seconds)
    except psycopg.OperationalError:
        if PGconn.ping(make_conninfo(url, **_SETTINGS).encode()) != Ping.OK:
            raise
        try:  # it may have come up meanwhile
            return connected(url, seconds)
        except psycopg.OperationalError as error:
            if any(passing in str(error) for passing in _PASSING):
                raise
            raise NotAdmitted(str(error)) from error


def _readable(url: str, seconds: Callable[[], float]) -> Connection:
    try:
        return _connected(url, seconds)
    except psycopg.OperationalError as error:
        try:
            return _connected(make_conninfo(url, target_session_attrs="any"), seconds)
        except psycopg.OperationalError:
            raise error from None


def _writable(url: str, seconds: Callable[[], float]) -> Connection:
    found: dict[Connection, int] = {}
    failures: list[str] = []
    urls = _hosts(url)
    for each in urls:
        try:
            database = _connected(each, seconds)
            found[database] = _glance(database) if len(urls) > 1 else 0
        except psycopg.OperationalError as error:
            failures.append(str(error).strip())
    if not found:
        raise psycopg.OperationalError("; ".join(failures))
    best = max(found, key=lambda database: found[database])  # the first of equal ones
    for database in found:
        if database is not best:
            database.close()
    return best


def _hosts(url: str) -> list[str]:
    """Return the URL for each of its hosts, where one is sought that can be written."""
    info = conninfo_to_dict(url)
    hosts = str(info.get("host") or "").split(",")
    ports = str(info.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    sought = info.get("target_session_attrs") in ("read-write", "primary")
    if not sought or len(hosts) == 1 or len(hosts) != len(ports) or info.get("hostaddr"):
        return [url]
    return [
        make_conninfo(url, host=host, port=port or None)
        for host, port in zip(hosts, ports, strict=True)
    ]


def _connected(url: str, seconds: Callable[[], float]) -> Connection:
    database = Connection.connect(url, autocommit=True, **_SETTINGS)
    database.seconds = seconds
    return database


def _glance(database: Connection) -> int:
    """Return the number of a server's timeline; one that does not answer soon is left alone."""
    database.patience = _GLANCE
    try:
        number = _timeline(database).number
    except BaseException:
        database.close()
        raise
    database.patience = PATIENCE
    return number


def _timeline(database: Connection) -> Timeline:
    # A standby has neither: it is not asked.
    [(system, number)] = database.execute(
        "SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
        " FROM pg_control_system()"
    ).fetchall()
    return Timeline(system, int(number, 16))


def may_pass(error: Exception) -> bool:
    """Whether an error of `connect`, or of a statement, says nothing against the settings.

    The server cannot be reached, is about to start or to stop, is a standby, or is too busy.
    """
    return isinstance(error, psycopg.OperationalError | errors.ReadOnlySqlTransaction)


def require_durability(database: Connection) -> None:
    """Check that the server loses nothing that it has committed, as far as its settings go.

    Raises:
        OSError: it does.
    """
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
    """A connection to a queue; it takes no commit for one that its standby may not have.

    The statements of a transaction are pipelined: each is sent at once, and the server is waited
    for where a result is fetched, and at the end.

    Attributes:
        timeline: of the server; None: not asked for.
    """

    timeline: Timeline | None = None
    _is_local = False

    def noticed(self, diagnostic: Diagnostic) -> None:
        """Take note of a warning: a COMMIT that ended before a standby had it is one.

        The wait for the standby ends where a statement takes too long, or an administrator cancels
        it. The server then says that it is committed, and it would be lost with that server.
        """
        if diagnostic.severity_nonlocalized == "WARNING" and diagnostic.sqlstate == "01000":
            self._is_local = True

    def wait(self, gen: PQGen[_T], interval: float = 0.1, timeout: float | None = None) -> _T:
        """Run the generator of a statement to its end (`PatientConnection`).

        Raises:
            psycopg.OperationalError: the server did not answer in time, or has not waited for its
                standby; the connection is closed.
        """
        result = super().wait(gen, interval, timeout)
        if self._is_local:
            self.pgconn.finish()
            raise psycopg.OperationalError("the standby has not confirmed the transaction")
        return result
