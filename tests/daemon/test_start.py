"""The program starts fast: a plain configuration imports no part that it does not use."""

import subprocess
import sys

from tests.tidy import TidyTestCase

# What few configurations name, and what a question of an operator or a scrape needs.
_UNUSED = (
    "prometheus_client",
    "psycopg",
    "rich",
    "click",
    "twisted.mail.smtp",
    "twisted.names",
    "twisted.web.client",
    "twisted.web.template",
    "twisted_mta.admin.captured_mail",
    "twisted_mta.admin.web.challenge_host",
    "twisted_mta.admin.web.policy_host",
    "twisted_mta.agent.certificate_renewal",
    "twisted_mta.agent.shared_queue",
    "twisted_mta.attachment",
    "twisted_mta.cli",
    "twisted_mta.inbox_message",
    "twisted_mta.policy.delegation",
    "twisted_mta.policy.milter",
    "twisted_mta.queue.store.postgresql",
    "twisted_mta.sending",
    "twisted_mta.submitter",
    "twisted_mta.testing",
    "twisted_mta.tls.acme",
    "twisted_mta.workers.workers",
)

_SECONDS = 6.0
"""Of processor time for all imports: half a second, with room for slow machines and coverage."""

_IMPORTED = """
import sys, time
from twisted.internet import reactor
from twisted_mta.daemon import Options, makeService
options = Options()
options.parseOptions(["--state-dir", sys.argv[1]])
makeService(options)
print(time.process_time(), *sorted(sys.modules))
"""


class Start(TidyTestCase):
    def test_a_plain_configuration_imports_only_what_it_uses(self) -> None:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORTED, self.mktemp()],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds, *imported = done.stdout.split()
        self.assertIn("twisted_mta.agent.agent", imported)
        self.assertEqual([name for name in _UNUSED if name in imported], [])
        self.assertLess(float(seconds), _SECONDS)

    def test_collections_of_garbage_are_as_before(self) -> None:
        code = (
            "import gc; before = gc.get_threshold()\n"
            "from twisted_mta.daemon import Options\n"
            "print(gc.get_threshold() == before, gc.isenabled())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        self.assertEqual(done.stdout, "True True\n")

    def test_a_wrong_name_is_an_attribute_error(self) -> None:
        import twisted_mta.daemon

        with self.assertRaisesRegex(AttributeError, "'twisted_mta.daemon'.*'makeServices'"):
            twisted_mta.daemon.makeServices  # type: ignore[attr-defined]  # noqa: B018
