"""DMARC as a policy: it combines what SPF, DKIM and ARC have found about a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from attrs import frozen
from twisted.internet.defer import Deferred

from ...interfaces import Resolver
from ...mail.reply import Reply
from ...message.authentication_results import MethodResult
from ...message.header import Header
from ...system.coroutines import outcome
from ..answers import Answers, EnvelopeView, Quarantine
from ..examination import Examination, PolicySession
from ..networks import Networks
from .author import Author, author
from .discovery import Walk, is_below, walk
from .evaluation import Evaluation, evaluate
from .handling import Evidence, Handling, Reason, handling
from .identifiers import Identified
from .observation import MOST_SIGNATURES, Observation, Row
from .record import lowered

NAME = "dmarc"
"""The name of the policy, and of its method in Authentication-Results."""

NO_ANSWER = (MethodResult(NAME, "temperror", "no answer in time"),)
"""What is recorded where the evaluation fails, or takes too long."""

_UNKNOWN = Reason("local_policy", "a query of the DNS failed")
# RFC 9990 §3.5.2: the subject of a report.
_REPORT = "Report Domain:"


@frozen
class _Message:
    """What the header section of a message led to."""

    author: Author
    walk: Walk | Deferred[Walk] | None
    header: Header

    @property
    def from_list(self) -> bool:
        return bool((self.header["List-Id"] or "").strip())

    @property
    def is_report(self) -> bool:
        return (self.header["Subject"] or "").startswith(_REPORT)


class TrustedForwarders:
    """The forwarders that are exempt.

    Args:
        forwarders: networks of clients, and domains; a domain stands for those below it too.
    """

    def __init__(self, forwarders: Iterable[IPv4Network | IPv6Network | str] = ()) -> None:
        each = tuple(forwarders)
        self._networks = Networks(one for one in each if not isinstance(one, str))
        self._domains = tuple(one for one in each if isinstance(one, str))

    def include(self, address: str | None, authenticated: Sequence[str]) -> bool:
        """Whether one of them sent a message.

        Args:
            address: of the client.
            authenticated: the domains that SPF or DKIM has authenticated, or may have.
        """
        return self._networks.cover(address) or any(
            is_below(domain, trusted) for domain in authenticated for trusted in self._domains
        )


class DMARCPolicy:
    """Evaluates DMARC, and lets its policies have their effect.

    The records of the author domain are looked up at the end of the header section, while the
    content still comes. The answer at the end of the content waits for SPF, DKIM and ARC.

    Args:
        resolver: the DNS.
        enforces: whether mail that fails is quarantined or refused as its domain asks.
        forwarders: are exempt.
        observe: takes note of a message whose domain asks for reports; None: there are no reports.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        enforces: bool = False,
        forwarders: TrustedForwarders | None = None,
        observe: Callable[[Observation], object] | None = None,
    ) -> None:
        self._resolver = resolver
        self._enforced = enforces
        self._forwarders = forwarders or TrustedForwarders()
        self._observe = observe

    def header(self, session: PolicySession, envelope: EnvelopeView, header: Header) -> None:
        """Begin to look up the records of the author domain."""
        if session.examination is not None:
            session.examination.memory[NAME] = self._begin(header)

    def _begin(self, header: Header) -> _Message:
        found = author(bytes(header))
        return _Message(
            found,
            outcome(walk(found.domain, self._resolver, whole=False)) if found.domain else None,
            header,
        )

    async def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Answers:
        """Evaluate a message, and answer with what follows."""
        examination = session.examination
        begun = None if examination is None else examination.memory.get(NAME)
        if examination is None or not isinstance(begun, _Message):
            return None
        if begun.walk is None:
            return self._without_domain(begun.author, examination)
        found = Identified.of(
            await examination.concluded("spf"),
            await examination.concluded("dkim"),
            null_path=examination.sender is None,
        )
        domain = begun.author.domain
        walked = begun.walk if isinstance(begun.walk, Walk) else await begun.walk
        evaluation = await evaluate(walked, found.spf, found.dkim, self._resolver)
        handled = Handling("none")
        if evaluation.result == "fail" and evaluation.policy is not None:
            await examination.concluded("arc")
            evidence = Evidence(
                enforced=self._enforced,
                from_forwarder=self._forwarders.include(session.address, found.authenticated),
                is_signed=bool(found.dkim.passed),
                is_sealed=bool(examination.trusted_chain),
                is_uncertain=bool(found.dkim.unknown)
                or self._forwarders.include(None, found.uncertain),
                from_list=begun.from_list,
            )
            testing = evaluation.policy.published.record.testing
            handled = handling(evaluation.request, testing=testing, evidence=evidence)
        elif evaluation.result == "temperror" and evaluation.request != "none":
            handled = Handling("none", (_UNKNOWN,))
        examination.conclude(NAME, [_result(domain, evaluation)])
        if self._asks_for_reports(evaluation) and not (
            evaluation.result == "pass" and begun.is_report
        ):
            self._take_note(session, examination, domain, evaluation, handled, found)
        return _answer(domain, handled.action)

    def _without_domain(self, found: Author, examination: Examination) -> Answers:
        if not found.fault:
            examination.conclude(NAME, [MethodResult(NAME, "none")])
            return None
        # RFC 9989 §11.5: a reader may be shown any of several domains, and none was checked.
        examination.conclude(NAME, [MethodResult(NAME, "permerror", found.fault)])
        return Quarantine(f"DMARC: {found.fault}") if self._enforced else None

    def _asks_for_reports(self, evaluation: Evaluation) -> bool:
        policy = evaluation.policy
        return (
            self._observe is not None and policy is not None and bool(policy.published.record.rua)
        )

    def _take_note(
        self,
        session: PolicySession,
        examination: Examination,
        domain: str,
        evaluation: Evaluation,
        handled: Handling,
        found: Identified,
    ) -> None:
        """Hand on what the report to the domain needs."""
        policy, address = evaluation.policy, session.address
        if self._observe is None or policy is None or not address:
            return
        passes = evaluation.result == "pass" and evaluation.request != "none"
        ranked = found.ranked(domain, evaluation.dkim.domain)
        row = Row(
            source=_plain(address),
            disposition="pass" if passes else handled.action,
            dkim=evaluation.dkim.result == "pass",
            spf=evaluation.spf.result == "pass",
            reasons=handled.reasons,
            header_from=domain,
            envelope_from=examination.sender.domain if examination.sender else "",
            signatures=tuple(ranked[:MOST_SIGNATURES]),
            spf_domain=found.spf_domain,
            spf_result=found.spf_result,
        )
        self._observe(Observation(policy.published, row))


def _result(domain: str, evaluation: Evaluation) -> MethodResult:
    properties = [("header.from", domain)]
    comment = ""
    if evaluation.policy is not None:
        published = evaluation.policy.published
        record = published.record
        tags = (("p", record.p), ("sp", record.sp), ("np", record.np))
        asked = [f"{name}={value}" for name, value in tags if value is not None]
        if record.testing:
            asked.append("t=y")
        comment = f"{' '.join(asked)} at {published.domain}"
        if evaluation.result == "fail":
            # The policy after all options, as the registry of RFC 8601 §6.2 has it for DMARC.
            request = lowered(evaluation.request) if record.testing else evaluation.request
            properties.append(("policy.dmarc", request))
    return MethodResult(NAME, evaluation.result, evaluation.reason, tuple(properties), comment)


def _answer(domain: str, action: str) -> Answers:
    if action == "reject":
        # RFC 7372 §3.3: 5.7.26, multiple authentication checks failed.
        return Reply.of(
            550,
            "7.26",
            f"DMARC: neither SPF nor DKIM shows that the mail is from {domain},",
            "whose policy asks to refuse such mail",
        )
    if action == "quarantine":
        return Quarantine(
            f"DMARC: mail from {domain} that neither SPF nor DKIM shows to be its own"
        )
    return None


def _plain(address: str) -> str:
    """Return the IP address of a socket without scope; IPv4 mapped into IPv6 is IPv4."""
    parsed = ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return str(mapped or parsed)
