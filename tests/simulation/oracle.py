"""The oracle: hears of everything in a world, and says where the promise about mail was broken.

It knows of a message by its Message-ID, and what a client was promised by what has arrived at the
client. Of an agent it knows the octets on the network, the files of the Maildirs, and which
transactions of its queue are durable; it asks it nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define, frozen

from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import Intervene, Page
from twisted_mta.queue.store.contract import Accept, Forget, Operation, Result, Settle
from twisted_mta.testing import FakeHop, MemoryMTA

from .plan import ALIAS, DISCARDED, MEMBERS

_MESSAGE_ID = re.compile(rb"^Message-ID: *(<[^>\r\n]+>)", re.MULTILINE | re.IGNORECASE)
_QUEUE_ID = re.compile(rb"^X-Queue-ID: *(\w+)", re.MULTILINE)
_DELIVERED_TO = re.compile(rb"^Delivered-To: *([^\r\n]+)", re.MULTILINE)
_FAILED = re.compile(
    rb"^(?:Original-Recipient: *rfc822; *[^\r\n]+\r?\n)?"
    rb"Final-Recipient: *rfc822; *([^\r\n]+)\r?\nAction: *failed",
    re.MULTILINE,
)
_SRS = re.compile(r"SRS0=[^=]+=[^=]+=([^=]+)=(.+)", re.IGNORECASE)
_OF_ONE_MESSAGE = re.compile(r"(m\d+)r\d+@")  # recipients that one message alone has
_TRACE = re.compile(
    rb"(?:(?:Return-Path|Delivered-To|Received|Received-SPF|Authentication-Results|X-Original-To)"
    rb":[^\n]*\n(?:[ \t][^\n]*\n)*)*"
)


@frozen
class Violation:
    """One way in which the promise was broken.

    Attributes:
        kind: in a few words, the same for the same kind.
        what: of which message, and where.
    """

    kind: str
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.kind}: {self.what}"


@define(eq=False)
class _Account:
    """One recipient of one message at one agent.

    Attributes:
        accepted: the queue ids under which the agent has it, or had it.
        done: those of them that were settled for good, or forgotten.
        finals: final answers of next hops that have arrived at the agent.
        uncertain: copies in its Maildir whose settling a crash has prevented.
    """

    accepted: dict[QueueId, None] = Factory(dict)
    done: dict[QueueId, None] = Factory(dict)
    finals: int = 0
    uncertain: int = 0

    @property
    def waiting(self) -> int:
        """How often it may still be tried."""
        return len(self.accepted) - max(len(self.done), self.finals)


Key = tuple[str, str]
"""The Message-ID of a message, and a recipient."""


class Oracle:
    """Takes note of what happens (`dialogue.Listener`), and judges at the end.

    Args:
        names: the domains of agents by their IP addresses.

    Attributes:
        violations: so far.
        acknowledged: each recipient for which a client, or the application, was promised delivery,
            and each notice that is in a queue.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.violations: list[Violation] = []
        self.acknowledged: dict[Key, None] = {}
        self.messages = 0
        self.attempts = 0
        self._names = names
        self._contents: dict[str, bytes] = {}
        self._accounts: dict[tuple[str, str, str], _Account] = {}
        self._messages: dict[tuple[str, QueueId], tuple[str, dict[int, str]]] = {}
        self._bodies: dict[tuple[str, QueueId], tuple[Message, bytes]] = {}
        self._returned: dict[Key, None] = {}
        # The notice that says that a recipient has failed, by the queue id of its message.
        self._notified: dict[tuple[str, str, str], str] = {}
        self._held: dict[tuple[str, QueueId, str], None] = {}
        self._recorded: dict[Key, None] = {}
        self._removed: dict[Key, None] = {}
        self._perhaps_removed: dict[str, None] = {}
        # Queue ids that an agent had of a message as another content of it arrived.
        self._before: dict[tuple[str, str, str], Sequence[QueueId]] = {}
        # Queue ids of messages that an agent has stored and refused, and has to forget.
        self._refused: dict[tuple[str, QueueId], str] = {}

    def note(self, kind: str, what: str) -> None:
        """Add a violation."""
        self.violations.append(Violation(kind, what))

    # What was promised.

    def offered(self, content: bytes) -> None:
        """Take note of a message before it is sent."""
        self._contents[message_id(content)] = content
        self.messages += 1

    def promised(self, name: str, recipients: Sequence[str]) -> None:
        """Take note of a 250 that has arrived, or of a receipt."""
        self.acknowledged.update(dict.fromkeys((name, each) for each in recipients))

    def in_doubt(self, number: int) -> None:
        """Take note of an operator's action that has failed: it may be done all the same."""
        self._perhaps_removed[f"<m{number}@sim>"] = None

    # What is durable.

    def committed(
        self, agent: MemoryMTA, operations: Sequence[Operation], results: Sequence[Result]
    ) -> None:
        """Take note of a transaction."""
        for operation, result in zip(operations, results, strict=True):
            if isinstance(operation, Accept):
                if self._name(agent, operation.message) in self._contents:
                    self._accepted(agent, operation.message)
                else:
                    self._notices(agent, (operation.message,))
                self._notices(agent, operation.notices)
                numbers = [outcome.number for outcome in operation.unreported]
                refused = {
                    each.recipient.number: str(each.recipient.mailbox)
                    for each in operation.message.refused
                }
                name = self._name(agent, operation.message)
                self._recorded.update(
                    ((name, refused[number]), None) for number in numbers if number in refused
                )
            elif isinstance(operation, Settle):
                self._settled(agent, operation)
            elif isinstance(operation, Forget):
                for id in operation.ids:
                    self._refused.pop((agent.domain, id), None)
                    known, numbers_of = self._messages.get((agent.domain, id), ("", {}))
                    for recipient in numbers_of.values():
                        self._account(agent.domain, known, recipient).done[id] = None
            elif isinstance(operation, Intervene):
                if isinstance(result, Page):
                    self._intervened(agent, operation, result)
                else:
                    self._held.clear()  # it is in doubt

    def _accepted(self, agent: MemoryMTA, message: Message) -> None:
        if (agent.domain, message.id) in self._messages:
            return  # a settling that is written again
        name = self._name(agent, message)
        recipients = {each.number: str(each.mailbox) for each in message.envelope.recipients}
        self._messages[agent.domain, message.id] = name, recipients
        if not isinstance(message.body, MemoryBody):
            self._bodies[agent.domain, message.id] = message, _content(agent, message)
        for recipient in recipients.values():
            self._account(agent.domain, name, recipient).accepted[message.id] = None

    def _notices(self, agent: MemoryMTA, notices: Sequence[Message]) -> None:
        for notice in notices:
            body = _content(agent, notice)
            name = message_id(body)
            self._contents.setdefault(name, body)
            self._accepted(agent, notice)
            self.promised(name, [str(each.mailbox) for each in notice.envelope.recipients])
            about = _QUEUE_ID.search(body)
            if about is not None:
                self._is_returned(agent.domain, about[1].decode(), name, body)

    def _is_returned(self, agent: str, id: str, notice: str, body: bytes) -> None:
        name = self.name_of(agent, id)
        for each in _FAILED.findall(body):
            failed = each.decode()
            self._returned[name, failed] = None
            if self._notified.setdefault((agent, id, failed), notice) != notice:
                self.note("returned twice", f"{name} as {id} for {failed} by {agent}")
            account = self._accounts.get((agent, name, failed))
            if account is not None and any(str(done) == id for done in account.done):
                self.note("returned after its end", f"{name} as {id} for {failed} by {agent}")

    def _settled(self, agent: MemoryMTA, settle: Settle) -> None:
        id = settle.message.id
        name, recipients = self._messages.get((agent.domain, id), ("", {}))
        new = [
            each for each in settle.notices if (agent.domain, each.id) not in self._messages
        ]  # others are written again
        self._notices(agent, new)
        for number in settle.done:
            if number in recipients:
                self._account(agent.domain, name, recipients[number]).done[id] = None
        for outcome in settle.unreported:
            if outcome.number in recipients:
                self._recorded[name, recipients[outcome.number]] = None

    def _intervened(self, agent: MemoryMTA, operation: Intervene, page: Page) -> None:
        for listed in page.messages if not operation.dry_run else ():
            name, _ = self._messages.get((agent.domain, listed.id), ("", {}))
            for entry in listed.recipients:
                recipient = str(entry.recipient.mailbox)
                key = agent.domain, listed.id, recipient
                if operation.action != "hold":
                    self._held.pop(key, None)
                elif not entry.leased:  # else an attempt may be under way
                    self._held[key] = None
                if operation.action == "remove":
                    self._removed[name, recipient] = None
                    if not entry.leased:
                        self._account(agent.domain, name, recipient).done[listed.id] = None

    def _name(self, agent: MemoryMTA, message: Message) -> str:
        return message_id(_content(agent, message))

    def _account(self, agent: str, name: str, recipient: str) -> _Account:
        return self._accounts.setdefault((agent, name, recipient), _Account())

    def name_of(self, agent: str, id: str) -> str:
        """Return the Message-ID of a message in a queue."""
        return next(
            (
                name
                for (domain, each), (name, _) in self._messages.items()
                if domain == agent and str(each) == id
            ),
            "",
        )

    def crashed(self, agent: MemoryMTA) -> None:
        """Take note of a crash: answers that were not settled are forgotten."""
        for (domain, _, _), account in self._accounts.items():
            if domain == agent.domain:
                account.finals = min(account.finals, len(account.done))
        for domain, id in list(self._refused):
            if domain == agent.domain:
                del self._refused[domain, id]  # it could not forget it
        self._look_for_bodies(agent)
        copies: dict[Key, int] = {}
        for name, recipient, _ in mailbox_copies(agent):
            copies[name, recipient] = copies.get((name, recipient), 0) + 1
        for (name, recipient), number in copies.items():
            account = self._account(agent.domain, name, recipient)
            account.uncertain = max(account.uncertain, number - len(account.done))

    def _look_for_bodies(self, agent: MemoryMTA) -> None:
        """Compare the body files of messages in a queue with what was accepted."""
        for (domain, id), (message, content) in list(self._bodies.items()):
            if domain != agent.domain:
                continue
            name, recipients = self._messages[domain, id]
            if all(
                id in self._account(domain, name, each).done or (name, each) in self._removed
                for each in recipients.values()
            ):
                del self._bodies[domain, id]
            elif not _has_content(agent, message, content):
                self.note("a body is lost", f"{name} as {id} at {domain}")

    # What is on the network.

    def attempted(self, client: str, server: str, recipient: str) -> None:
        """RCPT has arrived at a server."""
        of_one = _OF_ONE_MESSAGE.match(recipient)
        if client in self._names and of_one is not None:
            self.attempts += 1
            self._check(client, server, f"<{of_one[1]}@sim>", recipient, "RCPT")

    def sent(self, client: str, server: str, recipients: list[str], content: bytes) -> None:
        """The end of a content has arrived at a server."""
        if server in self._names and recipients:
            name = message_id(content)
            self._before[server, name, recipients[0]] = self._ids(server, name, recipients)
        if client in self._names:
            for recipient in recipients:
                self._check(client, server, message_id(content), recipient, "the content")

    def _ids(self, server: str, name: str, recipients: Sequence[str]) -> Sequence[QueueId]:
        agent = self._names[server]
        first = _targets(recipients[0], agent)[0]
        return tuple(self._account(agent, name, first).accepted)

    def _check(self, client: str, server: str, name: str, recipient: str, what: str) -> None:
        agent = self._names[client]
        account = self._account(agent, name, recipient)
        ids = [id for id in account.accepted if id not in account.done]
        if ids and all((agent, id, recipient) in self._held for id in ids):
            self.note("tried while it is held", f"{name} for {recipient} by {agent}")
        if account.waiting <= 0:
            self.note(
                "tried again after a final answer",
                f"{self._names[client]} sends {what} of {name} for {recipient} to {server}:"
                f" accepted {len(account.accepted)} times, settled {len(account.done)},"
                f" final answers {account.finals}",
            )

    def replied(self, server: str, recipients: list[str], content: bytes, code: int) -> None:
        """A server has written its reply to a content."""
        agent = self._names.get(server)
        if agent is None or not recipients:
            return
        name = message_id(content)
        if code // 100 != 2:
            before = self._before.get((server, name, recipients[0]), ())
            for id in self._ids(server, name, recipients):
                if id not in before:
                    self._refused[agent, id] = name
            return
        for recipient in recipients:
            for each in _targets(recipient, agent):
                if not self._account(agent, name, each).accepted:
                    self.note("acknowledged before its commit", f"{name} for {each} by {agent}")

    def refused(self, client: str, recipients: list[str]) -> None:
        """A 5yz to RCPT or DATA has arrived at a client."""
        agent = self._names.get(client)
        for recipient in recipients if agent is not None else ():
            of_one = _OF_ONE_MESSAGE.match(recipient)
            if agent is not None and of_one is not None:
                self._account(agent, f"<{of_one[1]}@sim>", recipient).finals += 1

    def answered(self, client: str, recipients: list[str], content: bytes, code: int) -> None:
        """The reply to a content has arrived at a client."""
        agent = self._names.get(client)
        if agent is not None and code // 100 in (2, 5):
            for recipient in recipients:
                self._account(agent, message_id(content), recipient).finals += 1

    # The verdict.

    def judge(
        self,
        agents: Sequence[MemoryMTA],
        hops: Sequence[FakeHop],
        queued: Mapping[Key, None],
        *,
        faultless: bool,
    ) -> None:
        """Compare what was promised with where everything has ended.

        Args:
            agents: all of them.
            hops: all of them.
            queued: what is still in a queue.
            faultless: whether there was no fault at all, so that there must be no second copy.
        """
        copies: dict[Key, int] = {}
        for hop in hops:
            for message in hop.received:
                name = message_id(message.raw)
                self._check_content(name, message.raw, f"at {hop.name}")
                for recipient in message.to:
                    copies[name, recipient] = copies.get((name, recipient), 0) + 1
        for agent in agents:
            here: dict[Key, int] = {}
            for name, recipient, raw in mailbox_copies(agent):
                self._check_content(name, raw, f"in the Maildir of {recipient}")
                here[name, recipient] = here.get((name, recipient), 0) + 1
            for (name, recipient), number in here.items():
                account = self._account(agent.domain, name, recipient)
                if number > len(account.accepted) + account.uncertain:
                    self.note(
                        "a second copy without a crash",
                        f"{number} of {name} in the Maildir of {recipient}, accepted"
                        f" {len(account.accepted)} times, {account.uncertain} uncertain",
                    )
                copies[name, recipient] = copies.get((name, recipient), 0) + number
        if faultless:
            for (name, recipient), number in copies.items():
                if number > 1 and recipient not in MEMBERS:
                    self.note("a second copy without a fault", f"{number} of {name}: {recipient}")
        for (domain, id), name in self._refused.items():
            self.note("refused and kept", f"{name} as {id} at {domain}")
        ended: list[Mapping[Key, Any]] = [
            copies,
            queued,
            self._returned,
            self._recorded,
            self._removed,
        ]
        for name, recipient in self.acknowledged:
            if any((name, recipient) in each for each in ended):
                continue
            if name in self._perhaps_removed or recipient.endswith(f"@{DISCARDED}"):
                continue
            targets = _targets(recipient, recipient.partition("@")[2])
            if all(any((name, target) in each for each in ended) for target in targets):
                continue
            self.note("lost", f"{name} for {recipient}")

    def _check_content(self, name: str, raw: bytes, where: str) -> None:
        original = self._contents.get(name)
        if original is None:
            self.note("corrupt", f"{name} {where}: it was never sent")
            return
        if b"\r\n" not in raw:
            original = original.replace(b"\r\n", b"\n")
        trace = raw[: len(raw) - len(original)]
        if not raw.endswith(original) or not _TRACE.fullmatch(trace):
            self.note("corrupt", f"{name} {where}: {len(raw)} octets, {len(original)} were sent")


def _targets(recipient: str, agent: str) -> Sequence[str]:
    """Return the mailboxes that an agent accepts a message for."""
    local_part, _, domain = recipient.partition("@")
    if domain == ALIAS.partition("@")[2] == agent:
        if recipient == ALIAS:
            return MEMBERS
        srs = _SRS.match(local_part)
        if srs is not None:
            return (f"{srs[2]}@{srs[1]}",)
    return (recipient,)


def message_id(content: bytes) -> str:
    """Return the Message-ID of a message, with its brackets; empty: it has none."""
    end = re.search(rb"\r?\n\r?\n", content)
    found = _MESSAGE_ID.search(content[: end.end() if end else len(content)])
    return found[1].decode() if found is not None else ""


def _content(agent: MemoryMTA, message: Message) -> bytes:
    body: Any = message.body
    if isinstance(body, MemoryBody):
        return body.content
    return agent.files.content(body.path)[body.start : body.start + body.size]


def _has_content(agent: MemoryMTA, message: Message, content: bytes) -> bool:
    """Whether the body file of a message has its content, and says so."""
    body: Any = message.body
    if not agent.files.has(body.path):
        return False
    line = agent.files.content(body.path)[: body.start]
    return line == b"%s\r\n" % str(message.id).encode() and _content(agent, message) == content


def mailbox_copies(agent: MemoryMTA) -> Sequence[tuple[str, str, bytes]]:
    """Return the Message-ID, the mailbox and the octets of each message in an agent's Maildirs."""
    root = f"{agent.directory}/maildir"
    return (
        [
            (message_id(raw), _mailbox(raw), raw)
            for path in agent.files.tree(root)
            if "/new/" in path
            for raw in [agent.files.content(path)]
        ]
        if agent.files.has(root)
        else []
    )


def _mailbox(raw: bytes) -> str:
    found = _DELIVERED_TO.search(raw)
    return found[1].decode().strip() if found is not None else ""
