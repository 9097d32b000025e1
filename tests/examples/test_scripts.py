"""Each example starts as a script, takes mail, and ends with a signal."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.test_types import ROOT

from .running import EXAMPLES

# Its arguments, a recipient, and the reply that this gets.
SCRIPTS: dict[str, tuple[list[str], str, int]] = {
    "after_queue_filter": (["box.example", "0", "1", "0"], "bob@box.example", 250),
    "ask_http_service": (["box.example", "http://127.0.0.1:1/", "0"], "bob@box.example", 451),
    "deliver_to_database": (["box.example", "0"], "bob@box.example", 250),
    "deliver_to_webhook": (["box.example", "http://127.0.0.1:1/", "0"], "bob@box.example", 250),
    "forward_by_rules": (["box.example", "fwd@box.example", "0"], "bob@box.example", 250),
    "mailing_list": (["list@box.example", "members", "0"], "list@box.example", 250),
    "replace_twisted_mail": (["0"], "console@localhost", 250),
    "restart": (["0"], "bob@localhost", 250),
    "save_attachments": (["files", "box.example", "0"], "bob@box.example", 250),
    "sink": (["0"], "bob@box.example", 250),
    "web_application": (["0"], "", 0),
}
CLIENTS = ["send_mail"]
"""Scripts that serve nothing: `test_sending` runs them."""

RECEIVERS = ["webhook_receiver"]
"""Scripts that take events of mail: `functional.test_webhooks` runs them."""

_READY = re.compile(r"^.*(?:ready:? |starting on )([^\n]*)\n", re.MULTILINE)
_PORT = re.compile(r"(?:127\.0\.0\.1:|^)([1-9][0-9]*)\b")


class Scripts(SynchronousTestCase):
    timeout = 60  # seconds

    def test_every_script_is_tried(self) -> None:
        scripts = sorted(each.stem for each in EXAMPLES.glob("*.py"))
        self.assertEqual(scripts, sorted([*SCRIPTS, *CLIENTS, *RECEIVERS]))

    def test_the_page_shows_each_of_them(self) -> None:
        page = (ROOT / "docs" / "examples.rst").read_text(encoding="utf-8")
        shown = re.findall(r"literalinclude:: examples/(.+)", page)
        files = sorted(each.name for each in EXAMPLES.iterdir() if each.is_file())
        self.assertEqual(sorted(shown), files)
        for name in shown:
            self.assertIn(f"     - `{name}`_\n", page)

    def test_it_takes_mail_and_ends_with_a_signal(self) -> None:
        for name in SCRIPTS:
            self.run_script(name)

    def run_script(self, name: str) -> None:
        arguments, recipient, code = SCRIPTS[name]
        directory = Path(self.mktemp())
        (directory / "files").mkdir(parents=True)
        (directory / "members").write_text("ann@sender.example\n")
        script = subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / f"{name}.py", *arguments],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            assert script.stdout
            ready = None
            while ready is None:
                line = script.stdout.readline()
                self.assertTrue(line, f"{name} has ended")
                ready = _READY.match(line)
            if recipient:
                port = _PORT.search(ready[1])
                assert port, ready[1]
                self.assertEqual(self.reply(int(port[1]), recipient), code, name)
            script.send_signal(signal.SIGTERM)
            rest, _ = script.communicate(timeout=30)
            self.assertIn(script.returncode, (0, -signal.SIGTERM), rest)
            if "http://127.0.0.1:1/" not in arguments:  # nothing listens there
                self.assertNotIn("Traceback", rest)
        finally:
            if script.poll() is None:
                script.kill()
                script.communicate()

    def reply(self, port: int, recipient: str) -> int:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            try:
                client.sendmail("ann@sender.example", recipient, "Subject: Hi\r\n\r\nHello.\r\n")
            except smtplib.SMTPRecipientsRefused as error:
                return int(next(iter(error.recipients.values()))[0])
        return 250
