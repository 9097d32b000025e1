"""`running` beside the reactor of the test runner, which runs meanwhile."""

from __future__ import annotations

from twisted.internet.threads import deferToThread  # noqa: TID251 - a blocking client
from twisted.python.threadable import isInIOThread
from twisted.trial.unittest import TestCase

from tests.test_kit.test_running import send
from tests.waiting import turn
from twisted_mta import sendmail
from twisted_mta.testing import running


class BesideAReactor(TestCase):
    async def test_blocking_clients_and_those_of_the_reactor_send_at_once(self) -> None:
        from twisted.internet import reactor  # noqa: TID251 - the one that runs

        await turn()  # the reactor runs from here on
        with running() as mta:
            blocking = deferToThread(send, mta, "bob@user.test")
            mail = b"Subject: Hi\r\n\r\n"
            recipients = ["eve@user.test"]
            await sendmail(
                mta.host,
                "ann@sender.test",
                recipients,
                mail,
                port=mta.port,
                tls="none",
                reactor=reactor,
            )
            await blocking
            self.assertEqual(len(mta.inbox), 2)
            self.assertTrue(isInIOThread())
