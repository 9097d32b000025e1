"""``twisted-mta-sendmail`` starts in an instant: it loads none of the libraries of the MTA."""

import subprocess
import sys

from tests.tidy import TidyTestCase

_HEAVY = ("twisted", "attr", "attrs", "typing", "click", "email", "ssl", "json", "asyncio")


class Start(TidyTestCase):
    def test_the_program_loads_the_standard_library_alone(self) -> None:
        code = (
            "import sys; before = set(sys.modules)\n"
            "import twisted_mta.submitter.command\n"
            "print(*sorted(set(sys.modules) - before))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
        )
        loaded = done.stdout.split()
        self.assertEqual([name for name in _HEAVY if name in loaded], [])
        self.assertLess(len(loaded), 60)
