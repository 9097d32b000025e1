"""The policies of an agent: which are asked on which listener, in which order, how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from attrs import frozen

from ..config import DNSBL, Config, GreylistSettings, Listener
from ..interfaces import Clock, Executor, Resolver, WallTime
from ..policy import iprev
from ..policy.arc import policy as arc
from ..policy.chain import Member, PolicyChain
from ..policy.dkim import policy as dkim
from ..policy.dmarc import policy as dmarc
from ..policy.dmarc.observation import Observation
from ..policy.dnsbl import blocklist
from ..policy.dnsbl.blocklist import Blocklist
from ..policy.dnsbl.dnsbl_policy import DNSBLPolicy
from ..policy.greylist import greylist_policy
from ..policy.greylist.decisions import Decisions, Shared
from ..policy.greylist.file import GreylistFile
from ..policy.lists import deny_policy
from ..policy.lists.access_list import AccessList, parse_in_slices
from ..policy.lists.exemptions import Exemptions
from ..policy.spf import policy as spf
from ..policy.spf.evaluation import Checker
from ..server.policy_stages import PolicyStages
from ..system.file_table import Digests, FileReading, FileTable
from ..system.line_file import read_content
from ..system.slices import Pace
from ..system.work import Work
from ..telemetry.metrics import Metrics, table
from .application import Application
from .file_changes import recounted
from .filters import Filters
from .policy_services import PolicyServices

# Seconds. A look-up of the DNS gives up earlier; a client waits for minutes (RFC 5321 §4.5.3.2.6).
_LONGEST_CHECK = 30.0

GREYLIST = os.path.join("greylist", "greylist.sqlite")
"""What greylisting remembers, for all processes, in the state directory."""

APPLICATION = "application"
"""The name of an application's own policy, in the log and the counters."""


@frozen
class PreparedLists:
    """The allow and the deny list of other settings, as far as they are read, in this order."""

    readings: tuple[FileReading[AccessList], FileReading[AccessList]]


class Policies:
    """Reads the lists of policies, and makes the chains of policies of listeners.

    Args:
        application: has its own policy, or none, which is asked on each listener about all clients.
        resolver: the DNS.
        wall_time: for expired signatures, and a macro of SPF.
        clock: for deadlines.
        executor: where the file of greylisting is read and written.
        state_dir: where it is.
        metrics: where verdicts are counted.
        observe: takes note of messages whose domains ask for reports of DMARC.
        filters: the filters, for all listeners.
        services: the policy services, likewise.
        decide: decides on greylisting by what all machines know (`decisions.Shared`); None: this
            one is alone.
        foretell: foretells that.
    """

    def __init__(
        self,
        application: Application,
        *,
        resolver: Resolver,
        wall_time: WallTime,
        clock: Clock,
        executor: Executor,
        state_dir: str,
        metrics: Metrics,
        observe: Callable[[Observation], object],
        filters: Filters,
        services: PolicyServices,
        decide: Shared | None = None,
        foretell: Shared | None = None,
    ) -> None:
        self._application = application
        self._resolver = resolver
        self._wall_time = wall_time
        self._clock = clock
        self._metrics = metrics
        self._observe = observe
        self._filters = filters
        self._services = services
        self._allowed = FileTable(AccessList, read_content, parse_in_slices)
        self._denied = FileTable(AccessList, read_content, parse_in_slices)
        self._blocklists: dict[DNSBL, Blocklist] = {}
        self._greylist_file = GreylistFile(os.path.join(state_dir, GREYLIST))
        self._greylist = Decisions(
            self._greylist_file,
            executor=executor,
            clock=clock,
            shared=decide,
            foretell_shared=foretell,
        )
        self._exemptions = Exemptions(
            allowed=lambda: self._allowed.value, resolver=resolver, clock=clock, count=self._count
        )

    def table_sizes(self) -> Iterator[tuple[str, int, int]]:
        """Yield the name of each table of bounded size, its entries, and how many it can have."""
        yield "greylisting", *self._greylist_file.size

    # Files.

    async def prepare(self, config: Config, pace: Pace, checked: Digests) -> PreparedLists:
        """Read the lists that other settings name, without any effect yet.

        Raises:
            LineFileError: one cannot be read.
        """
        settings = config.policy
        return PreparedLists(
            (
                await self._allowed.read(settings.allow, None, pace, checked),
                await self._denied.read(settings.deny, None, pace, checked),
            )
        )

    async def complete(self, prepared: PreparedLists, pace: Pace) -> None:
        """Parse lists that `prepare` has only read."""
        for each, reading in zip((self._allowed, self._denied), prepared.readings, strict=True):
            await each.complete(reading, pace)

    def use(self, prepared: PreparedLists) -> tuple[list[str], Work[None]]:
        """Put complete lists in force. It cannot fail.

        Returns:
            Lines about changed files, printable; and work that frees the lists of before.
        """
        lines, old = [], []
        for each, reading in zip((self._allowed, self._denied), prepared.readings, strict=True):
            before = each.use(reading)
            if before is not each.value:
                old.append(before)
                if before.name and each.value.name:
                    lines.append(
                        recounted(
                            each.value.name, ("entry", "entries"), len(before), len(each.value)
                        )
                    )
        return lines, _emptying(old)

    # Chains.

    def stages(self, config: Config, listener: Listener) -> PolicyStages | None:
        """Return the policies of a listener; None where it has none.

        Args:
            config: the configuration.
            listener: one of its listeners.
        """
        groups = [group for group in self._groups(config, listener) if group]
        if not groups:
            return None
        return PolicyStages(PolicyChain(groups, clock=self._clock, count=self._count))

    def _groups(self, config: Config, listener: Listener) -> Iterator[Sequence[Member]]:
        if listener.kind == "smtp":
            yield self._about_strangers(config)
        yield from self._services.groups(config, listener)
        if listener.kind == "smtp" and config.greylist is not None:
            # Last, so that nothing is remembered of what the others refuse.
            yield [self._greylisting(config.greylist)]
        # One after the other: each sees what the others have found and changed.
        for member in self._filters.members(config):
            yield [member]
        own = self._application
        if own.policy is not None:
            # It sees what the others have found.
            yield [Member(name=APPLICATION, policy=own.policy, timeout=own.policy_timeout)]

    def _about_strangers(self, config: Config) -> list[Member]:
        """Return the standards of authentication, and lists; asked about strangers alone.

        Where one of them fails, the mail goes on: a fault of the DNS is no reason to refuse.
        """
        settings = config.policy
        lists = self._lists(config)
        # Services get the reverse name of the client.
        if not settings.is_used and not lists and not config.policy_services:
            return []
        standard = partial(
            Member,
            timeout=_LONGEST_CHECK,
            on_failure=None,
            strangers_only=True,
            reads_content=False,
        )
        members = [
            standard(
                name=iprev.NAME,
                policy=iprev.ReverseNamePolicy(self._resolver),
                concludes=iprev.NO_ANSWER,
            )
        ]
        if settings.spf != "off":
            checker = Checker(
                resolver=self._resolver,
                clock=self._clock,
                wall_time=self._wall_time,
                hostname=config.hostname,
            )
            members.append(
                standard(
                    name=spf.NAME,
                    policy=spf.SPFPolicy(checker, enforces=settings.spf == "enforce"),
                    concludes=spf.FAILED,
                )
            )
        if settings.dkim != "off":
            members.append(
                standard(
                    name=dkim.NAME,
                    policy=dkim.DKIMPolicy(self._resolver, self._wall_time),
                    concludes=dkim.FAILED,
                )
            )
        if settings.arc != "off":
            members.append(
                standard(
                    name=arc.NAME,
                    policy=arc.ARCPolicy(self._resolver, self._wall_time, settings.trusted_sealers),
                    concludes=arc.FAILED,
                )
            )
        if settings.dmarc != "off":
            members.append(
                standard(
                    name=dmarc.NAME,
                    policy=dmarc.DMARCPolicy(
                        self._resolver,
                        enforces=settings.dmarc == "enforce",
                        forwarders=dmarc.TrustedForwarders(settings.trusted_forwarders),
                        observe=self._observe if settings.dmarc_reports else None,
                    ),
                    concludes=dmarc.NO_ANSWER,
                )
            )
        return [*members, *lists]

    def _lists(self, config: Config) -> list[Member]:
        """Return the policies of lists."""
        listed = partial(
            Member,
            timeout=_LONGEST_CHECK,
            on_failure=None,
            strangers_only=True,
            reads_content=False,
        )
        members = []
        if config.policy.deny is not None:
            policy = deny_policy.DenyPolicy(
                lambda: self._denied.value, self._exemptions, self._clock
            )
            members.append(listed(name=deny_policy.NAME, policy=policy))
        if config.dnsbl:
            lists = [self._blocklist(each) for each in config.dnsbl]
            members.append(listed(name=blocklist.NAME, policy=DNSBLPolicy(lists, self._exemptions)))
        # One for all listeners: each remembers what it has logged.
        self._blocklists = {each: self._blocklist(each) for each in config.dnsbl}
        return members

    def _greylisting(self, settings: GreylistSettings) -> Member:
        policy = greylist_policy.GreylistPolicy(
            self._greylist,
            self._exemptions,
            delay=settings.delay,
            wall_time=self._wall_time,
            count=self._count,
        )
        return Member(
            name=greylist_policy.NAME,
            policy=policy,
            timeout=_LONGEST_CHECK,
            on_failure=None,
            strangers_only=True,
            reads_content=False,
        )

    def _blocklist(self, settings: DNSBL) -> Blocklist:
        if settings not in self._blocklists:
            self._blocklists[settings] = Blocklist(
                settings, resolver=self._resolver, clock=self._clock, count=self._count
            )
        return self._blocklists[settings]

    def _count(self, policy: str, result: str) -> None:
        self._metrics.count(table.POLICY_VERDICTS, policy, result)


def _emptying(lists: Sequence[AccessList]) -> Work[None]:
    for each in lists:
        yield from each.empty()
