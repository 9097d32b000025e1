"""Servers without storage: the cost of SMTP alone, with other libraries and with our own factory.

    python -m tests.benchmark.forgetful aiosmtpd|twisted.mail|ESMTPFactory PORT CERTIFICATE

Each is a minimal program that discards all messages. The difference between our factory and our MTA
is the cost of the queue.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from zope.interface import implementer

from ..functional.machine import LOOPBACK

OUR_FACTORY = "ESMTPFactory"

NAMES = ("aiosmtpd", "twisted.mail", OUR_FACTORY)


def installed(name: str) -> bool:
    """Whether a library is installed."""
    return name == OUR_FACTORY or find_spec(name) is not None


def aiosmtpd(port: int, certificate: str) -> None:
    """Serve with aiosmtpd."""
    from aiosmtpd.smtp import SMTP

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            return "250 taken"

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        handler = Handler()
        server = await loop.create_server(
            lambda: SMTP(handler, hostname="aiosmtpd.example", tls_context=context),
            LOOPBACK,
            port,
            backlog=1024,
        )
        await server.serve_forever()

    asyncio.run(serve())


def twisted_mail(port: int, certificate: str) -> None:
    """Serve with the ESMTP server that comes with Twisted."""
    from twisted.internet import defer, reactor
    from twisted.internet import ssl as twisted_ssl
    from twisted.mail import smtp

    @implementer(smtp.IMessage)
    class Forgotten:
        def lineReceived(self, line: bytes) -> None:
            pass

        def eomReceived(self) -> defer.Deferred[bytes]:
            return defer.succeed(b"taken")

        def connectionLost(self) -> None:
            pass

    @implementer(smtp.IMessageDelivery)
    class Delivery:
        def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
            return b"Received: by twisted.example"

        def validateFrom(self, helo: Any, origin: Any) -> Any:
            return origin

        def validateTo(self, user: Any) -> Any:
            return Forgotten

    class Factory(smtp.SMTPFactory):
        protocol = smtp.ESMTP

        def buildProtocol(self, address: Any) -> Any:
            protocol = super().buildProtocol(address)
            protocol.ctx = context
            protocol.delivery = Delivery()
            return protocol

    context = twisted_ssl.DefaultOpenSSLContextFactory(certificate, certificate)
    factory: Any = Factory()
    factory.noisy = False
    factory.domain = b"twisted.example"
    run: Any = reactor
    run.listenTCP(port, factory, backlog=1024, interface=LOOPBACK)
    run.run()


def our_factory(port: int, certificate: str) -> None:
    """Serve with our own factory, and a delivery that discards."""
    from twisted.internet import reactor

    from twisted_mta import ESMTPFactory
    from twisted_mta.tls.server import ServerContext, TLSSettings

    class Nowhere:
        def mail(self, session: Any, reverse_path: Any, parameters: Any) -> None:
            pass

        def rcpt(self, session: Any, forward_path: Any, parameters: Any) -> None:
            pass

        def open(self, session: Any) -> Any:
            return self

        def write(self, content: bytes) -> None:
            pass

        def finish(self) -> None:
            pass

        def abort(self) -> None:
            pass

        def ended(self, session: Any) -> None:
            pass

    context = ServerContext(TLSSettings(certificate_file=certificate, key_file=certificate))
    context.reload()
    run: Any = reactor
    run.listenTCP(port, ESMTPFactory(Nowhere(), tls=context), backlog=1024, interface=LOOPBACK)
    run.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.forgetful")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("port", type=int)
    parser.add_argument("certificate", help="PEM file with a certificate and its key")
    options = parser.parse_args(arguments)
    serve = {"aiosmtpd": aiosmtpd, "twisted.mail": twisted_mail, OUR_FACTORY: our_factory}
    serve[options.name](options.port, options.certificate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
