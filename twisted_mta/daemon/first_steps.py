"""The lines after the start that show how to try the MTA: each command in them works as it is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger

from ..agent.mailboxes import Mailboxes
from ..config import Config, Listener
from ..delivery.mailbox_directory import NoMailbox, mailbox_directory
from ..mail.address import Mailbox
from ..mail.reply import Reply
from ..policy.networks import Networks
from ..system.ports import Bound

_TRY = (
    'try: python3 -c \'import smtplib; s = smtplib.SMTP("{host}", {port}); s.starttls();'
    ' s.sendmail("me@{domain}", ["{recipient}"], "Subject: Hello\\r\\n\\r\\nIt works.\\r\\n")\''
)
_TRY_IN_CLEAR = (
    'try: python3 -c \'import smtplib; s = smtplib.SMTP("{host}", {port});'
    ' s.sendmail("me@{domain}", ["{recipient}"], "Subject: Hello\\r\\n\\r\\nIt works.\\r\\n")\''
)
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_SHELL = "'\"\\$`"  # characters that the line cannot have in an address


def log_first_steps(
    log: Logger, config: Config, bound: Sequence[Bound], mailboxes: Mailboxes | None
) -> None:
    """Log a message to send, where to read it, and the address of the page.

    Without a listener that takes the message, or a mailbox for it, there is no message to send.

    Args:
        log: for the lines.
        config: the settings in force.
        bound: the ports of the listeners in their order, then those of the page.
        mailboxes: know the aliases; None: other processes have them.
    """
    mailbox = _mailbox(config, mailboxes)
    for listener, port in zip(config.listeners, bound, strict=False):
        host = _host(port)
        if mailbox is None or host is None or not _takes_mail(listener, host):
            continue
        log.info(
            _TRY_IN_CLEAR if listener.tls == "none" else _TRY,
            host=host,
            port=port.address.port,
            domain=mailbox.domain,
            recipient=str(mailbox),
        )
        maildir = "/".join((config.maildir, *mailbox_directory(mailbox)))
        log.info("then: cat {maildir}/new/*", maildir=shlex.quote(maildir))
        break
    for port in bound:
        host = _host(port)
        if port.kind == "web" and host is not None:
            literal = f"[{host}]" if ":" in host else host
            log.info(
                "look: {scheme}://{host}:{port}/",
                scheme="https" if port.implicit_tls else "http",
                host=literal,
                port=port.address.port,
            )


def _host(bound: Bound) -> str | None:
    """Return the host to connect to; None for a UNIX socket."""
    address: Any = bound.address
    host: str | None = getattr(address, "host", None)
    return None if host is None else _ANYWHERE.get(host, host)


def _takes_mail(listener: Listener, host: str) -> bool:
    """Whether a listener takes mail of smtplib, for a local mailbox, without an account."""
    # On one machine, a client connects from the address that it connects to.
    return (
        listener.kind == "smtp"
        and not listener.implicit_tls
        and listener.client_certificates != "require"
        and not Networks(listener.proxy_protocol_from).cover(host)
    )


def _mailbox(config: Config, mailboxes: Mailboxes | None) -> Mailbox | None:
    """Return a mailbox whose mail is delivered to its Maildir here; None: none is known."""
    # Every local domain has a postmaster, whichever mailboxes exist (RFC 5321 §4.5.1).
    names = ("you", "postmaster") if config.recipients == "any" else ("postmaster",)
    for domain in config.local_domains:
        for name in names:
            mailbox = Mailbox(name, domain)
            if _is_typable(domain) and _is_delivered(config, mailboxes, mailbox):
                return mailbox
    return None


def _is_typable(domain: str) -> bool:
    return domain.isascii() and not any(character in domain for character in _SHELL)


def _is_delivered(config: Config, mailboxes: Mailboxes | None, mailbox: Mailbox) -> bool:
    try:
        mailbox_directory(mailbox)
    except NoMailbox:
        return False
    if mailboxes is None:
        patterns = [pattern for pattern, _ in config.routes]
        return config.aliases is None and mailbox.domain not in patterns
    found = mailboxes.expand(mailbox, None)
    return (
        not isinstance(found, Reply)
        and mailboxes.route(mailbox).transport == "maildir"
        and any(each.mailbox == mailbox and each.refusal is None for each in found)
    )
