"""Checks that ask name servers about the records of our domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...config import Config
from ..questions import Declined, NoAnswer, Questions, TooLate
from .finding import Finding
from .machine import Machine

Check = Callable[[Config, Questions, Machine], Iterator[Finding]]
"""Yields findings; `TooLate` of the questions comes through."""


def asked(config: Config, machine: Machine, check: Check, *, seconds: float) -> Iterator[Finding]:
    """Yield the findings of a check, with questions to the name servers that answer. Blocks.

    Args:
        config: the settings.
        machine: gives the system's name servers.
        check: asks.
        seconds: for all questions together.
    """
    questions = Questions([], machine.wall_time() + seconds, machine.wall_time)
    try:
        for nameserver in config.dns.nameservers or machine.resolution().nameservers:
            try:
                questions.ask(nameserver, ".", "SOA")
            except Declined:
                pass  # it may know our domains alone
            except NoAnswer:
                continue  # a finding of the check of names
            questions.nameservers.append(nameserver)
        if not questions.nameservers:
            yield Finding("fail", "DNS", "no name server answers", "check again later")
            return
        yield from check(config, questions, machine)
    except TooLate:
        yield Finding(
            "fail",
            "DNS",
            f"not all questions were answered within {seconds:.0f} s, and the others were left out",
            "check again, or name faster servers",
        )
