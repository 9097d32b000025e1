"""The endpoints of programs that mail is shown to: milters and policy services."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    clientFromString,
)
from twisted.internet.interfaces import IStreamClientEndpoint

from ..config.client_endpoint import place
from ..config.endpoint import Endpoint


def client_endpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    """Return the endpoint of a description; for an address, one that looks up nothing."""
    parsed = Endpoint.parse(description)
    if parsed.kind == "tcp" and len(parsed.arguments) == 2 and not parsed.named:
        host, port = place(parsed)
        try:
            version = ip_address(host).version
        except ValueError:
            pass
        else:
            made = TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint
            direct: IStreamClientEndpoint = made(reactor, host, int(port))
            return direct
    endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
    return endpoint
