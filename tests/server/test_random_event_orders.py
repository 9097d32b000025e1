"""Random events in random order: no timer, sink or count is left behind, and none ends twice."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.dialogue import DialogueTestCase

OCTETS = st.lists(
    st.sampled_from(
        [
            b"EHLO x\r\n",
            b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
            b"MAIL FROM:<a@b>\r\n",
            b"RCPT TO:<c@d>\r\n",
            b"DATA\r\n",
            b"x\r\n.\r\n",
            b"bare\n",
            b"RSET\r\n",
            b"NOOP\r\n" * 50,
            b"STARTTLS\r\n",
            b"QUIT\r\n",
            b"\x16\x03\x01",
        ]
    ),
    min_size=1,
    max_size=3,
).map(b"".join)

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), OCTETS),
        st.tuples(st.just("decide"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1, 20, 170, 290])),
        st.sampled_from(
            [
                ("transaction",),
                ("transaction",),
                ("handshake",),
                ("lose",),
                ("abort",),
                ("stop reading",),
                ("read",),
                ("drain",),
                ("abandon",),
            ]
        ),
    ),
    max_size=25,
)


class RandomEventOrders(DialogueTestCase):
    @settings(max_examples=200, deadline=None)
    @given(EVENTS)
    def test_any_order_leaves_nothing_behind(self, events: list[tuple[str, object]]) -> None:
        self.setUp()
        self.hold_decisions()
        client = self.connect()
        for event in events:
            if event[0] == "say" and isinstance(event[1], bytes):
                self.say(client, event[1])
            elif event[0] == "decide" and self.asked:
                later = self.asked.pop(0)
                if event[1]:
                    later.callback(None)
                else:
                    later.errback(RuntimeError("a decision"))
                self.network.advance(0)
            elif event[0] == "transaction":
                for line in (
                    b"HELO x\r\n",
                    b"MAIL FROM:<a@b>\r\n",
                    b"RCPT TO:<c@d>\r\n",
                    b"DATA\r\n",
                ):
                    if self.asked:
                        self.decide()
                    self.say(client, line)
            elif event[0] == "wait" and isinstance(event[1], int):
                self.network.advance(event[1])
            elif event[0] == "handshake" and client.unread.endswith(b"TLS\r\n"):
                client.unread.clear()
                if not client.over:
                    self.start_tls(client)
            elif event[0] == "lose":
                client.transport.loseConnection()
                self.network.advance(0)
            elif event[0] == "abort":
                client.abort()
                self.network.advance(0)
            elif event[0] == "stop reading":
                client.transport.pauseProducing()
            elif event[0] == "read":
                client.transport.resumeProducing()
                self.network.advance(0)
            elif event[0] == "drain":
                self.factory.drain()
                self.network.advance(0)
            elif event[0] == "abandon":
                self.factory.abandon()
                self.network.advance(0)
        client.transport.resumeProducing()
        client.abort()
        self.network.advance(0)
        for later in self.asked:
            later.callback(None)
        self.network.advance(0)
        # A failed question was logged, and nothing else (sinks raise if they are ended twice, or
        # written to after their end).
        for failure in self.flushLoggedErrors():
            self.assertEqual(failure.getErrorMessage(), "a decision")
        self.assertEqual(self.delivery.open_sinks, 0)
        self.successResultOf(self.factory.drain())
        self.tearDown()
