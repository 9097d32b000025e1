"""``python -m tests.benchmark.signing``: what signatures cost a message of 4 KiB, end to end.

MTAs without keys, with an RSA key of 2,048 bits, with an Ed25519 key, and with both get the same
messages, one MTA after the other in each round, and relay them to a sink. The cost is the
difference in CPU time to the MTA without keys, of the whole process; the figure is the median of
the rounds. Beside it stands what the bare signature costs on this machine in the same rounds: what
is left is ours.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from ..functional.machine import folder
from ..policy.dkim.key_files import write_key
from .contestant import Contestant, Field
from .load import Work, rates
from .results import OURS

_KEYS: dict[str, Sequence[str]] = {
    "no key": (),
    "RSA": ("rsa-2048",),
    "Ed25519": ("ed25519",),
    "both": ("rsa-2048", "ed25519"),
}


def tables(home: Path, kinds: Sequence[str]) -> str:
    """Write keys for the domain of the generator; return their tables of the configuration."""
    lines = []
    for kind in kinds:
        path = write_key(str(home / f"{kind}.pem"), kind)
        lines.append(f'[[dkim]]\ndomain = "sender.example"\nselector = "{kind}"\nkey = "{path}"\n')
    return "".join(lines)


class BareSignatures:
    """What signatures alone cost, without a message around them."""

    def __init__(self) -> None:
        self._rsa = rsa.generate_private_key(65_537, 2048)
        self._ed25519 = ed25519.Ed25519PrivateKey.generate()
        self.found: dict[str, list[float]] = {kind: [] for kind in _KEYS}

    def measure(self, signatures: int = 200) -> None:
        """Add the CPU time (µs) of one signature of each kind, on average over so many."""
        started = time.process_time()
        for _ in range(signatures):
            self._rsa.sign(b"x" * 900, PKCS1v15(), SHA256())
        between = time.process_time()
        for _ in range(signatures):
            self._ed25519.sign(b"x" * 32)
        ended = time.process_time()
        of_rsa, of_ed25519 = (
            (between - started) * 1e6 / signatures,
            (ended - between) * 1e6 / signatures,
        )
        for kind, cost in zip(_KEYS, (0.0, of_rsa, of_ed25519, of_rsa + of_ed25519), strict=True):
            self.found[kind].append(cost)


def measured(
    contestants: Sequence[Contestant], bare: BareSignatures, work: Work, rounds: int
) -> list[list[float]]:
    """Return the CPU time (µs) of a message in each round, for each contestant."""
    found: list[list[float]] = [[] for _ in contestants]
    for number in range(rounds + 1):
        bare.measure()
        for contestant, figures in zip(contestants, found, strict=True):
            cpu = rates(contestant, work)["CPU µs/message"]
            if number:  # the first round warms them up
                figures.append(cpu)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.signing", description=__doc__)
    parser.add_argument("--messages", type=int, default=1000, help="in each round (1000)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    work = Work(messages=options.messages)
    with folder("signing") as place, contextlib.ExitStack() as stack:
        home = Path(place)
        field = Field(home)
        contestants = [
            stack.enter_context(field.contestant(OURS, toml=tables(home, kinds)))
            for kinds in _KEYS.values()
        ]
        bare = BareSignatures()
        found = measured(contestants, bare, work, options.rounds)
    print("keys".ljust(10), "CPU µs/message", "  of signing", "  bare signature")
    for name, figures in zip(_KEYS, found, strict=True):
        cost = median(each - off for each, off in zip(figures, found[0], strict=True))
        alone = median(bare.found[name])
        print(name.ljust(10), f"{median(figures):14.0f} {cost:12.0f} {alone:16.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
