"""Fields that are added to those before a content."""

from tests.tidy import TidyTestCase
from twisted_mta.message.trace import with_fields

RECEIVED = b"Received: from a\r\n\tby b; now\r\n"
RESULTS = b"Authentication-Results: mx.example;\r\n\tspf=none smtp.helo=a;\r\n spf=pass\r\n"


class Adding(TidyTestCase):
    def test_fields_are_added_on_top(self) -> None:
        self.assertEqual(with_fields(RECEIVED, b"X: y\r\n"), b"X: y\r\n" + RECEIVED)
        self.assertEqual(with_fields(b"", b"X: y\r\n"), b"X: y\r\n")

    def test_authentication_results_stay_on_top(self) -> None:
        for results in (RESULTS, RESULTS.lower()):
            self.assertEqual(
                with_fields(results + RECEIVED, b"X: y\r\n"), results + b"X: y\r\n" + RECEIVED
            )

    def test_results_further_down_are_another_hop_s(self) -> None:
        self.assertEqual(
            with_fields(RECEIVED + RESULTS, b"X: y\r\n"), b"X: y\r\n" + RECEIVED + RESULTS
        )
