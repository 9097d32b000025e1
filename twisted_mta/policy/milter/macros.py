"""The macros that filters get with each stage, as Postfix names and sends them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from ...mail.address import Mailbox
from ..examination import PolicySession
from .negotiation import Terms
from .packets import Command

USUAL: Mapping[Command, tuple[str, ...]] = {
    Command.CONNECT: ("j", "{daemon_name}", "{daemon_addr}", "v", "_"),
    Command.HELO: (
        "{tls_version}",
        "{cipher}",
        "{cipher_bits}",
        "{cert_subject}",
        "{cert_issuer}",
    ),
    Command.MAIL: (
        "i",
        "{auth_type}",
        "{auth_authen}",
        "{auth_author}",
        "{mail_addr}",
        "{mail_host}",
        "{mail_mailer}",
    ),
    Command.RCPT: ("i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"),
    Command.DATA: ("i",),
    Command.END_OF_HEADER: ("i",),
    Command.END_OF_BODY: ("i",),
}
"""The macros of each stage, for filters that ask for no others."""

UNKNOWN = "unknown"
"""The name of a client without a confirmed name in the DNS."""

_LOCAL = ("localhost", "127.0.0.1")

Values = Mapping[str, str]


def of_session(session: PolicySession, *, hostname: str, version: str) -> Values:
    """Return the macros about a session.

    Args:
        session: the session.
        hostname: our name.
        version: the name of this program, with its version.
    """
    peer, tls, identity = session.peer, session.tls, session.identity
    name, known = client(session)
    address = known or UNKNOWN
    values = {
        "j": hostname,
        "{daemon_name}": hostname,
        "{daemon_addr}": session.local_address or "",
        "v": version,
        "_": f"{name} [{address}]",
        "{client_addr}": address,
        "{client_name}": name,
        "{client_port}": str(peer.port) if peer.port else "",
        "{client_ptr}": name,
    }
    if tls is not None:
        values.update(
            {
                "{tls_version}": tls.version,
                "{cipher}": tls.cipher,
                "{cipher_bits}": str(tls.bits),
                "{cert_subject}": tls.peer_subject or "",
                "{cert_issuer}": tls.peer_issuer or "",
            }
        )
    if identity is not None:
        values["{auth_authen}"] = identity
        values["{auth_type}"] = session.mechanism
    return values


def client(session: PolicySession) -> tuple[str, str | None]:
    """Return the name and the address of a client, as a filter is to see them.

    The name is confirmed in the DNS, or `UNKNOWN`; there is no address where a proxy does not know
    it. A program of a user of this machine counts as a client on loopback, as with Postfix: filters
    have lists of clients whose mail they sign, and do not judge.
    """
    peer = session.peer
    if peer.user is not None and peer.address is None:
        return _LOCAL
    address = (peer.address or "").partition("%")[0] or None
    return peer.name or session.reverse_name or UNKNOWN, address


def of_mailbox(kind: str, mailbox: Mailbox | None, is_local: Callable[[str], bool]) -> Values:
    """Return the macros about a reverse-path (``mail``), or a forward-path (``rcpt``)."""
    domain = "" if mailbox is None else mailbox.domain
    return {
        f"{{{kind}_addr}}": "" if mailbox is None else str(mailbox),
        f"{{{kind}_host}}": domain,
        f"{{{kind}_mailer}}": "local" if not domain or is_local(domain) else "smtp",
    }


def chosen(terms: Terms, command: Command, *known: Values) -> Sequence[tuple[str, bytes]]:
    """Return the macros to send before a command: those that it is to have and that have a value.

    Args:
        terms: of the filter.
        command: the stage.
        known: all that there are.
    """
    values: dict[str, str] = {}
    for each in known:
        values.update(each)
    found = []
    for name in terms.macros.get(command, USUAL.get(command, ())):
        value = values.get(name) or values.get(_other_spelling(name))
        if value:
            found.append((name, value.encode("utf-8", "backslashreplace")))
    return found


@lru_cache(maxsize=256)
def _other_spelling(name: str) -> str:
    """Return the other way to write a name: Sendmail's names of one letter need no braces."""
    if name.startswith("{") and name.endswith("}"):
        return name[1:-1]
    return f"{{{name}}}"
