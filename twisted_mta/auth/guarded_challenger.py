"""An application's challenger of ``twisted.mail``, guarded: what it raises is logged, and 454."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from ..smtp.sasl.evidence import Foreign
from ..smtp.sasl.exchange import SASLError, SASLUnavailable
from ..smtp.sasl.server import ChallengeOrEvidence, Challenger, Circumstances
from .withheld import withheld


class GuardedChallenger(Challenger):
    """A mechanism by a challenger (`smtp.sasl.server.ServerMechanism`).

    Args:
        make: returns the challenger of one exchange.
        circumstances: of the session.

    Raises:
        SASLUnavailable: ``make`` fails.
    """

    _log = Logger()

    def __init__(self, make: Callable[[], Any], circumstances: Circumstances) -> None:
        try:
            challenger = make()
        except Exception as error:
            raise self._unavailable(error) from None
        super().__init__(circumstances, challenger)

    def begin(self, initial: bytes | None) -> ChallengeOrEvidence:
        """Return the first challenge, unless there is an initial response."""
        return self._guarded(super().begin, initial)

    def respond(self, response: bytes) -> ChallengeOrEvidence:
        """Return the next challenge, or the credentials."""
        return self._guarded(super().respond, response)

    def _guarded(self, step: Callable[[Any], object], octets: bytes | None) -> ChallengeOrEvidence:
        try:
            result = step(octets)
            if not isinstance(result, bytes | Foreign):
                raise TypeError("expected a challenge of octets")
        except SASLError:
            raise
        except Exception as error:
            raise self._unavailable(error) from None
        return result

    def _unavailable(self, error: Exception) -> SASLUnavailable:
        self._log.failure("a challenger failed", withheld(error))
        return SASLUnavailable("a challenger failed")
