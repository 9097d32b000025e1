"""What an application adds to an agent: policy, deliveries, checkers of logins, extensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import field, frozen
from twisted.cred.checkers import ICredentialsChecker

from ..delivery.application_deliveries import checked_deliveries
from ..delivery.application_delivery import ApplicationDelivery
from ..server.application_extensions import guarded_extensions
from ..smtp.extension import Extension


def _checkers(given: Any) -> tuple[ICredentialsChecker, ...]:
    several = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(map(ICredentialsChecker.providedBy, several)):
        raise TypeError(f"checkers: found {given!r}, expected a sequence of ICredentialsChecker")
    return several


@frozen(kw_only=True)
class Application:
    """The objects of an application that an agent calls.

    Attributes:
        policy: decides on clients and their mail (`policy.protocol.Policy`); None: there is none.
        policy_timeout: seconds for each of its answers.
        deliveries: deliver the mail of the routes ``deliver:name``, by name.
        delivery_timeout: seconds for each of their answers.
        checkers: judge AUTH, besides those of the settings, and before them.
        extensions: of ESMTP, besides the standard ones; spoken on every listener and, where a next
            hop announces them, to that.

    Raises:
        TypeError: a sequence or mapping holds something else.
        ValueError: ``policy_timeout`` is not above 0, or a route cannot name a delivery.
    """

    policy: object | None = None
    policy_timeout: float = field(default=5.0, validator=attrs.validators.gt(0))
    deliveries: Mapping[str, ApplicationDelivery] = field(
        factory=dict, converter=checked_deliveries
    )
    delivery_timeout: float = 300.0
    checkers: tuple[ICredentialsChecker, ...] = field(default=(), converter=_checkers)
    extensions: tuple[Extension, ...] = field(default=(), converter=guarded_extensions)

    @property
    def given(self) -> list[str]:
        """The names of those arguments that an application has given."""
        given = {
            "policy": self.policy is not None,
            "deliveries": self.deliveries,
            "checkers": self.checkers,
            "extensions": self.extensions,
        }
        return [name for name, is_given in given.items() if is_given]
