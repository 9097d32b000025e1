"""The tests of twisted-mta, under trial and under pytest."""

import os
import sys

# Tests start the package some 300 times. Where Python is told to write no compiled files, as in
# many containers, each start would compile 300 modules: half of its time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
