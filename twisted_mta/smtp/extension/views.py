"""Read-only views of sessions and transactions, for ESMTP extensions.

Extensions decide and never act: they see these protocols, and return replies, command parameters,
or a `NewClient`. So the sessions know extensions, and extensions do not know the sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.envelope import Parameters
from ...mail.message import Message
from ...mail.tls_facts import TLSFacts
from ..command import Greeting
from ..peer import Peer
from ..server.machine import State


class RecipientView(Protocol):
    """A recipient that was accepted in a transaction of a server session."""

    @property
    def mailbox(self) -> Mailbox:
        """The forward-path."""

    @property
    def parameters(self) -> Parameters:
        """The parameters of RCPT, as the extensions' readers left them."""


class TransactionView(Protocol):
    """A transaction of a server session (RFC 5321 §3.3)."""

    @property
    def reverse_path(self) -> Mailbox | None:
        """The sender; None is the null reverse-path."""

    @property
    def parameters(self) -> Parameters:
        """The parameters of MAIL, as the extensions' readers left them."""

    @property
    def recipients(self) -> Sequence[RecipientView]:
        """The accepted recipients, in the order of the RCPT commands."""


class SessionView(Protocol):
    """A server session: what is known of the client, and where the session stands."""

    @property
    def state(self) -> State:
        """The state of the session; extensions' verbs come in START, GREETED, MAIL and RCPT."""

    @property
    def peer(self) -> Peer:
        """The client, or the client that a proxy speaks for."""

    @property
    def proxy(self) -> Peer | None:
        """The proxy that speaks for `peer`; None where the client itself is connected."""

    @property
    def local_address(self) -> str | None:
        """Our address as the client sees it; None where it is not known, and on UNIX sockets."""

    @property
    def local_port(self) -> int:
        """Our port as the client sees it; 0 where it is not known, and on UNIX sockets."""

    @property
    def tls(self) -> TLSFacts | None:
        """What the TLS handshake achieved; None in clear."""

    @property
    def tls_ready(self) -> Callable[[], bool] | None:
        """Whether a handshake could begin now; None where TLS is not configured."""

    @property
    def greeting(self) -> Greeting | None:
        """The verb that the client greeted us with; None before."""

    @property
    def helo(self) -> str:
        """The name in the client's greeting; empty before."""

    @property
    def identity(self) -> str | None:
        """The authenticated user (RFC 4954); None without."""

    @property
    def mechanism(self) -> str:
        """The SASL mechanism by which `identity` was proven; empty where it is not known."""

    @property
    def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms that may be used here and now."""

    @property
    def mail_parameters(self) -> Collection[str]:
        """The keywords of the parameters that MAIL takes here, in upper case."""

    @property
    def lmtp(self) -> bool:
        """Whether the session speaks LMTP (RFC 2033)."""

    @property
    def transaction(self) -> TransactionView | None:
        """The mail transaction; None outside of one."""


class OutgoingView(Protocol):
    """A transaction of a client session: one message on its way to a next hop."""

    @property
    def message(self) -> Message:
        """The message, with those of its recipients that go to this next hop."""

    @property
    def remote(self) -> str:
        """The server, as replies of our own name it."""

    @property
    def capabilities(self) -> Mapping[str, str]:
        """What the server announced in reply to EHLO: parameters by upper-case keyword."""

    @property
    def size(self) -> int:
        """Octets of the content with its trace fields, as SIZE counts them (RFC 1870 §3)."""

    @property
    def binary(self) -> bool:
        """Whether the content goes by BDAT (RFC 3030 §3)."""


@frozen(kw_only=True)
class NewClient:
    """The result of a command in place of a reply: the session begins anew for another client.

    Not within a transaction: then the command is to be refused.

    Attributes:
        peer: the client.
        local_address: our address that the client connected to; None where it is not known.
        local_port: our port that the client connected to; 0 where it is not known.
        greeting: the verb that the client greeted the proxy with; None where it has yet to greet
            us.
        helo: the name in that greeting.
        identity: the user that the proxy has authenticated; None: none.
    """

    peer: Peer
    local_address: str | None
    greeting: Greeting | None = None
    helo: str = ""
    identity: str | None = None
    local_port: int = 0
