"""Lists in the DNS: whether their test entries are as RFC 5782 §5 wants them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from ...config import DNSBL, Config
from ...mail.printable import printable
from ..questions import NoAnswer, Questions
from .finding import Finding

_ANSWERS = IPv4Network("127.0.0.0/8")  # RFC 5782 §2.1
_MOST_SHOWN = 10  # answers
_DONE = {"refuse": "refused", "defer": "deferred"}
_MISSED = "its hits are missed, and mail goes on"

# What has to be listed, and what must not be, as names below the zone.
_OF_ADDRESSES = ("2.0.0.127", "1.0.0.127")
_OF_DOMAINS = ("test", "invalid")
_WRITTEN = {
    "2.0.0.127": "127.0.0.2",
    "1.0.0.127": "127.0.0.1",
    "test": "TEST",
    "invalid": "INVALID",
}


def lists(config: Config, questions: Questions) -> Iterator[Finding]:
    """Yield a finding on each list. No text has its zone, where that has another name: a key.

    Raises:
        TooLate: the deadline of all questions has passed.
    """
    for settings in config.dnsbl:
        where = f"[[dnsbl]] {settings.name}, of {settings.of}"
        try:
            yield _of(settings, where, questions)
        except NoAnswer as error:
            why = re.sub(re.escape(settings.zone), settings.name, str(error), flags=re.IGNORECASE)
            yield Finding(
                "warning",
                where,
                f"no answer: {printable(why)}: {_MISSED}",
                "check again later; remove the list if it stays so",
            )


def _of(settings: DNSBL, where: str, questions: Questions) -> Finding:
    listed, unlisted = _OF_ADDRESSES if settings.of == "client" else _OF_DOMAINS
    start = questions.wall_time()
    found = _answers(settings, listed, questions)
    seconds = questions.wall_time() - start
    refusals = [each for each in found if settings.refuses(each)]
    if refusals:
        return Finding(
            "warning",
            where,
            f"its operator refuses our queries: it answers {_shown(refusals)}: {_MISSED}",
            "ask it by way of a name server of your own, or get a key from its operator",
        )
    foreign = [each for each in found if each not in _ANSWERS]
    if foreign:
        return Finding(
            "warning",
            where,
            f"it is no list any more: it answers {_shown(foreign)} for {_WRITTEN[listed]}, which"
            " is not in 127.0.0.0/8",
            "remove it",
        )
    if not found:
        what = f"it does not list its test entry {_WRITTEN[listed]}: it is empty, or a key is wrong"
        if not questions.lookup(f"{settings.zone}.", "SOA").exists:
            what = "its zone does not exist"
        return Finding(
            "warning",
            where,
            f"{what}: {_MISSED}",
            "see what its operator says, and correct or remove it",
        )
    everyone = [each for each in _answers(settings, unlisted, questions) if settings.is_hit(each)]
    if everyone:
        refuses = settings.action != "mark"
        return Finding(
            "error" if refuses else "warning",
            where,
            f"it lists {_WRITTEN[unlisted]} ({_shown(everyone)}), which no list may (RFC 5782 §5):"
            " it lists the whole world"
            + (f", and all mail of strangers is {_DONE[settings.action]}" if refuses else ""),
            "remove it",
        )
    hits = [each for each in found if settings.is_hit(each)]
    said = f"lists its test entry {_WRITTEN[listed]} ({_shown(found)})"
    if not hits:
        said += ", of which answers has none"
    return Finding("note", where, f"it {said} within {seconds * 1000:.0f} ms")


def _answers(settings: DNSBL, labels: str, questions: Questions) -> Sequence[IPv4Address]:
    answer = questions.lookup(f"{labels}.{settings.zone}.", "A")
    return sorted(IPv4Address(each.address) for each in answer.records)


def _shown(answers: Sequence[IPv4Address]) -> str:
    return ", ".join(map(str, answers[:_MOST_SHOWN]))
