"""An account at a next hop that logs in with OAuth 2.0 access tokens, and where those come from."""

from __future__ import annotations

from attrs import frozen

from ..mail.printable import printable


@frozen
class TokenFile:
    """Another program keeps a valid token in a file.

    Attributes:
        path: of the file; the token is its first line.
    """

    path: str

    def __str__(self) -> str:
        return printable(self.path)


@frozen
class TokenCommand:
    """A program prints a valid token whenever it is run.

    Attributes:
        arguments: its path or name, and its arguments; no shell is involved.
    """

    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"the command {printable(self.arguments[0])}"


@frozen
class TokenGrant:
    """A token server grants tokens (RFC 6749).

    Attributes:
        url: of its token endpoint.
        client_id: our identity there.
        client_secret_file: the path of the file with our secret; None: there is none.
        refresh_token_file: the path of the file with the refresh token (RFC 6749 §6); None: the
            grant is by our own credentials (RFC 6749 §4.4).
        scope: what tokens are for; empty: the server knows.
        authorities: the path of a PEM file with those that the server's certificate verifies
            against; None: those of the system.
    """

    url: str
    client_id: str
    client_secret_file: str | None = None
    refresh_token_file: str | None = None
    scope: str = ""
    authorities: str | None = None

    def __str__(self) -> str:
        return printable(self.url.partition("?")[0])


TokenSource = TokenFile | TokenCommand | TokenGrant


@frozen(cache_hash=True)
class TokenAccount:
    """An account, and the source of its tokens.

    Attributes:
        username: the name of the account.
        source: of its tokens.
    """

    username: str
    source: TokenSource
