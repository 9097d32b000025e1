"""`sendmail`: one transaction with a given server, and the reply for each recipient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed

from ..delivery.address_order import kernel_source
from ..delivery.attempt import Attempt
from ..delivery.attempts import Attempts
from ..delivery.connections import Connections
from ..delivery.settings import RelaySettings
from ..delivery.terms import Terms
from ..mail.address import AddressError, Mailbox, domain_name
from ..mail.envelope import Envelope, Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import Host, NextHop, Target
from ..mail.outcome import Outcome
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..message.application_content import Content
from ..smtp.application_envelope import ApplicationEnvelope, Notify, envelope_reading
from ..system.executors import pool_executor
from ..system.outbox import Outbox
from ..system.real_world import nonce, system_random, wall_time
from ..system.timers import with_monotonic_time
from ..system.work import finished
from ..tls.client import ClientContexts
from .content import MeasuredBody, measured, source_of
from .errors import ConnectionFailed, SendError, error_of
from .lookup import machine_name, targets_of
from .server import Server, TLSLevel

_MOST_RECIPIENTS = 1000  # of a transaction: few servers take more, and all its commands go at once
_HEAD_START = 0.25  # RFC 8305 §5: a person may wait for the result


@frozen(kw_only=True)
class SendResult:
    """The result of a transaction.

    Attributes:
        recipients: the final reply for each recipient, by its address as it was written. Where the
            server gave none, since the connection was lost or the server lacks an extension that
            the message needs, the reply is our own and says so.
        server: the server, ``host[address]:port``; None where no reply is its own.
        tls: the TLS session with it, and its certificate; None in clear.
        uncertain: whether the server may have taken the message for some recipient all the same:
            the connection was lost between the final dot and the reply to it.
    """

    recipients: Mapping[str, Reply]
    server: str | None = None
    tls: TLSFacts | None = None
    uncertain: bool = False

    @property
    def accepted(self) -> Sequence[str]:
        """The recipients that the server took the message for."""
        return [each for each, reply in self.recipients.items() if reply.code < 300]

    @property
    def refused(self) -> Mapping[str, Reply]:
        """The recipients that it did not take the message for; ``4yz``: another try may succeed."""
        return {each: reply for each, reply in self.recipients.items() if reply.code >= 300}


def sendmail(
    host: str,
    sender: str | Mailbox,
    recipients: Iterable[str | Mailbox],
    message: Content,
    *,
    port: int = 25,
    tls: TLSLevel | None = None,
    implicit_tls: bool | None = None,
    username: str | None = None,
    password: str | None = None,
    authorities: str | None = None,
    client_certificate: str | None = None,
    client_key: str | None = None,
    helo: str | None = None,
    notify: Notify = None,
    lmtp: bool = False,
    timeout: float | None = None,
    reactor: Any = None,
) -> Deferred[SendResult]:
    """Send a message to a server by SMTP, in one transaction for 1,000 recipients.

    The extensions that the server announces are used: PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN. A
    content of 8 bits is converted for a server without 8BITMIME. Blocking work is done in the
    thread pool of the reactor; a file is never whole in memory. A message object is read before
    this returns, and may be changed afterwards; a file and octets must be left alone.

    Args:
        host: a host name, whose addresses are tried one after the other; an address; or the path of
            a UNIX socket. No MX record is looked up.
        sender: the reverse-path; empty: the null one.
        recipients: mailboxes, at least one.
        message: an `email.message.EmailMessage`, whose Bcc is left out; octets; or a file opened in
            binary mode, read from where it stands. Lines end in CR LF or LF.
        port: of the server.
        tls: ``none``: never; ``may``: if offered, without verification; ``encrypt``: required;
            ``verify``: required, with a certificate for ``host``. With a user name, or implicit
            TLS, ``may`` is ``encrypt``. None: ``verify`` with a user name, with implicit TLS, or
            with ``authorities``; otherwise ``may``.
        implicit_tls: whether TLS begins at the first octet (RFC 8314). None: on port 465 alone.
        username: the account for AUTH, which is never sent in clear. None: no AUTH.
        password: its password.
        authorities: a PEM file with the authorities that certificates are verified against; None:
            those of the system.
        client_certificate: a PEM file with our own certificate; None: we have none.
        client_key: a PEM file with its key; None: the file of the certificate.
        helo: our name in EHLO; None: the name of this machine.
        notify: of which events the server shall send a notice: ``SUCCESS``, ``FAILURE``, ``DELAY``,
            or ``NEVER`` (RFC 3461).
        lmtp: whether the server speaks LMTP (RFC 2033).
        timeout: seconds that each wait for the server may last; None: the times of RFC 5321
            §4.5.3.2, from 30 s for a connection to 10 min for the reply to the final dot.
        reactor: None: the installed one, imported by this call.

    Returns:
        Fires with the result when the connection is closed. To cancel it closes the connection at
        once; after the last reply, it fires with the result nevertheless.

        It fails with `SendError` where no transaction began: `ConnectionFailed`, `SessionRefused`,
        `TLSFailed`, `AuthFailed`. A ``TypeError`` or ``ValueError`` is about an argument, a
        `tls.certificates.CertificateError` about a PEM file, an ``OSError`` about the message file.
    """
    if reactor is None:
        from twisted.internet import reactor  # noqa: TID251 - for a caller that hands in none
    return Deferred.fromCoroutine(
        _sendmail(
            Server(
                host=host,
                port=port,
                tls=tls,
                implicit_tls=implicit_tls,
                username=username,
                password=password,
                authorities=authorities,
                client_certificate=client_certificate,
                client_key=client_key,
                lmtp=lmtp,
                timeout=timeout,
            ),
            sender,
            recipients,
            message,
            notify,
            helo,
            with_monotonic_time(reactor),
        )
    )


async def _sendmail(
    server: Server,
    sender: str | Mailbox,
    recipients: Iterable[str | Mailbox],
    content: Content,
    notify: Notify,
    helo: str | None,
    reactor: Any,
) -> SendResult:
    source = source_of(content, new_boundary=lambda: f"=_{nonce()}")
    reading = envelope_reading(
        sender, recipients, notify=notify, hold_until=None, now=0.0, longest=0.0
    )
    next_hop, terms, deadlines = server.next_hop(), server.terms(), server.deadlines()
    name = _helo(helo)
    executor = pool_executor(reactor)
    given = await executor(finished, reading)
    contexts = ClientContexts()
    contexts.use(await executor(finished, contexts.load([terms.tls])))
    body = await executor(measured, source)
    try:
        targets = await _located(next_hop.hosts[0], reactor, deadlines.connect)
        if name is None:
            name = await executor(machine_name)
        connections = Connections(
            reactor=reactor,
            helo=name,
            settings=RelaySettings(deadlines=deadlines, head_start=_HEAD_START),
            contexts=contexts,
            nonce=nonce,
            source_of=kernel_source,
            executor=executor,
            wall_time=wall_time,
            outbox=Outbox(reactor),
        )
        outcomes = await _transact(connections, targets, next_hop, terms, _message(given, body))
    finally:
        body.close()
    return _result(given, outcomes)


def _helo(name: str | None) -> str | None:
    try:
        return None if name is None else domain_name(name)
    except AddressError:
        raise ValueError(f"helo: found {name!r}, expected a domain name") from None


async def _located(host: Host, reactor: Any, patience: float) -> Sequence[Target]:
    """Return the addresses of a host, at least one."""
    text = f"{host.name}: it has no address"
    locating = Deferred.fromCoroutine(targets_of(host, reactor))
    try:
        targets = await locating.addTimeout(patience, reactor)
    except TimeoutError:
        targets = ()
        text = f"{host.name}: the look-up of its addresses timed out after {patience:g} s"
    if not targets:
        raise ConnectionFailed(text, Reply.of(451, "4.3", text))
    return targets


def _message(given: ApplicationEnvelope, body: MeasuredBody) -> Message:
    parameters: dict[str, str | int | None] = {}
    if body.eight_bit:
        parameters["BODY"] = "8BITMIME"
    if body.utf8_header:
        parameters["SMTPUTF8"] = None
    envelope = Envelope(
        given.sender,
        tuple(
            Recipient(RecipientNumber(number), mailbox, given.recipient_parameters)
            for number, (_, mailbox) in enumerate(given.recipients)
        ),
        parameters,
    )
    now = wall_time()
    # The id stands in lines of the log alone.
    return Message(QueueId(system_random().getrandbits(63)), envelope, b"", body, now, now)


async def _transact(
    connections: Connections,
    targets: Sequence[Target],
    next_hop: NextHop,
    terms: Terms,
    message: Message,
) -> Sequence[Outcome]:
    """Return an outcome for each recipient, when no connection is left.

    Raises:
        SendError: no transaction began.
    """
    attempts = Attempts(connections)
    recipients = message.envelope.recipients
    outcomes: list[Outcome] = []
    unanswered: Attempt | None = None
    try:
        while len(outcomes) < len(recipients):
            rest = recipients[len(outcomes) :]
            part = message.for_recipients(rest[:_MOST_RECIPIENTS])
            attempt = attempts.begin(lambda _: succeed(targets), next_hop, part, (terms,))
            begun = bool(outcomes)
            outcomes += await attempt.result
            if not attempt.answered:
                unanswered = None if begun else attempt
                beyond = rest[_MOST_RECIPIENTS:]
                outcomes += [attrs.evolve(outcomes[-1], number=each.number) for each in beyond]
    except CancelledError:
        attempts.abort()
        await connections.close()
        raise
    try:
        await connections.close()
    except CancelledError:
        connections.abort()
    if unanswered is None:
        return outcomes
    if unanswered.failures:
        raise error_of(unanswered.failures)
    raise SendError(str(outcomes[0].reply), outcomes[0].reply)


def _result(given: ApplicationEnvelope, outcomes: Sequence[Outcome]) -> SendResult:
    written = (each for each, _ in given.recipients)
    return SendResult(
        recipients={each: outcome.reply for each, outcome in zip(written, outcomes, strict=True)},
        server=next((each.remote for each in outcomes if each.remote is not None), None),
        tls=outcomes[0].tls,
        uncertain=any(each.uncertain for each in outcomes),
    )
