"""The kinds of troubles, and one trouble as all places show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import Factory, field, frozen

Severity = Literal["info", "warning", "critical"]
"""``critical``: mail is refused, or will be lost to its senders, until the operator acts.
``warning``: it will come to that, or some mail waits. ``info``: nothing has to be done at once."""

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""All severities, the mildest first."""


@frozen(kw_only=True)
class Kind:
    """A kind of trouble.

    Attributes:
        name: in JSON, metrics and the log.
        severities: that it can have, the default first.
        when: the conditions under which it is there; for the documentation.
        refuses: whether mail is refused meanwhile; for the documentation.
        remedy: what the operator does about it; a sentence.
        brief: the trouble in words that name no peer and no message, for those who may know of
            neither; empty: its text names none.
        logged: whether its begin and end are logged; not where other lines say it.
    """

    name: str
    severities: tuple[Severity, ...]
    when: str
    refuses: str
    remedy: str
    brief: str = ""
    logged: bool = True


_ALL = (
    Kind(
        name="disk",
        severities=("critical", "warning"),
        when="less than minimum_free_disk is free, or a message could not be written: no free"
        " inodes, or a quota. The same without refusals for the file system of Maildirs. A warning"
        " below twice minimum_free_disk, or below 1,000 free inodes.",
        refuses="yes, without space for the queue",
        remedy="Free space, or enlarge the file system or the quota; mail is taken again by itself"
        " (setting minimum_free_disk).",
    ),
    Kind(
        name="memory",
        severities=("critical",),
        when="incoming messages use all of message_memory.",
        refuses="yes",
        remedy="Wait for the messages that come in, or raise message_memory.",
    ),
    Kind(
        name="descriptors",
        severities=("critical", "warning"),
        when="all descriptors but the reserved ones are in use. A warning from 90 % of them.",
        refuses="new connections wait",
        remedy="Raise the limit of descriptors (LimitNOFILE= of systemd, ulimit -n), or lower"
        " max_connections.",
    ),
    Kind(
        name="connections",
        severities=("critical", "warning"),
        when="all max_connections of a listener are in use. A warning from 90 % of them.",
        refuses="yes, with 421",
        remedy="Raise max_connections, or lower max_connections_per_peer if few peers have most of"
        " them.",
    ),
    Kind(
        name="queue",
        severities=("critical",),
        when="the store is closed after an error of the disk, and will be opened again.",
        refuses="yes",
        remedy="Look in the log for the error, and mend the disk; the queue opens by itself.",
    ),
    Kind(
        name="listeners",
        severities=("critical",),
        when="not all configured ports listen.",
        refuses="yes",
        remedy="Look in the log why the port cannot be bound.",
    ),
    Kind(
        name="start",
        severities=("info",),
        when="a process starts for the first time.",
        refuses="yes",
        remedy="",
        logged=False,
    ),
    Kind(
        name="drain",
        severities=("info",),
        when="the MTA ends.",
        refuses="yes",
        remedy="",
        logged=False,
    ),
    Kind(
        name="workers",
        severities=("warning", "critical"),
        when="a worker does not answer, has ended, or starts anew; or it ends again and again."
        " One that has not answered for 30 seconds is killed and replaced. Critical if none works.",
        refuses="no, if others work",
        remedy="Nothing, if it happens once: it is replaced by itself. Else look in the log how it"
        " ends.",
    ),
    Kind(
        name="certificate",
        severities=("critical", "warning"),
        when="a certificate of a listener has expired, or is not valid yet. A warning in the 14"
        " days before it expires, or in the last sixth of a life of fewer than 84 days.",
        refuses="no, but clients may refuse to send",
        remedy="Renew the certificate, and run twisted-mta reload.",
    ),
    Kind(
        name="renewal",
        severities=("warning",),
        when="the authority of [acme] has issued no new certificate, or it could not be put in"
        " force. The one of before serves; it is tried again, less and less often.",
        refuses="no",
        remedy="See the reason, also in twisted-mta check; once it is mended, twisted-mta reload"
        " tries at once.",
    ),
    Kind(
        name="dkim_keys",
        severities=("info",),
        when="the file of a DKIM key is older than a year.",
        refuses="no",
        remedy="Make its successor by twisted-mta dkim new, publish it, and remove the old one some"
        " days after.",
    ),
    Kind(
        name="next_hops",
        severities=("warning", "info"),
        when="no session can be opened with a next hop of a route, so that its mail waits. For mail"
        " exchangers of other domains: info.",
        refuses="no",
        remedy="See twisted-mta explain ADDRESS; once the next hop is up, twisted-mta queue retry"
        " --domain DOMAIN tries it at once.",
        brief="next hops are suspended, and mail for them waits",
    ),
    Kind(
        name="suspended_destinations",
        severities=("info",),
        when="the operator has suspended a destination, so that its mail waits.",
        refuses="no",
        remedy="Once mail may go there again, twisted-mta queue resume DESTINATION makes it due.",
        brief="destinations are suspended by the operator, and mail for them waits",
    ),
    Kind(
        name="machines",
        severities=("warning",),
        when="of several machines with one queue: one has been silent for more than 15 seconds, in"
        " the last day; its clock is more than 5 seconds wrong; its limits in the settings are"
        " others; or the database does not answer, so that each has its share of the limits.",
        refuses="no",
        remedy="Start the machine again, or see to its way to the database; one that was removed is"
        " forgotten after a day.",
        brief="not all machines of the queue are as they should be",
    ),
    Kind(
        name="queue_age",
        severities=("warning",),
        when="mail waits in the queue for longer than age_warning, other than mail on hold.",
        refuses="no",
        brief="mail waits in the queue for long",
        remedy="See twisted-mta queue list --older 1d, and twisted-mta explain ID (setting"
        " age_warning).",
    ),
    Kind(
        name="dns",
        severities=("warning",),
        when="the last three lookups or more have failed, or a quarter of those of the last 5"
        " minutes (10 or more). NXDOMAIN is an answer.",
        refuses="no",
        remedy="Check the name servers ([dns] nameservers, or /etc/resolv.conf) with twisted-mta"
        " check --dns.",
        brief="DNS lookups fail",
    ),
    Kind(
        name="clock",
        severities=("warning",),
        when="the wall clock was set, or the machine slept, in the last 10 minutes: by more than"
        " 2 seconds against the monotonic clock.",
        refuses="no",
        remedy="Check the time (timedatectl); timers of the MTA do not depend on it, dates of"
        " messages and certificates do.",
    ),
    Kind(
        name="credentials",
        severities=("warning",),
        when="a next hop has refused our account with its password or token, and has not taken them"
        " since; for 6 hours after the last time.",
        refuses="no",
        remedy="Correct username and password_file (or the source of its token) of its"
        " [[destination]], and run twisted-mta reload.",
        brief="a next hop does not take our credentials",
    ),
    Kind(
        name="tokens",
        severities=("critical", "warning"),
        when="the source of an account's OAuth tokens has failed, and no token is left. A warning"
        " while the last one serves.",
        refuses="no",
        remedy="See twisted-mta explain ADDRESS for the reason; mend the file or the command, or"
        " renew the refresh token or the client's secret, and run twisted-mta reload.",
        brief="there is no token for an account at a next hop",
    ),
    Kind(
        name="webhooks",
        severities=("warning",),
        when="a webhook has not taken an event three times in a row, or has answered 410 and is"
        " disabled; or events for it were dropped in the last 6 hours. Mail goes on.",
        refuses="no",
        remedy="Mend the receiver; twisted-mta webhooks test shows its answer, and twisted-mta"
        " reload tries it at once, also where it is disabled.",
        brief="a webhook does not take events",
    ),
    Kind(
        name="tls",
        severities=("warning",),
        when="mail for a host waits, since its TLS is not what DANE, MTA-STS, the settings or the"
        " TLS memory demand; for 6 hours after the last time.",
        refuses="no",
        remedy="See twisted-mta tls DOMAIN --probe; twisted-mta tls forget HOST, if it has given up"
        " TLS on purpose.",
        brief="mail waits since the TLS of a host is not what is demanded",
    ),
    Kind(
        name="tables",
        severities=("info",),
        when="a table of bounded size is 90 % full, or more; then its oldest entries are forgotten"
        " early.",
        refuses="no",
        remedy="Find the clients that fill it (twisted-mta trace, the log); add them to deny, or"
        " limit them at the firewall.",
    ),
    Kind(
        name="clear_page",
        severities=("warning",),
        when="the page takes logins or tokens at an address that other machines can reach, without"
        " TLS.",
        refuses="no",
        remedy="Set tls = true in [web], or let --web listen on loopback behind a proxy with TLS;"
        " then replace the passwords and tokens that were used.",
    ),
    Kind(
        name="log",
        severities=("warning",),
        when="lines wait to be written, or are lost.",
        refuses="no",
        remedy="Free space on the disk of the log, and run twisted-mta reopen-logs.",
    ),
    Kind(
        name="waiting",
        severities=("warning",),
        when="mail that twisted-mta-sendmail has left in its directory could not be taken in, or"
        " the directory cannot be read.",
        refuses="no",
        remedy="Look in the log why; check the owner and the mode of the directory (setting"
        " local_submission_directory).",
    ),
    Kind(
        name="quarantine",
        severities=("warning",),
        when="messages in the queue have lost their body file; they are not tried.",
        refuses="no",
        remedy="See twisted-mta queue list --state quarantined; restore the file from a backup, or"
        " remove the message.",
    ),
    Kind(
        name="failures",
        severities=("info",),
        when="mail has failed since the start, and no notice may go to its sender; for 6 hours"
        " after the last time.",
        refuses="no",
        remedy="Look for its line with failed in the log; mostly its sender is forged, and nothing"
        " has to be done.",
    ),
)

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}
"""All kinds by name, in the order of the documentation."""


@frozen(kw_only=True)
class Trouble:
    """A trouble: it keeps mail from being accepted or delivered, or soon will.

    Attributes:
        kind: one of `KINDS`.
        text: what was found, and what it means; one line, printable.
        subject: what of its kind it is about, in words that do not change while it lasts: a
            listener, a worker, a file; empty: there is one of its kind.
        severity: see `Severity`.
        stops: whether mail is refused because of it.
        remedy: what to do about it; a sentence.
        since: wall time at which it began, seconds since the epoch; None: not known yet.
        seconds: for which it has lasted, by the monotonic clock.

    Raises:
        KeyError: there is no such kind.
    """

    kind: str
    text: str
    subject: str = ""
    severity: Severity = field(
        default=Factory(lambda self: KINDS[self.kind].severities[0], takes_self=True)
    )
    stops: bool = False
    remedy: str = field(default=Factory(lambda self: KINDS[self.kind].remedy, takes_self=True))
    since: float | None = None
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        """Its identity, which stays while text and severity change."""
        return self.kind, self.subject

    @property
    def brief(self) -> str:
        """What was found, without names of peers and messages."""
        return KINDS[self.kind].brief or self.text


def ordered(troubles: Iterable[Trouble]) -> tuple[Trouble, ...]:
    """Return each trouble once, the worst first.

    Of several with one key, for example of the disk that all processes share, the worst stays.
    """
    worst: dict[tuple[str, str], Trouble] = {}
    for each in troubles:
        known = worst.get(each.key)
        if known is None or _badness(each) > _badness(known):
            worst[each.key] = each
    return tuple(sorted(worst.values(), key=_badness, reverse=True))


def _badness(trouble: Trouble) -> tuple[bool, int]:
    return trouble.stops, SEVERITIES.index(trouble.severity)
