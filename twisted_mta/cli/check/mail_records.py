"""The records by which other hosts judge our mail: MX, PTR, SPF, DKIM and DMARC of our domains."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from itertools import islice

import dns.reversename
from twisted.internet.task import Clock

from ...config import Config
from ...dns import DNSFailure, LookupFailed, NoSuchDomain
from ...interfaces import WallTime
from ...mail.address import AddressError, Mailbox, domain_name, literal_address
from ...mail.printable import printable
from ...policy.dkim.signing_keys import SigningKey, SigningKeys
from ...policy.dmarc.discovery import Published, walk
from ...policy.dmarc.record import Record
from ...policy.spf.evaluation import Checker, Claim
from ...policy.spf.record import Malformed, selected
from ...policy.spf.result import Result
from ...reports.dmarc.destinations import destinations
from ...tls.certificates import CertificateError
from ..dkim.records import published, record_of, zone_lines
from ..questions import NoAnswer, Questions
from .asking import asked
from .blocking_resolver import BlockingResolver, finished
from .finding import Finding, Topic
from .machine import Machine
from .names import is_here

_MOST_DOMAINS = 50
_STRING = 255  # RFC 1035 §3.3: the octets of a <character-string>
_QUOTED_SPECIALS = re.compile(r'["\\]')
_MOST_EXCHANGERS = 16  # of one domain that are looked up
# Of a block for documentation (TEST-NET-3): it belongs to no host.
_STRANGER = "203.0.113.77"
_ALL = re.compile(r" [-~?+]?all$", re.IGNORECASE)


def mail_records(config: Config, machine: Machine, *, seconds: float) -> Iterator[Finding]:
    """Yield whether the DNS has what other hosts expect of us and of our domains. Blocks.

    Args:
        config: the settings.
        machine: gives the system's name servers.
        seconds: for all questions together.
    """
    yield from asked(config, machine, _checked, seconds=seconds)


def _checked(config: Config, questions: Questions, machine: Machine) -> Iterator[Finding]:
    return _MailRecords(config, questions, machine.wall_time).findings()


class _MailRecords:
    """The checks, with what they have in common."""

    def __init__(self, config: Config, questions: Questions, wall_time: WallTime) -> None:
        self._config = config
        self._questions = questions
        self._resolver = BlockingResolver(questions)
        self._clock = Clock()
        self._checker = Checker(
            resolver=self._resolver,
            clock=self._clock,
            wall_time=wall_time,
            hostname=config.hostname,
        )
        self._hostname = _full_name(config.hostname)
        self._helo = _full_name(config.helo)
        self._ours: list[str] = []  # the addresses from which other hosts get our mail
        self._keys = SigningKeys()
        self._reported: set[str] = set()  # names of records that several domains have in common

    def findings(self) -> Iterator[Finding]:
        """Yield all findings."""
        yield from self._own_name()
        keys = []
        for table in self._config.dkim_keys:
            try:
                keys.append(SigningKey.read(table))
            except CertificateError as error:
                yield Topic(table.domain, "DKIM").finding("fail", str(error))
        self._keys.use(keys)
        for domain in self._domains():
            yield from self._exchangers(domain)
            yield from self._spf(domain)
            yield from self._dkim(domain)
            yield from self._dmarc(domain)

    def _domains(self) -> Iterator[str]:
        config = self._config
        each = dict.fromkeys((*config.local_domains, *config.virtual_domains, config.hostname))
        return islice((name for name in each if _full_name(name)), _MOST_DOMAINS)

    # Our own name.

    def _own_name(self) -> Iterator[Finding]:
        """Yield whether the name in EHLO and its addresses lead to each other."""
        sources = [each for each in self._config.delivery.source_address or () if _is_public(each)]
        name = self._helo
        if name is None:
            self._ours = sources
            yield Finding(
                "fail",
                printable(self._config.helo),
                "is not a full host name: many hosts refuse mail with such a name in EHLO",
                "set [mta] hostname to one such as mail.example.net",
            )
            return
        topic = Topic(name, "address")
        try:
            addresses = self._questions.addresses(f"{name}.")
        except NoAnswer as error:
            yield topic.finding("warning", f"cannot be looked up now: {error}", "check again later")
            addresses = []
        else:
            if addresses:
                here = "" if any(map(is_here, addresses)) else ", none of which is of this machine"
                yield topic.finding("pass", f"{', '.join(addresses)}{here}")
            else:
                yield topic.finding(
                    "fail",
                    "is missing: many hosts refuse mail with such a name in EHLO",
                    "publish the public address of this host",
                    [f"{name}. IN A ADDRESS"],
                )
        self._ours = list(dict.fromkeys((*addresses, *sources)))
        for address in self._ours:
            yield self._pointer(name, address, named=address in addresses)

    def _pointer(self, name: str, address: str, *, named: bool) -> Finding:
        """Return whether an address of ours has the name in EHLO (RFC 5321 §4.1.4)."""
        topic = Topic(name, "PTR")
        reverse = dns.reversename.from_address(address).to_text()
        record = f"{reverse} IN PTR {name}."
        ask = "have the provider of the address publish"
        try:
            names = finished(self._resolver.pointers(address), self._clock)
        except NoSuchDomain:
            names = ()
        except LookupFailed as failure:
            return topic.failed(failure)
        if not names:
            return topic.finding(
                "fail", f"{address} has no name: large receivers refuse its mail", ask, [record]
            )
        if name not in names:
            return topic.finding(
                "warning",
                f"{address} has the name {printable(', '.join(names))}, and not the one in EHLO",
                ask,
                [record],
            )
        if not named:
            family = "A" if ip_address(address).version == 4 else "AAAA"
            return topic.finding(
                "fail",
                f"{address} has that name, which does not have the address",
                "publish",
                [f"{name}. IN {family} {address}"],
            )
        return topic.finding("pass", f"{address} has that name")

    # Exchangers.

    def _exchangers(self, domain: str) -> Iterator[Finding]:
        topic = Topic(domain, "MX")
        record = f"{domain}. IN MX 10 {self._hostname or 'HOST'}."
        try:
            found = finished(self._resolver.mail_exchangers(domain), self._clock)
        except NoSuchDomain:
            found = ()
        except LookupFailed as failure:
            yield topic.failed(failure)
            return
        if not found:
            yield self._implicit_exchanger(topic, record)
            return
        ours = False
        for preference, host in islice(sorted(found), _MOST_EXCHANGERS):
            shown = f"{preference} {printable(host) or '.'}"
            if not host:
                yield topic.finding(
                    "fail", f"{shown} says that it accepts no mail (RFC 7505)", "publish", [record]
                )
                return
            try:
                addresses = self._addresses(host)
            except NoAnswer as error:
                yield topic.finding("warning", f"{shown} cannot be looked up now: {error}")
                continue
            if not addresses:
                # RFC 5321 §5.1: an exchanger is a name with an address, and not an address.
                yield topic.finding(
                    "fail", f"{shown} has no address", "publish one, or remove the record"
                )
                continue
            here = host == self._hostname or any(map(self._is_ours, addresses))
            ours = ours or here
            where = "this host" if here else "another host"
            yield topic.finding("pass", f"{shown} ({', '.join(addresses)}), {where}")
        if not ours:
            yield topic.finding(
                "warning",
                "no exchanger is this host, so that mail from other hosts does not come here",
                "unless another host relays it to this one, publish",
                [record],
            )

    def _implicit_exchanger(self, topic: Topic, record: str) -> Finding:
        """Return what a domain without MX records leads to (RFC 5321 §5.1)."""
        try:
            addresses = self._addresses(topic.domain)
        except NoAnswer as error:
            return topic.finding("warning", f"cannot be looked up now: {error}")
        if not addresses:
            return topic.finding(
                "fail", "is missing, and there is no address: no mail arrives", "publish", [record]
            )
        shown = f"is missing; the address counts instead ({', '.join(addresses)})"
        if any(map(self._is_ours, addresses)):
            return topic.finding("pass", f"{shown}, this host")
        return topic.finding("warning", f"{shown}, another host", "publish", [record])

    def _addresses(self, host: str) -> Sequence[str]:
        return self._questions.addresses(f"{host}.")

    def _is_ours(self, address: str) -> bool:
        return address in self._ours or is_here(address)

    # SPF.

    def _spf(self, domain: str) -> Iterator[Finding]:
        topic = Topic(domain, "SPF")
        try:
            texts = finished(self._resolver.text(domain), self._clock)
        except NoSuchDomain:
            texts = ()
        except LookupFailed as failure:
            yield topic.failed(failure)
            return
        try:
            record = selected(texts)
        except Malformed as malformed:
            # RFC 7208 §4.5: several records are a permanent error.
            yield topic.finding("fail", str(malformed), "remove all but one")
            return
        if record is None:
            host = f"a:{self._helo or 'HOST'}"
            yield topic.finding(
                "fail",
                "is missing: large receivers refuse mail of such a domain",
                "publish, with any other host that sends its mail",
                [_text_record(domain, f"v=spf1 mx {host} -all")],
            )
            return
        text = printable(record.decode("latin-1"))
        refused: list[tuple[str, Result]] = []
        for address in self._ours:
            result = self._checked(address, domain)
            if result.result == "pass":
                yield topic.finding("pass", f"{address} may send ({printable(result.reason)})")
            elif result.result == "temperror":
                yield topic.finding(
                    "warning", f"cannot be evaluated now: {result.reason}", "check again later"
                )
            elif result.result == "permerror":
                yield topic.finding("fail", f"{text} is broken: {result.reason}", "correct it")
                return
            else:
                refused.append((address, result))
        if refused:
            listed = ", ".join(
                f"{address} gets {result.result} ({result.reason})" for address, result in refused
            )
            yield topic.finding(
                "fail",
                f"it does not let this host send: {listed}",
                "publish instead",
                [_text_record(domain, _allowing(text, [each for each, _ in refused]))],
            )
        if not self._ours:
            yield topic.finding(
                "warning", f"{text} was not evaluated: no public address of this host is known"
            )
        if self._checked(_STRANGER, domain).result == "pass":
            yield topic.finding(
                "warning", f"{text} lets every host send mail of the domain", "end it with -all"
            )

    def _is_new(self, name: str) -> bool:
        """Whether a record is reported for the first time."""
        known = name in self._reported
        self._reported.add(name)
        return not known

    def _checked(self, address: str, domain: str) -> Result:
        claim = Claim(address=address, domain=domain, helo=self._config.helo)
        return finished(self._checker.check(claim), self._clock)

    # DKIM.

    def _dkim(self, domain: str) -> Iterator[Finding]:
        topic = Topic(domain, "DKIM")
        keys = self._keys.of(domain)
        if not keys:
            yield topic.finding(
                "warning",
                "no key is configured: its mail is not signed",
                f"twisted-mta dkim new --domain {domain}",
            )
        for key in keys:
            if not self._is_new(key.record_name):
                continue
            try:
                found = published(key, self._questions)
            except NoAnswer as error:
                yield topic.finding(
                    "warning",
                    f"{key.record_name} cannot be looked up now: {error}",
                    "check again later",
                )
                continue
            if found.same:
                yield topic.finding("pass", f"{key.record_name}: {found.text}")
            else:
                yield topic.finding(
                    "fail",
                    f"{key.record_name}: {found.text}: signatures do not verify",
                    "publish",
                    [*zone_lines(key), f"; as one text: {record_of(key)}"],
                )

    # DMARC.

    def _dmarc(self, domain: str) -> Iterator[Finding]:
        topic = Topic(domain, "DMARC")
        found = finished(walk(domain, self._resolver), self._clock)
        policy = found.policy
        if policy == "unknown":
            yield topic.finding(
                "warning",
                f"_dmarc.{found.failed} cannot be looked up now",
                "check again later",
            )
            return
        several = self._several_policies(domain)
        if policy is None:
            what = "there are several records, which count as none" if several else "is missing"
            yield topic.finding(
                "fail" if several else "warning",
                f"{what}: large receivers expect one",
                "remove all but one" if several else "publish, and a stronger p= later",
                () if several else [_dmarc_record(domain, self._config.report_from)],
            )
            return
        published_at = policy.published
        record = published_at.record
        request = policy.request(exists=True)
        asks = {
            "none": "asks for nothing if mail fails",
            "quarantine": "asks to quarantine mail that fails",
            "reject": "asks to refuse mail that fails",
        }[request]
        if record.testing:
            asks += ", but only for a test (t=y)"
        if not record.faults:
            yield topic.finding("pass", f"_dmarc.{published_at.domain} {asks}")
        if not self._is_new(f"_dmarc.{published_at.domain}"):
            return
        for fault in record.faults:
            yield topic.finding("fail", f"at {published_at.domain}: {fault}", "correct it")
        yield from self._report_destinations(topic, published_at)

    def _several_policies(self, domain: str) -> bool:
        try:
            texts = finished(self._resolver.text(f"_dmarc.{domain}"), self._clock)
        except DNSFailure:
            return False
        return sum(Record.parse(text) is not None for text in texts) > 1

    def _report_destinations(self, topic: Topic, at: Published) -> Iterator[Finding]:
        """Yield the mailboxes in ``rua`` whose domains do not agree (RFC 9990 §4)."""
        for mailbox in at.record.rua:
            asked = Published(at.domain, Record(rua=(mailbox,)))
            result = finished(destinations(asked, self._resolver), self._clock)
            if result.unknown:
                yield topic.finding(
                    "warning",
                    f"whether {mailbox} may get reports cannot be looked up now",
                    "check again later",
                )
            elif not result.agreed:
                yield topic.finding(
                    "warning",
                    f"{mailbox} gets no reports: its domain does not agree",
                    "have its owner publish, or name a mailbox of yours",
                    [_text_record(f"{at.domain}._report._dmarc.{mailbox.domain}", "v=DMARC1")],
                )


def _dmarc_record(domain: str, reports_to: Mailbox) -> str:
    rua = f"; rua=mailto:{reports_to}" if reports_to.domain == domain else ""
    return _text_record(f"_dmarc.{domain}", f"v=DMARC1; p=none{rua}")


def _text_record(name: str, text: str) -> str:
    """Return a TXT record as a line of a zone file (RFC 1035 §5.1)."""
    strings = (text[at : at + _STRING] for at in range(0, len(text), _STRING))
    quoted = (_QUOTED_SPECIALS.sub(r"\\\g<0>", each) for each in strings)
    return f"{name}. IN TXT " + " ".join(f'"{each}"' for each in quoted)


def _allowing(record: str, addresses: Sequence[str]) -> str:
    """Return an SPF record with more addresses, in front of its ``all``."""
    terms = "".join(
        f" ip{ip_address(address).version}:{address}" for address in dict.fromkeys(addresses)
    )
    end = _ALL.search(record)
    return f"{record[: end.start()]}{terms}{end[0]}" if end else f"{record}{terms}"


def _is_public(address: str) -> bool:
    return ip_address(address).is_global


def _full_name(name: str) -> str | None:
    """Return the canonical form of a name with a dot in it; None: it is something else."""
    try:
        canonical = domain_name(name)
    except AddressError:
        return None
    if literal_address(canonical) is not None or "." not in canonical:
        return None
    return canonical
