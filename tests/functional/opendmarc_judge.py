"""Asks Debian's library of OpenDMARC about cases: JSON on standard input, JSON on standard output.

It runs in a process of its own, which a fault of the library ends alone. The records come from a
table, and no query leaves the process.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

LIBRARY = "libopendmarc.so.2"
_RESULTS = {"none": 0, "pass": 1, "fail": 2, "temperror": 3}
_POLICIES = {14: "absent", 15: "pass", 16: "reject", 17: "quarantine", 18: "none"}
_ALIGNED = 4


def judge(library: Any, case: Mapping[str, Any]) -> Sequence[str]:
    """Return what the library says: the status of the query, the policy, DKIM, SPF.

    Args:
        library: the library.
        case: ``author``: the domain of From; ``spf``: domain and result; ``dkim``: the same for
            each signature.
    """
    context = library.opendmarc_policy_connect_init(b"192.0.2.1", 4)
    try:
        library.opendmarc_policy_store_from_domain(context, case["author"].encode())
        domain, result = case["spf"]
        library.opendmarc_policy_store_spf(context, domain.encode(), _RESULTS[result], 1, b"")
        for domain, result in case["dkim"]:
            library.opendmarc_policy_store_dkim(
                context, domain.encode(), b"s", _RESULTS[result], b""
            )
        status = library.opendmarc_policy_query_dmarc(context, case["author"].encode())
        if status != 0:
            return ("absent", "", "")
        policy = library.opendmarc_get_policy_to_enforce(context)
        dkim, spf = ctypes.c_int(), ctypes.c_int()
        library.opendmarc_policy_fetch_alignment(context, ctypes.byref(dkim), ctypes.byref(spf))
        return (
            _POLICIES.get(policy, f"status {policy}"),
            "pass" if dkim.value == _ALIGNED else "fail",
            "pass" if spf.value == _ALIGNED else "fail",
        )
    finally:
        library.opendmarc_policy_connect_shutdown(context)


def main() -> None:
    question = json.load(sys.stdin)
    library = ctypes.CDLL(LIBRARY)
    library.opendmarc_policy_connect_init.restype = ctypes.c_void_p
    for name in (
        "store_from_domain",
        "store_spf",
        "store_dkim",
        "query_dmarc",
        "fetch_alignment",
        "connect_shutdown",
    ):
        function = getattr(library, f"opendmarc_policy_{name}")
        function.argtypes = {
            "store_from_domain": [ctypes.c_void_p, ctypes.c_char_p],
            "query_dmarc": [ctypes.c_void_p, ctypes.c_char_p],
            "store_spf": [
                ctypes.c_void_p,
                ctypes.c_char_p,
                ctypes.c_int,
                ctypes.c_int,
                ctypes.c_char_p,
            ],
            "store_dkim": [
                ctypes.c_void_p,
                ctypes.c_char_p,
                ctypes.c_char_p,
                ctypes.c_int,
                ctypes.c_char_p,
            ],
            "fetch_alignment": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p],
            "connect_shutdown": [ctypes.c_void_p],
        }[name]
    library.opendmarc_get_policy_to_enforce.argtypes = [ctypes.c_void_p]
    suffixes = question["suffixes"].encode()
    assert library.opendmarc_tld_read_file(suffixes, b"//", b"*.", b"!") == 0
    for name, text in question["records"].items():
        library.opendmarc_dns_fake_record(name.encode(), text.encode())
    json.dump([judge(library, case) for case in question["cases"]], sys.stdout)


if __name__ == "__main__":
    main()
