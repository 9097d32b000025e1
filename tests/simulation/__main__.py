"""Runs `tests.simulation.command`: other processes cannot import what is defined here."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
