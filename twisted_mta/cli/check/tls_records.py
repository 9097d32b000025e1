"""The records by which other hosts verify our TLS, and report on it: DANE, MTA-STS, TLS-RPT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.task import Clock

from ...config import Config
from ...dns import LookupFailed, NoSuchDomain
from ...interfaces import Resolver
from ...mail.printable import printable
from ...mail.tlsa import TLSA
from ...reports.tls.record import name_of, report_record
from ...tls import dane
from ...tls.certificates import CertificateError, subject
from ...tls.mta_sts.own import own_domains, own_policy
from ...tls.mta_sts.policy import Policy, PolicyError, record_id
from ...tls.own_records import (
    Shown,
    mta_sts_line,
    shown_certificates,
    tls_report_line,
    tlsa_lines,
)
from ..questions import NoAnswer, Questions
from .asking import asked
from .blocking_resolver import BlockingResolver, finished
from .finding import Finding, Topic
from .machine import Machine
from .policy_fetches import fetched_policies

Fetch = Callable[[Config, Sequence[str], Resolver], Mapping[str, Policy | str]]
"""Fetches the policies of domains (`policy_fetches.fetched_policies`)."""

_MOST_DOMAINS = 50
_MOST_EXCHANGERS = 16


def tls_records(
    config: Config, machine: Machine, *, seconds: float, fetch: Fetch = fetched_policies
) -> Iterator[Finding]:
    """Yield whether the DNS, and policy hosts, say of our TLS what is so. Blocks.

    Args:
        config: the settings.
        machine: gives the system's name servers.
        seconds: for all questions together.
        fetch: fetches policies.
    """

    def check(config: Config, questions: Questions, machine: Machine) -> Iterator[Finding]:
        return _TLSRecords(config, questions, fetch).findings()

    return asked(config, machine, check, seconds=seconds)


class _TLSRecords:
    def __init__(self, config: Config, questions: Questions, fetch: Fetch) -> None:
        self._config = config
        self._questions = questions
        self._resolver = BlockingResolver(questions)
        self._fetch = fetch
        self._clock = Clock()

    def findings(self) -> Iterator[Finding]:
        """Yield all findings."""
        try:
            shown = shown_certificates(self._config)
        except CertificateError:
            shown = ()  # a finding of the check of certificates
        if "." in self._config.hostname:
            for each in shown:
                yield self._tlsa(each)
        domains = list(islice(own_domains(self._config), _MOST_DOMAINS))
        announced: list[str] = []
        for domain in domains:
            yield self._announcement(domain, announced)
        policies = self._fetch(self._config, announced, self._resolver) if announced else {}
        for domain in announced:
            yield self._policy(domain, policies[domain], shown)
        for domain in domains:
            yield self._reports(domain)

    # DANE.

    def _tlsa(self, shown: Shown) -> Finding:
        name = f"_{shown.port}._tcp.{self._config.hostname}"
        topic = Topic(self._config.hostname, "TLSA")
        wanted = tlsa_lines(self._config, [shown])
        try:
            answer = self._questions.lookup(f"{name}.", "TLSA")
        except NoAnswer as error:
            return topic.failed(error)
        found = [TLSA(each.usage, each.selector, each.mtype, each.cert) for each in answer.records]
        if not found:
            return topic.finding(
                "note",
                f"{name} is missing: other hosts do not verify our TLS by DANE",
                "publish, if the zone is signed",
                wanted,
            )
        usable = dane.usable(found)
        if not usable:
            listed = ", ".join(map(str, found[:3]))
            return topic.finding(
                "warning",
                f"{name} has no record that mail servers use ({listed})",
                "publish instead",
                wanted,
            )
        chain = [each.public_bytes(Encoding.DER) for each in shown.chain]
        verdict = dane.verify(chain, usable, self._names())
        if verdict.record is None:
            return topic.finding(
                "fail",
                f"{name}: hosts that use DANE send no mail: {_ours(verdict.problem)}",
                "publish instead",
                wanted,
            )
        text = f"{name}: {verdict.record} fits {printable(shown.file)}"
        if not answer.authenticated:
            return topic.finding(
                "warning",
                f"{text}, but no name server here says that DNSSEC proves it",
                "sign the zone, or ask a validating name server",
            )
        return topic.finding("pass", text)

    def _names(self) -> Sequence[str]:
        return (self._config.hostname.lower(), *own_domains(self._config))

    # MTA-STS.

    def _announcement(self, domain: str, announced: list[str]) -> Finding:
        """Return whether a domain announces a policy; if it does, add it to those that do."""
        topic = Topic(domain, "MTA-STS")
        name, own = f"_mta-sts.{domain}", self._config.mta_sts
        wanted = [mta_sts_line(self._config, domain)]
        try:
            id = record_id(finished(self._resolver.text(name), self._clock))
        except NoSuchDomain:
            id = None
        except LookupFailed as failure:
            return topic.failed(failure)
        except PolicyError as error:
            return topic.finding("fail", f"{name}: {error}", "publish instead", wanted)
        if id is None:
            serves = own.publish is not None
            return topic.finding(
                "fail" if serves else "note",
                f"{name} is missing: other hosts do not verify our TLS by MTA-STS",
                "publish" if serves else "twisted-mta tls records has all that is needed",
                wanted,
            )
        announced.append(domain)
        if own.publish is not None and f"id={id};" not in wanted[0]:
            return topic.finding(
                "fail",
                f"{name} has the id {id}, which is not that of the policy of the settings: other"
                " hosts keep the policy of before",
                "publish instead",
                wanted,
            )
        return topic.finding("pass", f"{name} has the id {id}")

    def _policy(self, domain: str, policy: Policy | str, shown: Sequence[Shown]) -> Finding:
        topic = Topic(domain, "MTA-STS")
        if isinstance(policy, str):
            return topic.finding("fail", f"no policy can be fetched: {policy}", "correct it")
        faults = list(self._faults(domain, policy, shown))
        if faults:
            is_enforced = policy.mode == "enforce"
            consequence = (
                "send no mail" if is_enforced else "would send no mail if it were enforced"
            )
            return topic.finding(
                "fail" if is_enforced else "warning",
                f"hosts that obey the policy (mode {policy.mode}) {consequence}:"
                f" {'; '.join(faults)}",
                "correct the policy, the MX records or the certificate",
            )
        if self._config.mta_sts.publish is not None and policy != own_policy(self._config):
            return topic.finding(
                "warning",
                f"another policy is published than that of the settings (mode {policy.mode})",
                "let mta-sts." + domain + " lead to this host",
            )
        return topic.finding("pass", f"the policy fits (mode {policy.mode})")

    def _faults(self, domain: str, policy: Policy, shown: Sequence[Shown]) -> Iterator[str]:
        if policy.mode == "none":
            return
        try:
            exchangers = finished(self._resolver.mail_exchangers(domain), self._clock)
        except (LookupFailed, NoSuchDomain):
            exchangers = ()  # a finding of the check of MX records
        for _, host in islice(sorted(exchangers), _MOST_EXCHANGERS):
            if host and not policy.allows(host):
                yield f"it does not allow the exchanger {printable(host)}"
        hostname = self._config.hostname.lower()
        if hostname not in (host for _, host in exchangers):
            return
        for each in shown:
            # RFC 8461 §4.2: the name of the exchanger, in the subjectAltName.
            problem = dane.name_problem(each.chain[0].public_bytes(Encoding.DER), [hostname])
            if problem:
                yield _ours(problem)
            elif each.chain[0].issuer == each.chain[0].subject:
                yield f"our certificate ({subject(each.chain[0])}) is self-signed"

    # TLS-RPT.

    def _reports(self, domain: str) -> Finding:
        topic = Topic(domain, "TLS-RPT")
        name = name_of(domain)
        wanted = [tls_report_line(self._config, domain)]
        try:
            texts = finished(self._resolver.text(name), self._clock)
        except NoSuchDomain:
            texts = ()
        except LookupFailed as failure:
            return topic.failed(failure)
        versioned = sum(text.startswith(b"v=TLSRPTv1") for text in texts)
        record = report_record(texts)
        if record is None and versioned > 1:
            return topic.finding(
                "fail",
                f"{name} has {versioned} records, so that no one reports",
                "remove all but one",
            )
        if record is None:
            return topic.finding(
                "note",
                f"{name} is missing: failures of TLS to us are not reported",
                "publish",
                wanted,
            )
        destinations = [*map(str, record.mailboxes), *map(str, record.collectors)]
        if record.faults:
            return topic.finding(
                "warning" if destinations else "fail",
                f"{name}: {'; '.join(record.faults)}",
                "correct it",
                () if destinations else wanted,
            )
        return topic.finding("pass", f"reports go to {printable(', '.join(destinations))}")


def _ours(problem: str) -> str:
    """Return a problem of a server as one of ours."""
    return problem.replace("its ", "our ")
