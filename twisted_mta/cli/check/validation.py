"""Whether a name server validates by DNSSEC, and is believed: then there is DANE."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

from attrs import frozen

from ...config import Config
from ...dns import ResolvConf
from ...mail.next_hop import Host
from ..questions import Answer, NoAnswer, Questions
from .finding import Finding

# RFC 6303 §4.1: a zone of private addresses, which cannot be signed.
_UNSIGNED = "10.in-addr.arpa"


@frozen
class Proof:
    """What a name server does with names of which the truth is known.

    Attributes:
        signed: whether it says that the answer about a signed name is proven (AD).
        unsigned: whether it says so of a zone that cannot be signed.
        forged: whether it answers about a name whose signatures are wrong; None: it gave no answer,
            and no sign that it had looked at the signatures.
    """

    signed: bool
    unsigned: bool = False
    forged: bool | None = None

    @property
    def lies(self) -> bool:
        """Whether what it calls proven is not."""
        return self.signed and (self.unsigned or self.forged is True)

    @property
    def validates(self) -> bool:
        """Whether it refuses forged answers, and says what is proven."""
        return self.signed and not self.unsigned and self.forged is False


def proof(config: Config, nameserver: Host, questions: Questions) -> Proof:
    """Ask a name server for a signed name, for one whose signatures are wrong, and a third one.

    Raises:
        TooLate: the time for all questions is over.
    """
    signed = _asked(questions, nameserver, config.dns.signed_name)
    if signed is None or not signed.authenticated:
        return Proof(False)
    unsigned = _asked(questions, nameserver, _UNSIGNED)
    forged: bool | None = True
    try:
        questions.ask(nameserver, config.dns.bogus_name, "A")
    except NoAnswer as error:
        forged = False if str(error) == "SERVFAIL" else None  # RFC 4035 §5.5
    return Proof(True, unsigned is not None and unsigned.authenticated, forged)


def _asked(questions: Questions, nameserver: Host, name: str) -> Answer | None:
    with suppress(NoAnswer):
        return questions.ask(nameserver, name, "SOA")
    return None


def believed(config: Config, system: ResolvConf, nameserver: Host) -> bool:
    """Whether the AD bit of a name server is believed."""
    if config.dns.trust_ad or ip_address(nameserver.name.partition("%")[0]).is_loopback:
        return True
    return config.dns.nameservers is None and system.trust_ad


def finding(
    config: Config, nameserver: Host, found: Proof, *, seconds: float, trusted: bool
) -> Finding:
    """Return what the proof of a name server means.

    Args:
        config: the settings.
        nameserver: its address.
        found: the proof.
        seconds: that an answer took.
        trusted: whether it is `believed`.
    """
    where = f"[dns] nameservers, {nameserver}"
    signed, bogus = config.dns.signed_name, config.dns.bogus_name
    took = f"it answers within {seconds * 1000:.0f} ms"
    remedy = "use a validating resolver on this machine"
    if found.lies:
        lie = "unsigned zones" if found.unsigned else f"{bogus}, whose signatures are wrong"
        said = f"{took}, and does not validate: it sets AD, and takes {lie}"
        if found.unsigned:
            said = f"{took}, and does not validate: it sets AD even for {lie}"
        if trusted:
            return Finding("warning", where, f"{said}; it is believed all the same", remedy)
        return Finding("note", where, f"{said}: it must not be trusted")
    if not found.signed:
        said = f"{took}, and does not validate: it does not set AD for {signed}: without DANE"
        demanding = [each.name for each in config.all_destinations if each.tls == "dane"]
        if demanding:
            waits = f'; mail to {", ".join(demanding)}, with tls = "dane", is deferred'
            return Finding("warning", where, f"{said}{waits}", remedy)
        return Finding("note", where, said)
    if found.forged is None:
        said = f"{took}, and sets AD for {signed}; it gave no answer about {bogus}"
    else:
        said = f"{took}, and validates: {signed} is proven, {bogus} is refused"
    if trusted:
        return Finding("note", where, f"{said}: with DANE")
    return Finding(
        "note",
        where,
        f"{said}; but it is on another machine, and other hosts on the path could forge its"
        " answers: without DANE",
        f"{remedy}, or, if the path is safe, set trust_ad",
    )


def mixed(proofs: list[tuple[Host, Proof]]) -> Finding | None:
    """Return the finding that name servers that validate stand beside others; None: they do not."""
    others = [str(host) for host, each in proofs if not each.validates]
    if not others or len(others) == len(proofs):
        return None
    return Finding(
        "warning",
        "[dns] nameservers",
        f"{', '.join(others)} does not validate, and others do: forged answers that these refuse"
        " are looked up there",
        "name only those that validate",
    )
