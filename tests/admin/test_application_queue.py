"""The queue as an application lists and steers it."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.admin.application_queue import ApplicationQueue
from twisted_mta.admin.http import Request, Response

NAMES = "expected one of ids, to, sender, domain, state, older"


class Filters(SynchronousTestCase):
    def setUp(self) -> None:
        self.queue = ApplicationQueue(self.answer)
        self.error = ""

    def answer(self, request: Request) -> Response:
        return Response(body=json.dumps({"error": self.error}).encode(), code=400)

    def refused(self, result: Deferred[Any]) -> str:
        return str(self.failureResultOf(result, ValueError).value)

    def test_a_filter_that_is_not_there_is_refused_with_the_names_of_python(self) -> None:
        self.assertEqual(
            self.refused(self.queue.list(colour="red")), f"found filter 'colour', {NAMES}"
        )
        self.assertEqual(
            self.refused(self.queue.hold(colour="red")), f"found filter 'colour', {NAMES}"
        )

    def test_to_act_on_all_mail_is_said_with_all(self) -> None:
        for result in (
            self.queue.remove(),
            self.queue.remove(sender=None),
            self.queue.remove(all=False),
        ):
            self.assertEqual(
                self.refused(result),
                "remove: found no ids and no filters, expected some, or all=True",
            )

    def test_a_sender_that_cannot_be_read_is_called_sender(self) -> None:
        self.error = "from: expected a text of 1 to 1,000 characters"
        result = self.queue.retry(sender=3)
        self.assertEqual(self.refused(result), "sender: expected a text of 1 to 1,000 characters")
