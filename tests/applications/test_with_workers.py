"""An application submits mail to worker processes, which die now and then."""

import json
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase


class WithWorkers(SynchronousTestCase):
    def test_an_application_submits_observes_and_steers_whatever_worker_dies(self) -> None:
        state = Path(self.mktemp()).absolute()
        done = subprocess.run(
            [sys.executable, "-m", "tests.applications.with_workers", str(state)],
            capture_output=True,
            text=True,
            timeout=100,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        seen = json.loads(done.stdout)
        kept, refused, fates = (seen.pop(each) for each in ("kept", "refused", "fates"))
        self.assertEqual(
            seen,
            {
                "early": ["Delivered"],
                "ports": ["smtp"],
                "attachment": ["Delivered"],
                "late": ["Delivered"],
                "events": ["Accepted", "Delivered"],
                "steered": [1, True, ["Removed"]],
                "steps": ["Accepted", "Deferred", "Held", "Removed"],
                "taken over": [["Removed"]] * 4,
                "left": [],
                "stopped": "RuntimeError",
            },
        )
        self.assertEqual(len(kept) + len(refused), 36)
        self.assertEqual(fates.get("Delivered"), len(kept))
        self.assertLessEqual(set(fates), {"Delivered", "451"})
        self.assertGreaterEqual(len(kept), 12)
        for name in kept:
            # A delivery that was cut off may be made again; the message was stored once.
            self.assertEqual(len(self.ids(state, name)), 1, name)
        for name in refused:
            self.assertEqual(self.ids(state, name), {}, name)

    def ids(self, state: Path, name: str) -> dict[bytes, None]:
        """Return the queue ids of the mail in a mailbox."""
        new = state / "maildir" / "localhost" / name.partition("@")[0] / "new"
        found = [
            re.findall(rb"^Received: by mta\.example id (\w+)", mail.read_bytes(), re.MULTILINE)
            for mail in (new.iterdir() if new.is_dir() else ())
        ]
        return dict.fromkeys(id for ids in found for id in ids)
