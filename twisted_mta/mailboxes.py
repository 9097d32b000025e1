"""Which mailboxes are ours, and where mail goes: routes, aliases and Maildirs as one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from attrs import evolve

from .config import Config
from .delivery.maildir import NoMailbox, mailbox_directory
from .envelope import NextHop, Recipient
from .interfaces import Files, FinalRecipient, WallTime
from .routing.aliases import Alias, Aliases, read_aliases
from .routing.expansion import Expander, ExpansionStep
from .routing.routes import Routes, parse_route
from .routing.srs import SenderRewriting
from .routing.srs_key import srs_key
from .smtp.address import Mailbox
from .smtp.reply import Reply


class Mailboxes:
    """What is known of mailboxes, by the settings in force.

    Args:
        config: those; aliases are read by `prepare` alone.
        in_maildir: whether there is a Maildir for a mailbox.
        has_account: whether a mailbox is somebody's who has an account.
        files: where the key of SRS is.
        secret: makes so many octets that nobody can guess.
        wall_time: for the dates in rewritten addresses.

    Attributes:
        routes: where mail goes next.

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
    ) -> None:
        self._config = config
        self._in_maildir = in_maildir
        self._has_account = has_account
        self._files = files
        self._secret = secret
        self._wall_time = wall_time
        self._srs_key: bytes | None = None
        self.routes = _routes(config)
        self._expander = self._make_expander(config, Aliases(), None)

    def prepare(self, config: Config) -> Callable[[], None]:
        """Read the files that other settings name, without any effect yet. Blocks.

        Returns:
            What puts them in force; it cannot fail.

        Raises:
            ValueError: a route or an alias cannot be read.
            OSError: the key of SRS can be neither read nor made.
        """
        routes = _routes(config)
        expander = self._read_expander(config)

        def use() -> None:
            self._config = config
            self.routes = routes
            self._expander = expander

        return use

    @property
    def domains(self) -> tuple[str, ...]:
        """Those whose mailboxes are ours, the first local one first."""
        return self._expander.domains

    def route(self, mailbox: Mailbox) -> NextHop:
        """Return where a mailbox goes next (`interfaces.Route`).

        The same hosts are another next hop where mail for its domain goes there on its own terms.
        """
        next_hop = self.routes.route(mailbox)
        if not next_hop.hosts:
            return next_hop
        there = self._config.destination_for(mailbox.domain, next_hop.hosts).domain
        if there == self._config.destination_for("", next_hop.hosts).domain:
            return next_hop
        return evolve(next_hop, destination=there)

    def is_our_host(self, host: str) -> bool:
        """Whether mail for a host comes to us, by its name."""
        return host == self._config.hostname.lower() or self.routes.is_local(host)

    def expand(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Sequence[FinalRecipient] | Reply:
        """Return where mail for a mailbox of ours goes (`interfaces.Expand`)."""
        return self._expander.expand(mailbox, reverse_path)

    def explained(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> tuple[Sequence[FinalRecipient] | Reply, Sequence[ExpansionStep]]:
        """Return the same as `expand`, and how that came about."""
        return self._expander.explained(mailbox, reverse_path)

    def missing_members(self, aliases: Aliases) -> Iterator[tuple[Alias, Mailbox, Reply]]:
        """Yield what in a file of aliases leads nowhere (`Expander.missing_members`). Blocks."""
        return self._make_expander(self._config, aliases, None).missing_members()

    def alias_of(self, mailbox: Mailbox) -> str:
        """Return what mailboxes of ours with one alias have in common (`Expander.alias_of`)."""
        return self._expander.alias_of(mailbox)

    def recipients(self, mailbox: Mailbox) -> Sequence[Recipient]:
        """Return the recipients of a message that we write ourselves (`Expander.recipients`)."""
        return self._expander.recipients(mailbox)

    def exists(self, mailbox: Mailbox) -> bool:
        """Whether a mailbox of ours is there, aliases aside."""
        if self._config.recipients == "any" or self.routes.route(mailbox).transport != "maildir":
            return True
        return self._in_maildir(mailbox) or self._has_account(mailbox)

    def refusal(self, mailbox: Mailbox) -> Reply | None:
        """Return what is known to become of mail for a mailbox, if that is a failure.

        Said to the client at once, it spares the sender, who may be forged, a notice.
        """
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

    def _read_expander(self, config: Config) -> Expander:
        """Return what expands the mailboxes of ours; blocks.

        Raises:
            AliasError: the file of aliases cannot be used.
            OSError: the key of SRS can be neither read nor made.
            ValueError: there is something else in its place.
        """
        if config.aliases is None:
            return self._make_expander(config, Aliases(), None)
        ours = (*config.local_domains, *config.virtual_domains)
        aliases = read_aliases(config.aliases, ours=ours)
        srs = None
        if config.srs_domain is not None:
            if self._srs_key is None:  # or one would be made where the state directory has gone
                path = os.path.join(config.state_dir, "srs.key")
                self._srs_key = srs_key(path, files=self._files, secret=self._secret)
            srs = SenderRewriting(config.srs_domain, self._srs_key)
        return self._make_expander(config, aliases, srs)

    def _make_expander(
        self, config: Config, aliases: Aliases, srs: SenderRewriting | None
    ) -> Expander:
        return Expander(
            local_domains=config.local_domains,
            virtual_domains=config.virtual_domains,
            aliases=aliases,
            srs=srs,
            exists=self.exists,
            refusal=self.refusal,
            has_mailbox=self._has_mailbox,
            wall_time=self._wall_time,
        )


def _routes(config: Config) -> Routes:
    return Routes(
        [
            parse_route(pattern, url, default_port=config.delivery.port)
            for pattern, url in config.routes
        ],
        config.local_domains,
        config.virtual_domains,
    )
