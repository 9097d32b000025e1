"""Loads configurations that a test writes."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence

from tests.tidy import TidyTestCase
from twisted_mta.config import Config, ConfigError, load

Options = Mapping[str, Sequence[str] | str]


class ConfigTestCase(TidyTestCase):
    def load(
        self,
        options: Options | None = None,
        toml: str | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        machine: str = "mail.example.net",
    ) -> Config:
        self.file = None
        if toml is not None:
            directory = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, directory)
            self.file = os.path.join(directory, "mta.toml")
            with open(self.file, "w", encoding="utf-8") as written:
                written.write(toml)
        return load(
            options or {}, self.file, environment=environment or {}, machine_name=lambda: machine
        )

    def refusal(self, options: Options | None = None, toml: str | None = None) -> str:
        """Return the text of the error, with FILE for the path of the file."""
        error = self.assertRaises(ConfigError, self.load, options, toml)
        text = str(error)
        self.assertNotIn("\n", text)
        return text.replace(str(self.file), "FILE")
