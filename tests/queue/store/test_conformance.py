"""Each store passes the tests of the contract."""

from __future__ import annotations

import os

from tests.tidy import TidyTestCase
from twisted_mta.queue.store.contract import Store
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.testing.store import MemoryStore

from .conformance import StoreConformance


class SQLiteConformance(StoreConformance, TidyTestCase):
    reuses_files = True

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.begin()
        self.addCleanup(lambda: self.store.close())

    def new_store(self) -> Store:
        self.files.make_directories(self.directory)
        path = os.path.join(self.directory, "queue.sqlite")
        return SQLiteStore(path, spool=self.spool, files=self.files)


class MemoryConformance(StoreConformance, TidyTestCase):
    reuses_files = True

    def setUp(self) -> None:
        self.begin()
        self.addCleanup(lambda: self.store.close())

    def new_store(self) -> Store:
        before = getattr(self, "store", None)
        return MemoryStore(spool=self.spool, disk=before)
