"""Tokens that token servers have granted, in a file that all processes of one MTA share.

A process that asks for a token claims it first, so that the others wait for its answer: a refresh
token that is replaced when it is used (RFC 6749 §6) serves once.
"""

from __future__ import annotations

import hashlib

from attrs import field, frozen

from ...config.token_account import TokenAccount
from ...system.shared_database import SharedDatabase
from .grant import Granted
from .token import Token

_LATER = 60.0  # seconds
_CLAIM = 90.0  # seconds: longer than a request may last
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS token (
        account TEXT PRIMARY KEY,
        value TEXT NOT NULL DEFAULT '',
        granted_at REAL NOT NULL DEFAULT 0,
        renew_at REAL NOT NULL DEFAULT 0,
        wait_at REAL NOT NULL DEFAULT 0,
        expires_at REAL NOT NULL DEFAULT 0,
        refresh_token TEXT NOT NULL DEFAULT '',
        replaces TEXT NOT NULL DEFAULT '',
        claimed_until REAL NOT NULL DEFAULT 0
    )""",
)


@frozen
class Claim:
    """The right to ask for a token.

    Attributes:
        refresh_token: that has replaced the operator's; empty: none has.
    """

    refresh_token: str = field(default="", repr=False)


class TokenStore:
    """The file. All methods block, and raise `OSError` or `sqlite3.Error` where the disk refuses.

    Args:
        path: of the file, in a directory of its own below the state directory.
    """

    def __init__(self, path: str) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=5.0)

    def claim(
        self, account: TokenAccount, now: float, *, refused: str, refresh_token: str
    ) -> Token | Claim | None:
        """Return a token that another process got, or the right to ask for one.

        Args:
            account: whose token it is.
            now: seconds since the epoch.
            refused: a token that serves no more; empty: none.
            refresh_token: the operator's; empty: there is none. One that has replaced it is not
                used once the operator has written another.

        Returns:
            None while another process asks.
        """
        name, digest = _name(account), _digest(refresh_token)
        self._database.make()
        with self._database.transaction() as database:
            row = database.execute(
                "SELECT value, granted_at, renew_at, wait_at, expires_at, refresh_token, replaces,"
                " claimed_until FROM token WHERE account = ?",
                (name,),
            ).fetchone()
            replacing = ""
            if row is not None:
                value, granted_at, renew_at, wait_at, expires_at, stored, replaces, claimed = row
                # A clock that was set back leaves neither a token nor a claim for ever. Another
                # process may have written a little later than ``now``, for which this one waited.
                if value and value != refused and granted_at - _LATER <= now < renew_at:
                    return Token(
                        value=value, renew_at=renew_at, wait_at=wait_at, expires_at=expires_at
                    )
                if now < claimed <= now + _CLAIM + _LATER:
                    return None
                replacing = stored if replaces == digest else ""
            database.execute(
                "INSERT INTO token (account, claimed_until) VALUES (?, ?)"
                " ON CONFLICT (account) DO UPDATE SET claimed_until = excluded.claimed_until",
                (name, now + _CLAIM),
            )
            return Claim(replacing)

    def release(self, account: TokenAccount) -> None:
        """Give a claim back, since there was no token."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE token SET claimed_until = 0 WHERE account = ?", (_name(account),)
            )

    def save(
        self, account: TokenAccount, granted: Granted, now: float, *, refresh_token: str
    ) -> None:
        """Write what was granted, and give the claim back.

        Args:
            account: whose token it is.
            granted: the token; its refresh token, if there is one, replaces the operator's.
            now: seconds since the epoch.
            refresh_token: the operator's.
        """
        token = granted.token
        with self._database.transaction() as database:
            database.execute(
                "UPDATE token SET value = ?, granted_at = ?, renew_at = ?, wait_at = ?,"
                " expires_at = ?, claimed_until = 0 WHERE account = ?",
                (token.value, now, token.renew_at, token.wait_at, token.expires_at, _name(account)),
            )
            if granted.refresh_token:
                database.execute(
                    "UPDATE token SET refresh_token = ?, replaces = ? WHERE account = ?",
                    (granted.refresh_token, _digest(refresh_token), _name(account)),
                )


def _name(account: TokenAccount) -> str:
    return hashlib.sha256(repr(account).encode()).hexdigest()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
