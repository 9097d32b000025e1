"""The machine that a check runs on; tests replace parts of it."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from ...dns import ResolvConf, read_hosts, read_resolv_conf
from ...system.files import DiskFiles
from ...system.real_world import wall_time

if TYPE_CHECKING:
    from ...interfaces import WallTime


def _descriptors() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a start raises the soft limit to it


@frozen(kw_only=True)
class Machine:
    """The machine against which settings are checked; by default the real one.

    Attributes:
        wall_time: the wall clock.
        user: returns the effective user id.
        descriptors: returns the number of files that a process may open (RLIMIT_NOFILE); negative:
            no limit.
        free: returns the free octets on the file system of a path.
        hosts: returns addresses by name, which precede the DNS (``/etc/hosts``).
        resolution: returns the resolver configuration (``/etc/resolv.conf``).
        proc: the path of procfs.
    """

    wall_time: WallTime = wall_time
    user: Callable[[], int] = os.geteuid
    descriptors: Callable[[], int] = _descriptors
    free: Callable[[str], int] = DiskFiles().free
    hosts: Callable[[], Mapping[str, Sequence[str]]] = read_hosts
    resolution: Callable[[], ResolvConf] = read_resolv_conf
    proc: str = "/proc"
