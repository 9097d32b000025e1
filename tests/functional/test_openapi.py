"""The API as its own description says: Schemathesis makes requests of it, good and bad ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from twisted_mta.admin.openapi import document

from .forked import run_script
from .machine import LOOPBACK, cannot_run
from .mail import ProgramTestCase
from .mta import MTA, TOOL

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")

# Without those that a description cannot meet: an address is more than a schema can say
# (positive_data_acceptance), and anybody may read on loopback (ignored_auth).
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
ENDLESS = ("/v1/trace", "/v1/events")
"""Paths whose answers have no end."""

SETTINGS = """
[mta]
routes = {{"*" = "discard:"}}
[dns]
nameservers = ["127.0.0.1:1"]
timeout = "1 s"
[web]
tokens = "{tokens}"
"""


class Description(ProgramTestCase):
    def setUp(self) -> None:
        if not SCHEMATHESIS.exists():
            cannot_run("schemathesis is not installed")
        super().setUp()

    def test_the_api_answers_generated_requests_as_described(self) -> None:
        tokens = self.home / "tokens"
        made = run_script(
            [
                str(TOOL),
                "users",
                "token",
                "--file",
                str(tokens),
                "--scope",
                "read,act,submit",
                "all",
            ]
        )
        with MTA(self.home, toml=SETTINGS.format(tokens=tokens)) as mta:
            run = subprocess.run(
                [
                    *(SCHEMATHESIS, "run", f"http://{LOOPBACK}:{mta.web}/v1/openapi.json"),
                    *("--header", f"Authorization: Bearer {made.stdout.strip()}"),
                    *("--checks", ",".join(CHECKS)),
                    *(word for path in ENDLESS for word in ("--exclude-path", path)),
                    *("--phases", "examples,coverage,fuzzing", "--mode", "all"),
                    *("--max-examples", "2", "--seed", "1", "--no-shrink"),
                    *("--request-timeout", "10", "--no-color"),
                ],
                cwd=self.home,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
            described = json.loads(document("0"))["paths"]
            found = re.search(r"Operations: +(\d+) selected / (\d+) total", run.stdout)
            assert found is not None
            selected, total = map(int, found.groups())
            self.assertEqual(total - selected, len(ENDLESS))
            self.assertGreaterEqual(total, len(described))
            self.assertTrue(mta.is_ready())
            self.assertNotIn("could not be answered", mta.output())
