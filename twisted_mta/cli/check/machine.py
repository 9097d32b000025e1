"""The machine that a check is run on, as far as tests want another one."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from ...dns import ResolvConf, read_hosts, read_resolv_conf
from ...interfaces import WallTime
from ...system.files import DiskFiles
from ...system.real_world import wall_time


def _descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a start asks for all that there are


@frozen(kw_only=True)
class Machine:
    """What the settings are held against; the real machine, unless told otherwise.

    Attributes:
        wall_time: what time people say it is.
        user: returns the effective user id.
        descriptors: returns how many files a process may have open (RLIMIT_NOFILE); negative is
            without limit.
        free: returns how many octets can be written on the file system of a path.
        hosts: returns addresses by name that go before the DNS.
        resolution: returns how the system resolves names.
        proc: where Linux shows its processes.
    """

    wall_time: WallTime = wall_time
    user: Callable[[], int] = os.geteuid
    descriptors: Callable[[], int] = _descriptors
    free: Callable[[str], int] = DiskFiles().free
    hosts: Callable[[], Mapping[str, Sequence[str]]] = read_hosts
    resolution: Callable[[], ResolvConf] = read_resolv_conf
    proc: str = "/proc"
