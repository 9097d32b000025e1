"""The tests of twisted-mta, under trial and under pytest."""

import os
import sys

import hypothesis as _hypothesis

# Tests start the package some 300 times. Where Python is told to write no compiled files, as in
# many containers, each start would compile 300 modules: half of its time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# On a busy machine an example may take long, which says nothing about the program.
_hypothesis.settings.register_profile(
    "tests", deadline=None, suppress_health_check=[_hypothesis.HealthCheck.too_slow]
)
_hypothesis.settings.load_profile("tests")
