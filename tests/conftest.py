"""pytest runs in a temporary folder: trial's TestCases write to the current one."""

import os
import tempfile

import pytest

_FOLDER = pytest.StashKey[tempfile.TemporaryDirectory[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    folder = session.config.stash[_FOLDER] = tempfile.TemporaryDirectory()
    os.chdir(folder.name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    os.chdir(session.config.rootpath)
    session.config.stash[_FOLDER].cleanup()
