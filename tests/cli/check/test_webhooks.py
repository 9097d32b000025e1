"""Findings about the files of webhooks."""

import os
from typing import Any

from tests.cli.check.checking import CheckTestCase
from twisted_mta.config import WebhookSettings
from twisted_mta.webhooks.signature import written

URL = "https://app.example/hook"


class WebhookFiles(CheckTestCase):
    def secret(self, content: str, mode: int = 0o600) -> str:
        path = self.write("secret", content)
        os.chmod(path, mode)
        return path

    def of(self, secret_file: str, **settings: Any) -> list[str]:
        hook = WebhookSettings(url=f"{URL}?key=hidden", secret_file=secret_file, **settings)
        return self.found(self.config(webhooks=(hook,)))

    def test_good_files_are_no_finding(self) -> None:
        self.assertEqual(self.of(self.secret(f"{written(b'1' * 32)}\n")), [])

    def test_a_file_of_secrets_that_cannot_be_used_is_an_error(self) -> None:
        for path, problem in (
            (self.path("nothing"), "cannot be read: No such file or directory"),
            (self.secret("confidential"), "line 1: it does not begin with whsec_"),
        ):
            [finding] = self.of(path)
            self.assertTrue(finding.startswith(f"error: [[webhook]] {URL}: DIR/"), finding)
            self.assertIn(problem, finding)
            self.assertNotIn("confidential", finding)
        [finding] = self.of(self.secret(f"{written(b'1' * 32)}\n", mode=0o644))
        self.assertIn("found mode 0644, expected 0600 or 0640", finding)

    def test_authorities_that_cannot_be_read_are_an_error(self) -> None:
        good = self.secret(f"{written(b'1' * 32)}\n")
        [finding] = self.of(good, authorities=self.path("nothing.pem"))
        self.assertIn("DIR/nothing.pem", finding)
