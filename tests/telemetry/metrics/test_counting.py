"""Metrics: the table, counting, snapshots, and sums that never decrease."""

import json

from tests.tidy import TidyTestCase
from twisted_mta.telemetry.metrics import TABLE, Metric, Metrics, Snapshot, Totals, added, table


class Table(TidyTestCase):
    def test_it_has_every_metric(self) -> None:
        made = [each for each in vars(table).values() if isinstance(each, Metric)]
        self.assertEqual([each for each in made if each not in TABLE], [])

    def test_every_metric_is_in_the_table_once(self) -> None:
        declared = [each for each in vars(table).values() if isinstance(each, Metric)]
        self.assertEqual(declared, list(TABLE))
        names = [metric.name for metric in TABLE]
        self.assertEqual(sorted(names), sorted(dict.fromkeys(names)))

    def test_names_follow_the_conventions_of_prometheus(self) -> None:
        for metric in TABLE:
            self.assertTrue(metric.name.startswith("twisted_mta_"), metric)
            self.assertEqual(metric.name.endswith("_total"), metric.kind == "counter", metric)
            self.assertEqual(bool(metric.bounds), metric.kind == "histogram", metric)
            self.assertEqual(list(metric.bounds), sorted(metric.bounds), metric)

    def test_each_label_has_one_value_more_for_all_that_are_not_in_the_table(self) -> None:
        values = {"direction": ("in", "out"), "result": ("ok", "failed", "error")}
        metric = Metric("twisted_mta_tests_total", "Tests.", "counter", values)
        self.assertEqual(metric.combinations, 12)
        self.assertEqual(Metric("twisted_mta_tests_total", "Tests.", "counter").combinations, 1)

    def test_labels_are_bounded(self) -> None:
        for metric in TABLE:
            self.assertLess(metric.combinations, 500, metric)


class Counting(TidyTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()

    def test_counters_rise(self) -> None:
        self.metrics.count(table.MESSAGES_ACCEPTED)
        self.metrics.count(table.MESSAGES_ACCEPTED)
        self.metrics.count(table.OCTETS_ACCEPTED, by=1000)
        snapshot = self.metrics.snapshot()
        self.assertEqual(snapshot.total(table.MESSAGES_ACCEPTED), 2)
        self.assertEqual(snapshot.total(table.OCTETS_ACCEPTED), 1000)

    def test_each_combination_of_labels_is_counted_separately(self) -> None:
        for transport, outcome in (("smtp", "delivered"), ("smtp", "failed"), ("lmtp", "failed")):
            self.metrics.count(table.OUTCOMES, transport, outcome, "0")
        snapshot = self.metrics.snapshot()
        self.assertEqual(snapshot.total(table.OUTCOMES), 3)
        self.assertEqual(snapshot.total(table.OUTCOMES, outcome="failed"), 2)
        self.assertEqual(snapshot.total(table.OUTCOMES, outcome="failed", transport="smtp"), 1)

    def test_all_label_values_that_are_not_in_the_table_count_as_other(self) -> None:
        for number in range(1000):
            self.metrics.count(table.EARLY_DATA, f"listener {number}")
            self.metrics.observe(table.DELIVERY_DELAY, 1.0, f"transport {number}")
        snapshot = self.metrics.snapshot()
        self.assertEqual(list(snapshot.series(table.EARLY_DATA)), [(("other",), 1000)])
        (distribution,) = snapshot.distributions.values()
        self.assertEqual(sum(distribution.counts), 1000)

    def test_a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed(self) -> None:
        bounds = table.COMMIT_DURATION.bounds
        for value in (0.0, bounds[0], bounds[0] + 0.0001, bounds[-1] + 1):
            self.metrics.observe(table.COMMIT_DURATION, value)
        (distribution,) = self.metrics.snapshot().distributions.values()
        self.assertEqual(distribution.counts[:2], (2, 1))
        self.assertEqual(distribution.counts[-1], 1)
        self.assertAlmostEqual(distribution.sum, 2 * bounds[0] + bounds[-1] + 1.0001)

    def test_numbers_kept_elsewhere_are_read_at_each_snapshot(self) -> None:
        kept = [3, 4]
        self.metrics.read(table.COMMIT_BATCHES, lambda: kept[0])
        self.metrics.read(table.COMMIT_BATCHES, lambda: kept[1])
        self.metrics.read(table.CERTIFICATE_EXPIRY, lambda: None, "smtp")
        self.assertEqual(self.metrics.snapshot().total(table.COMMIT_BATCHES), 7)
        kept[0] = 5
        self.assertEqual(self.metrics.snapshot().total(table.COMMIT_BATCHES), 9)
        self.assertEqual(list(self.metrics.snapshot().series(table.CERTIFICATE_EXPIRY)), [])

    def test_a_wrong_number_of_labels_or_kind_is_a_value_error(self) -> None:
        metrics = self.metrics
        for mistake in (
            lambda: metrics.count(table.EARLY_DATA),
            lambda: metrics.count(table.MESSAGES_ACCEPTED, "smtp"),
            lambda: metrics.count(table.READY),
            lambda: metrics.count(table.COMMIT_DURATION),
            lambda: metrics.set(table.MESSAGES_ACCEPTED, 1),
            lambda: metrics.observe(table.MESSAGES_ACCEPTED, 1.0),
            lambda: metrics.read(table.COMMIT_DURATION, lambda: 1),
        ):
            self.assertRaises(ValueError, mistake)


class Crossing(TidyTestCase):
    def setUp(self) -> None:
        metrics = Metrics()
        metrics.count(table.REFUSED, "rcpt", "5", "7")
        metrics.count(table.MESSAGES_ACCEPTED, by=2)
        metrics.set(table.CERTIFICATE_EXPIRY, 1_900_000_000.5, "smtp")
        metrics.observe(table.DELIVERY_DELAY, 2.5, "smtp")
        self.snapshot = metrics.snapshot()

    def test_a_snapshot_survives_json(self) -> None:
        written = json.dumps(self.snapshot.to_json())
        self.assertEqual(Snapshot.from_json(json.loads(written)), self.snapshot)

    def test_json_has_names_labels_and_values(self) -> None:
        written = self.snapshot.to_json()
        self.assertEqual(
            written["twisted_mta_refused_total"],
            [{"labels": {"stage": "rcpt", "class": "5", "subject": "7"}, "value": 1}],
        )
        (histogram,) = written["twisted_mta_delivery_delay_seconds"]
        self.assertEqual(histogram["labels"], {"transport": "smtp"})
        self.assertEqual(len(histogram["counts"]), len(histogram["bounds"]) + 1)
        self.assertEqual(histogram["sum"], 2.5)

    def test_unknown_metrics_of_another_version_are_left_out(self) -> None:
        written = {**self.snapshot.to_json(), "twisted_mta_news_total": [{"value": 1}]}
        self.assertEqual(Snapshot.from_json(written), self.snapshot)

    def test_json_of_another_shape_is_a_value_error(self) -> None:
        for written in (
            None,
            [],
            {"twisted_mta_messages_accepted_total": 3},
            {"twisted_mta_messages_accepted_total": [{"labels": {}}]},
            {"twisted_mta_messages_accepted_total": [{"labels": {}, "value": "x"}]},
            {"twisted_mta_refused_total": [{"labels": {}, "value": 1}]},
            {"twisted_mta_commit_duration_seconds": [{"labels": {}, "counts": [1], "sum": 0}]},
        ):
            self.assertRaises(ValueError, Snapshot.from_json, written)


def counted(accepted: int, expiry: float, *delays: float) -> Snapshot:
    metrics = Metrics()
    metrics.count(table.MESSAGES_ACCEPTED, by=accepted)
    metrics.set(table.CERTIFICATE_EXPIRY, expiry, "smtp")
    metrics.set(table.DELIVERIES_ACTIVE, 1)
    for delay in delays:
        metrics.observe(table.DELIVERY_DELAY, delay, "smtp")
    return metrics.snapshot()


class Sums(TidyTestCase):
    def test_counters_and_histograms_are_added_and_gauges_fold_as_declared(self) -> None:
        total = added([counted(2, 500.0, 0.05), counted(3, 400.0, 0.05, 1e9), Snapshot()])
        self.assertEqual(total.total(table.MESSAGES_ACCEPTED), 5)
        self.assertEqual(total.total(table.DELIVERIES_ACTIVE), 2)
        self.assertEqual(total.total(table.CERTIFICATE_EXPIRY), 400.0)
        (distribution,) = total.distributions.values()
        self.assertEqual((distribution.counts[0], distribution.counts[-1]), (2, 1))

    def test_counters_of_a_process_outlive_it_and_gauges_do_not(self) -> None:
        totals = Totals()
        totals.heard((100, 1.0), counted(2, 400.0, 0.05))
        totals.heard((101, 1.0), counted(3, 500.0))
        totals.alive([(101, 1.0)])
        self.assertEqual(totals.sum().total(table.MESSAGES_ACCEPTED), 5)
        self.assertEqual(totals.sum().total(table.CERTIFICATE_EXPIRY), 500.0)
        self.assertEqual(totals.sum().total(table.DELIVERIES_ACTIVE), 1)
        self.assertEqual(len(totals.sum().distributions), 1)

    def test_a_process_with_the_number_of_a_dead_one_is_another(self) -> None:
        totals = Totals()
        totals.heard((100, 1.0), counted(2, 400.0))
        totals.heard((100, 2.0), counted(1, 400.0))
        totals.alive([(100, 2.0)])
        self.assertEqual(totals.sum().total(table.MESSAGES_ACCEPTED), 3)
        totals.heard((100, 2.0), counted(4, 400.0))
        self.assertEqual(totals.sum().total(table.MESSAGES_ACCEPTED), 6)
