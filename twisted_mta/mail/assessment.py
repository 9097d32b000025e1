"""What policies found out about a message: kept with it in the queue."""

from __future__ import annotations

from attrs import frozen


@frozen
class Verdict:
    """What one policy found out about a message, or about its client.

    Attributes:
        policy: the name of the policy: ``spf``, ``dkim``, ``dmarc``, ….
        result: one word: ``pass``, ``fail``, ``none``, ``temperror``, ``refuse``, ….
        text: what the word is about, for people: ``example.net (2048 bits)``; may be empty.
            Printable.
    """

    policy: str
    result: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.policy}={self.result}" + (f" ({self.text})" if self.text else "")


@frozen
class Assessment:
    """What is known of the origin of a message.

    Attributes:
        verdicts: in the order in which the policies stand.
        quarantine: why the message belongs among junk; empty where it does not. Printable.
        signs: whether the message may be signed for the domain of its From field: it comes from us,
            or from a client of ours that may use the address there.
        own: whether it is mail of our own users or application that came without a session in which
            single recipients can be refused.
        hold: why the message is held in the queue from the start; empty where it is not. Printable.
    """

    verdicts: tuple[Verdict, ...] = ()
    quarantine: str = ""
    signs: bool = False
    hold: str = ""
    own: bool = False


UNKNOWN = Assessment()
"""The assessment of a message that no policy was asked about."""
