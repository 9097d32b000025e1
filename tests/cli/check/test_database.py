"""Findings about the database of a shared queue, with a real server."""

from tests.cli.check.checking import CheckTestCase
from tests.functional.machine import LOOPBACK, free_port
from tests.queue.store.test_postgresql import empty_queue, server, sql
from twisted_mta.cli.check.database import database
from twisted_mta.cluster import schema as cluster
from twisted_mta.config.tables import QueueSettings
from twisted_mta.queue.store.postgresql.connection import connect
from twisted_mta.queue.store.postgresql.schema import scripts, upgrade


class Database(CheckTestCase):
    def findings_of(self, url: str) -> list[str]:
        config = self.config(queue=QueueSettings(url=url))
        return [f"{each.severity}: {each}" for each in database(config)]

    def test_a_queue_in_the_state_directory_has_no_database(self) -> None:
        self.assertEqual(self.findings_of("sqlite:"), [])

    def test_the_version_of_the_tables_is_told_where_a_start_changes_it(self) -> None:
        url = server().url
        connection = connect(url, lambda: 0.0)
        self.addCleanup(connection.close)
        with connection.transaction():
            upgrade(connection, scripts())
        self.addCleanup(empty_queue)
        self.assertEqual(self.findings_of(url), [])
        self.addCleanup(sql, "UPDATE version SET number = %s", len(scripts()))
        for version, said in ((1, "note: [mta] queue: the queue has schema"), (99, "error: ")):
            sql("UPDATE version SET number = %s", version)
            (finding,) = self.findings_of(url)
            self.assertTrue(finding.startswith(said), finding)
            self.assertIn(f"schema version {version}", finding)

    def test_so_is_that_of_the_tables_of_the_cluster(self) -> None:
        connection = connect(server().url, lambda: 0.0)
        self.addCleanup(connection.close)
        with connection.transaction():
            upgrade(connection, scripts())
        cluster.upgrade(connection, cluster.scripts())
        self.addCleanup(empty_queue)
        self.assertEqual(self.findings_of(server().url), [])
        known = len(cluster.scripts())
        self.addCleanup(sql, "UPDATE cluster_version SET number = %s", known)
        for version, said in (
            (0, f"the next start of this program brings it to {known}"),
            (99, f"this program knows {known}"),
        ):
            sql("UPDATE cluster_version SET number = %s", version)
            (finding,) = self.findings_of(server().url)
            self.assertIn(f"the tables of the cluster have version {version}", finding)
            self.assertIn(said, finding)

    def test_a_server_that_is_away_or_refuses_is_an_error(self) -> None:
        (away,) = self.findings_of(f"postgresql://mta@{LOOPBACK}:{free_port()}/postgres")
        self.assertIn("mail is refused until it is there", away)
        (refused,) = self.findings_of(server().url.replace("mta@", "unknown@"))
        self.assertIn('role "unknown" does not exist; a start fails', refused)
