"""A collector in memory: a host that takes its steps once it has a whole request."""

import re

from tests.tls.mta_sts.policy_host import PolicyHost

_LENGTH = re.compile(rb"(?i)\r\nContent-Length: *(\d+)\r\n")


class CollectorHost(PolicyHost):
    """One connection to a collector."""

    def dataReceived(self, data: bytes) -> None:
        self.request += data
        head, end, body = self.request.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if end and length and len(body) == int(length[1]):
            self._go_on()

    @property
    def body(self) -> bytes:
        """The content of the request so far."""
        return self.request.partition(b"\r\n\r\n")[2]
