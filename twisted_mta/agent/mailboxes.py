"""Mailboxes: which are ours, and where mail goes next; by routes, aliases and Maildirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence

from attrs import define, evolve, field

from ..config import Config
from ..delivery.mailbox_directory import NoMailbox, mailbox_directory
from ..interfaces import Files, Refused, WallTime
from ..mail.address import Mailbox
from ..mail.envelope import Recipient
from ..mail.final_recipient import FinalRecipient
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.printable import printable
from ..mail.reply import Reply
from ..routing.alias_file import parse_in_slices, read_content
from ..routing.alias_walk import ExpansionStep
from ..routing.aliases import Alias, Aliases
from ..routing.exchanger_groups import ExchangerGroups
from ..routing.expansion import Expander
from ..routing.mailbox_lookup import MailboxLookup
from ..routing.relay_recipients import RelayRecipients
from ..routing.relay_recipients import parse_in_slices as parse_relay_recipients
from ..routing.routes import NO_SUCH_MAILBOX, Routes, Rule, parse_route
from ..routing.sender_tags import SenderTags
from ..routing.srs import SenderRewriting
from ..system.file_table import Digests, FileReading, FileTable
from ..system.kept_secret import kept_secret
from ..system.line_file import read_content as read_lines
from ..system.slices import Pace
from ..system.work import Work, finished
from .file_changes import compared, recounted

_FEW = 16  # routes that are read in one slice


@define(eq=False)
class PreparedMailboxes:
    """Other settings, and the files that they name, as they were read.

    Attributes:
        config: the settings.
        routes: of the settings.
        aliases: the file of aliases.
        relay_recipients: the file of addresses in relay domains.
        srs: rewrites senders; None: they are not rewritten.
        changes: lines about changed files; empty until `Mailboxes.complete`.
    """

    config: Config
    routes: Routes
    aliases: FileReading[Aliases]
    relay_recipients: FileReading[RelayRecipients]
    srs: SenderRewriting | None
    changes: list[str] = field(factory=list)


class Mailboxes:
    """Mailboxes, by the settings in force.

    Args:
        config: the settings; only `prepare` reads the aliases.
        in_maildir: whether a mailbox has a Maildir.
        has_account: whether a mailbox is that of an account.
        files: for the key and the senders of SRS.
        secret: returns so many octets that cannot be guessed.
        wall_time: for the dates in rewritten addresses.
        seconds: the monotonic time.
        clock: for `groups`.
        deliveries: the names of the application's own deliveries.

    Attributes:
        groups: of domains, by their exchangers.
        routes: those in force.

    Raises:
        ValueError: a route cannot be read.
    """

    def __init__(
        self,
        config: Config,
        *,
        in_maildir: Callable[[Mailbox], bool],
        has_account: Callable[[Mailbox], bool] = lambda mailbox: False,
        files: Files,
        secret: Callable[[int], bytes],
        wall_time: WallTime,
        seconds: Callable[[], float],
        deliveries: Collection[str] = (),
    ) -> None:
        self._deliveries = deliveries
        self._config = config
        self.groups = ExchangerGroups(self._exchanger_of, seconds)
        self._in_maildir = in_maildir
        self._has_account = has_account
        self._files = files
        self._secret = secret
        self._wall_time = wall_time
        self._began = False
        self._srs_key: bytes | None = None
        self._srs: SenderRewriting | None = None
        self._tags = SenderTags(
            os.path.join(config.state_dir, "srs"), files=files, secret=secret, wall_time=wall_time
        )
        self.routes = finished(_making_routes(config, deliveries))
        self._aliases = FileTable(Aliases, read_content, _parsing)
        self._relayed = dict.fromkeys(config.relay_domains)
        self._relay_recipients = FileTable(RelayRecipients, read_lines, parse_relay_recipients)
        self._expander = self._make_expander(config, Aliases(), None)

    async def prepare(self, config: Config, pace: Pace, checked: Digests) -> PreparedMailboxes:
        """Read the files that other settings name, without any effect yet.

        Args:
            config: the settings.
            pace: at once, or in slices.
            checked: digests of files that another process has found good (`Table.read`).

        Raises:
            ValueError: a route, an alias or an address in a relay domain cannot be read.
            OSError: the key of SRS, or the directory of its senders, can be neither read nor made.
        """
        routes = await pace.work(_making_routes(config, self._deliveries))
        ours = (*config.local_domains, *config.virtual_domains)
        aliases = await self._aliases.read(config.aliases, ours, pace, checked)
        relay_recipients = await self._relay_recipients.read(
            config.relay_recipients, config.relay_domains, pace, checked
        )
        srs = None
        if config.aliases is not None and config.srs_domain is not None:
            if self._srs_key is None:
                self._tags.make_directory()  # once: one that is removed later is not made again
            self._srs_key = kept_secret(
                os.path.join(config.state_dir, "srs.key"),
                files=self._files,
                secret=self._secret,
                lost="notices about mail that was forwarded before do not come back",
                known=self._srs_key,
            )
            srs = SenderRewriting(config.srs_domain, self._srs_key, self._tags)
        return PreparedMailboxes(config, routes, aliases, relay_recipients, srs)

    async def complete(self, prepared: PreparedMailboxes, pace: Pace) -> None:
        """Parse files that `prepare` has only read, and compare them with those in force."""
        before = self._aliases.value
        aliases = await self._aliases.complete(prepared.aliases, pace)
        path = prepared.config.aliases
        if self._began and path is not None and aliases is not before:
            prepared.changes = await pace.work(
                compared(before.entries, aliases.entries, path, ("alias", "aliases"))
            )
        known = self._relay_recipients.value
        others = await self._relay_recipients.complete(prepared.relay_recipients, pace)
        path = prepared.config.relay_recipients
        if self._began and path is not None and others is not known:
            prepared.changes.append(
                recounted(path, ("recipient", "recipients"), len(known), len(others))
            )

    def use(self, prepared: PreparedMailboxes) -> tuple[list[str], Work[None]]:
        """Put complete settings in force. It cannot fail.

        Returns:
            Lines about changed files, printable; and work that frees what they held before.
        """
        before = self._aliases.use(prepared.aliases)
        known = self._relay_recipients.use(prepared.relay_recipients)
        self._relayed = dict.fromkeys(prepared.config.relay_domains)
        aliases = self._aliases.value
        self._config = prepared.config
        self.routes = prepared.routes
        self._srs = prepared.srs
        self._expander = self._make_expander(prepared.config, aliases, prepared.srs)
        self._began = True
        old = [
            *(() if before is aliases else (before.empty(),)),
            *(() if known is self._relay_recipients.value else (known.empty(),)),
        ]
        return prepared.changes, _each(old)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains whose mailboxes are ours, the first local one first."""
        return self._expander.domains

    def route(self, mailbox: Mailbox) -> NextHop:
        """Return the next hop of a mailbox (`interfaces.Route`).

        Hosts are a next hop of their own for each ``[[destination]]`` whose mail goes to them. A
        domain is in the group of its exchangers, once they are known.
        """
        next_hop = self.routes.route(mailbox)
        if not next_hop.hosts:
            return self.groups.grouped(next_hop)
        domain = self._config.destination_for(mailbox.domain, next_hop.hosts).domain
        if domain == self._config.destination_for("", next_hop.hosts).domain:
            return next_hop
        return evolve(next_hop, destination=domain)

    def _exchanger_of(self, domain: str, host: str) -> str:
        return self._config.exchanger_of(domain, host)

    def is_our_host(self, host: str) -> bool:
        """Whether a name of a host is ours."""
        return host == self._config.hostname.lower() or self.routes.is_local(host)

    def expand(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Sequence[FinalRecipient] | Reply:
        """Return the final recipients of a mailbox of ours (`interfaces.Expand`)."""
        return self._expander.expand(mailbox, reverse_path)

    def sender_tags(self, message: Message) -> Sequence[str]:
        """Return the tags in the reverse-paths of a message, which `keep_sender` makes durable."""
        if self._srs is None:
            return ()
        paths = dict.fromkeys(each.reverse_path for each in message.envelope.recipients)
        tags = (self._srs.tag_of(path) for path in paths if path is not None)
        return [tag for tag in tags if tag is not None]

    def keep_sender(self, tags: Sequence[str], sender: Mailbox) -> None:
        """Make a sender durable under its tags (`SenderTags.keep`). Blocks; raises `OSError`."""
        for tag in tags:
            self._tags.keep(tag, sender)

    def explained(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> tuple[Sequence[FinalRecipient] | Reply, Sequence[ExpansionStep]]:
        """Return the same as `expand`, and the steps through the aliases."""
        steps: list[ExpansionStep] = []
        return self._expander.expand(mailbox, reverse_path, steps), steps

    def missing_members(self, aliases: Aliases) -> Iterator[tuple[Alias, Mailbox, Reply]]:
        """Yield members of aliases that do not exist (`Expander.missing_members`). Blocks."""
        return self._make_expander(self._config, aliases, None).missing_members()

    def alias_of(self, mailbox: Mailbox) -> str:
        """Return one text for all mailboxes of ours with one alias (`Expander.alias_of`)."""
        return self._expander.alias_of(mailbox)

    def recipients(self, mailbox: Mailbox) -> Sequence[Recipient]:
        """Return the recipients of a message of our own (`Expander.notice_recipients`)."""
        return self._expander.notice_recipients(mailbox)

    def exists(self, mailbox: Mailbox) -> bool:
        """Whether a mailbox of ours exists, aliases aside."""
        if self._config.recipients == "any" or self.routes.route(mailbox).transport != "maildir":
            return True
        return self._in_maildir(mailbox) or self._has_account(mailbox)

    def has_maildir(self, mailbox: Mailbox) -> bool | None:
        """Whether a mailbox has a Maildir already; None: the disk cannot tell now. Blocks."""
        try:
            return self._in_maildir(mailbox)
        except Refused:
            return None

    def refusal(self, mailbox: Mailbox) -> Reply | None:
        """Return the reply with which mail for a mailbox is known to fail, or None.

        Given to the client at once, it spares the sender, which may be forged, a bounce.
        """
        if mailbox.domain in self._relayed and not self._relay_recipients.value.include(mailbox):
            return NO_SUCH_MAILBOX
        next_hop = self.routes.route(mailbox)
        if next_hop.transport == "error":
            return next_hop.reply
        if next_hop.transport == "maildir":
            try:
                mailbox_directory(mailbox)
            except NoMailbox as error:
                return error.reply
        return None

    def _has_mailbox(self, mailbox: Mailbox) -> bool:
        return self.routes.route(mailbox).transport == "maildir" and (
            self._in_maildir(mailbox) or self._has_account(mailbox)
        )

    def _make_expander(
        self, config: Config, aliases: Aliases, srs: SenderRewriting | None
    ) -> Expander:
        return Expander(
            MailboxLookup(
                local_domains=config.local_domains,
                virtual_domains=config.virtual_domains,
                aliases=aliases,
                srs=srs,
                exists=self.exists,
                refusal=self.refusal,
                has_mailbox=self._has_mailbox,
                wall_time=self._wall_time,
            )
        )


def _parsing(content: bytes, path: str, ours: tuple[str, ...]) -> Work[Aliases]:
    return parse_in_slices(content, name=path, ours=ours)


def _making_routes(config: Config, deliveries: Collection[str]) -> Work[Routes]:
    rules = []
    for number, (pattern, url) in enumerate(config.routes):
        if number % _FEW == 0:
            yield
        try:
            rule = parse_route(
                pattern, url, default_port=config.delivery.port, deliveries=deliveries
            )
        except ValueError as error:
            raise ValueError(f"route {printable(pattern)}={printable(url)}: {error}") from None
        rules.append(rule)
    if config.capture:
        rules.append(Rule("*", NextHop("maildir", rule="capture")))
    return Routes(rules, config.local_domains, config.virtual_domains)


def _each(several: Sequence[Work[None]]) -> Work[None]:
    for work in several:
        yield from work
