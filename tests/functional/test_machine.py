"""Programs of the machine that are missing or do not work skip the tests that need them."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from . import machine
from .machine import folder, need
from .program import Program

_FAULTS = {
    "is not installed": None,
    "may not be executed": (0o644, "echo OpenSSL 3.0.0"),
    "does not work, or has another version: openssl version: cannot open shared object file": (
        0o755,
        "echo cannot open shared object file; exit 127",
    ),
    "does not work, or has another version: openssl version: exit status 3": (0o755, "exit 3"),
    "does not work, or has another version: openssl version: OpenSSL 0.9.8": (
        0o755,
        "echo OpenSSL 0.9.8",
    ),
}
"""Contents of a program that cannot be used (None: there is none), by the reason."""


class Unstartable(Program):
    """A program of others that ends at its start, like a half-installed Dovecot."""

    foreign = True

    def start(self) -> None:
        self.spawn(["sh", "-c", "echo cannot load a plugin; exit 89"])
        self.wait_for(lambda: False, "it listens")


class OursUnstartable(Unstartable):
    """The same as a program of this project."""

    foreign = False


class Need(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = self.enterContext(folder("machine"))
        self.patch(machine, "PATH", str(self.home))
        self.patch(os, "environ", {n: v for n, v in os.environ.items() if n != "CI"})

    def install(self, name: str, mode: int, script: str) -> Path:
        program = self.home / name
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        program.chmod(mode)
        return program

    def test_a_program_that_cannot_be_used_skips_the_test_and_the_reason_says_why(self) -> None:
        for reason, installed in _FAULTS.items():
            machine._fault.cache_clear()
            if installed is not None:
                self.install("openssl", *installed)
            skipped = self.assertRaises(SkipTest, need, "openssl")
            self.assertIn(reason, str(skipped))

    def test_the_same_program_fails_the_test_in_continuous_integration(self) -> None:
        os.environ["CI"] = "true"
        failed = self.assertRaises(AssertionError, need, "openssl")
        self.assertIn("openssl is not installed", str(failed))

    def test_a_program_that_the_machine_forbids_skips_the_test_everywhere(self) -> None:
        self.install("unshare", 0o755, "echo Operation not permitted; exit 1")
        os.environ["CI"] = "true"
        skipped = self.assertRaises(SkipTest, need, "unshare")
        self.assertIn("Operation not permitted", str(skipped))

    def test_a_program_that_works_is_used(self) -> None:
        self.install("openssl", 0o755, "echo OpenSSL 3.5.1")
        need("openssl")

    def test_a_server_of_others_that_does_not_start_skips_the_test(self) -> None:
        skipped = self.assertRaises(SkipTest, Unstartable(self.home, "log").__enter__)
        self.assertIn("Unstartable does not start: ", str(skipped))
        self.assertIn("cannot load a plugin", str(skipped))
        os.environ["CI"] = "true"
        self.assertRaises(AssertionError, Unstartable(self.home, "log").__enter__)

    def test_a_server_of_our_own_that_does_not_start_fails_the_test(self) -> None:
        self.assertRaises(machine.Unready, OursUnstartable(self.home, "log").__enter__)
