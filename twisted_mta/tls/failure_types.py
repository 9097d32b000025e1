"""Why a server was not verified, in the terms of reports on TLS (RFC 8460 §4.3)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..mail.tls_result import ResultType
from .certificates import chain_error

# By the error of OpenSSL.
_TYPES: Mapping[str, ResultType] = {
    **{
        chain_error(number): "certificate-not-trusted"
        for number in (2, 7, 18, 19, 20, 21, 24, 27, 28)
    },
    chain_error(9): "certificate-expired",  # or not valid yet
    chain_error(10): "certificate-expired",
}

# `client.name_problem`: other names, or none that counts.
_OTHER_NAME = re.compile(r"its certificate (?:is not for (?!servers\Z)|cannot be compared with )")
_NO_ANCHOR = "its chain leads to no certificate of its TLSA records"  # `dane.verify`


def failure_type(problem: str) -> ResultType:
    """Return the type of a failed verification.

    Args:
        problem: the reasons, with semicolons between them, as `ClientContexts.verify` returns them.
            The first one that has a type of its own counts.
    """
    for reason in problem.split("; "):
        if reason.startswith(_NO_ANCHOR):
            return "certificate-not-trusted"
        if reason in _TYPES:
            return _TYPES[reason]
        if _OTHER_NAME.match(reason):
            return "certificate-host-mismatch"
    return "validation-failure"
