"""Our own policy: of which domains it is, what it says, and the record that announces it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from ...config import Config
from .policy import Policy

_ID_DIGITS = 20  # RFC 8461 §3.1: at most 32


def own_domains(config: Config) -> Sequence[str]:
    """Return the domains that the policy is published for: ours that others can look up."""
    domains = dict.fromkeys((*config.local_domains, *config.virtual_domains))
    return [each for each in domains if "." in each and not each.startswith("[")]


def own_policy(config: Config) -> Policy:
    """Return the policy of all our domains.

    Without a list in the settings our host name is the only exchanger: answers of the DNS are what
    the policy protects from.
    """
    settings = config.mta_sts
    exchangers = settings.mx or (config.hostname.lower(),)
    return Policy(settings.mode, int(settings.max_age), exchangers)


def record(policy: Policy) -> str:
    """Return the text of the TXT record ``_mta-sts.DOMAIN`` for a policy.

    Its id changes with the policy, and only then (RFC 8461 §3.1).
    """
    return f"v=STSv1; id={sha256(policy.body).hexdigest()[:_ID_DIGITS]};"
