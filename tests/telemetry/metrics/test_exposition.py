"""The exposition formats, read back with the parsers of Prometheus' library."""

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from tests.tidy import TidyTestCase
from twisted_mta.telemetry.metrics import TABLE, Metrics, Snapshot, table
from twisted_mta.telemetry.metrics.exposition import OPENMETRICS, TEXT, exposition


class Exposition(TidyTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def sample(self, name: str, **labels: str) -> float:
        written = exposition(self.metrics.snapshot(), version="1.2.3")
        found = [
            sample.value
            for family in text(written.content.decode("utf-8"))
            for sample in family.samples
            if (sample.name, sample.labels) == (name, labels)
        ]
        self.assertEqual(len(found), 1, name)
        return float(found[0])

    def test_every_metric_of_the_table_is_exposed_from_the_start(self) -> None:
        written = exposition(Snapshot())
        self.assertEqual(written.content_type, TEXT)
        for metric in TABLE:
            self.assertIn(f"# TYPE {metric.name} {metric.kind}\n".encode(), written.content)
            self.assertIn(f"# HELP {metric.name} {metric.help}\n".encode(), written.content)

    def test_time_series_with_few_labels_begin_at_zero(self) -> None:
        self.assertEqual(self.sample("twisted_mta_messages_accepted_total"), 0)
        self.assertEqual(self.sample("twisted_mta_early_data_total", kind="smtp"), 0)
        self.assertEqual(self.sample("twisted_mta_reloads_total", result="failed"), 0)
        self.assertEqual(self.sample("twisted_mta_commit_duration_seconds_count"), 0)

    def test_counts_are_written_as_whole_numbers(self) -> None:
        self.metrics.count(table.OCTETS_ACCEPTED, by=123_456_789_012)
        self.metrics.count(table.OUTCOMES, "smtp", "failed", "1")
        self.assertEqual(self.sample("twisted_mta_accepted_bytes_total"), 123_456_789_012)
        self.assertEqual(
            self.sample(
                "twisted_mta_outcomes_total", transport="smtp", outcome="failed", subject="1"
            ),
            1,
        )

    def test_buckets_are_cumulative(self) -> None:
        for delay in (0.05, 0.3, 0.4, 1e6):
            self.metrics.observe(table.DELIVERY_DELAY, delay, "smtp")
        name = "twisted_mta_delivery_delay_seconds"
        for bound, count in (("0.1", 1), ("0.5", 3), ("86400.0", 3), ("+Inf", 4)):
            self.assertEqual(self.sample(f"{name}_bucket", transport="smtp", le=bound), count)
        self.assertEqual(self.sample(f"{name}_count", transport="smtp"), 4)
        self.assertAlmostEqual(self.sample(f"{name}_sum", transport="smtp"), 1_000_000.75)

    def test_build_info_has_the_version(self) -> None:
        self.assertEqual(self.sample("twisted_mta_build_info", version="1.2.3"), 1)

    def test_openmetrics_is_written_if_accept_names_it_in_any_version(self) -> None:
        for accept in (
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            "text/plain;q=0.1, application/openmetrics-text; version=nonsense\r\nX: y",
        ):
            written = exposition(self.metrics.snapshot(), accept=accept)
            self.assertEqual(written.content_type, OPENMETRICS)
            families = list(openmetrics(written.content.decode("utf-8")))
            self.assertEqual(len(families), len(TABLE) + 1)
        for accept in ("", "*/*", "text/plain;version=1.0.0;escaping=allow-utf-8"):
            self.assertEqual(exposition(Snapshot(), accept=accept).content_type, TEXT)
