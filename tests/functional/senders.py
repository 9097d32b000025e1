"""Python libraries that send a message, each as a program of its own.

    python -m tests.functional.senders LIBRARY KIND PORT AUTHORITY FILE RECIPIENT

``LIBRARY`` is ``twisted`` (`twisted.mail.smtp.sendmail`), ``factory`` (its `ESMTPSenderFactory`),
``sendmail`` (ours) or ``django``. ``KIND`` is that of `test_client_matrix`. ``FILE`` has the
message, which django composes anew.
"""

from __future__ import annotations

import sys
from email import message_from_bytes
from email.policy import default
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

SENDER = "ann@localhost"
USER, PASSWORD = "ann", "secret"
UNDER_TLS = ("starttls", "submission", "submissions")
WITH_AUTH = ("submission", "submissions", "password")


def twisted(reactor: Any, kind: str, port: int, authority: str, file: str, to: str) -> Any:
    """Send with the function of twisted.mail; its authorities are those of the system."""
    from twisted.mail.smtp import sendmail

    with_auth = kind in WITH_AUTH
    return sendmail(
        "localhost",
        SENDER,
        [to],
        Path(file).read_bytes(),
        port=port,
        reactor=reactor,
        username=USER if with_auth else None,
        password=PASSWORD if with_auth else None,
        requireAuthentication=with_auth,
        requireTransportSecurity=kind in UNDER_TLS,
    )


def factory(reactor: Any, kind: str, port: int, authority: str, file: str, to: str) -> Any:
    """Send with the factory of twisted.mail."""
    from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
    from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
    from twisted.mail.smtp import ESMTPSenderFactory

    root = Certificate.loadPEM(Path(authority).read_text())
    options = optionsForClientTLS("localhost", trustRootFromCertificates([root]))
    sent: Deferred[Any] = Deferred()
    with_auth = kind in WITH_AUTH
    made = ESMTPSenderFactory(
        USER.encode() if with_auth else None,
        PASSWORD.encode() if with_auth else None,
        SENDER,
        to,
        BytesIO(Path(file).read_bytes()),
        sent,
        retries=0,
        contextFactory=options,
        requireAuthentication=with_auth,
        requireTransportSecurity=kind in ("starttls", "submission"),
    )
    endpoint: Any = HostnameEndpoint(reactor, "localhost", port)
    if kind == "submissions":
        endpoint = wrapClientTLS(options, endpoint)
    endpoint.connect(made).addErrback(sent.errback)
    return sent


def ours(reactor: Any, kind: str, port: int, authority: str, file: str, to: str) -> Any:
    """Send with twisted_mta."""
    from twisted_mta import sendmail

    arguments: dict[str, Any] = {"implicit_tls": kind == "submissions", "lmtp": kind == "lmtp"}
    if kind in WITH_AUTH:
        arguments.update(username=USER, password=PASSWORD)
    if kind in UNDER_TLS:
        arguments["authorities"] = authority

    def check(result: Any) -> None:
        assert result.accepted == [to], result

    content = Path(file).read_bytes()
    sent = sendmail("localhost", SENDER, [to], content, port=port, reactor=reactor, **arguments)
    return sent.addCallback(check)


def django(kind: str, port: int, file: str, to: str) -> None:
    """Send with the back-end of Django; its authorities are those of the system."""
    from django.conf import settings
    from django.core.mail import EmailMessage, get_connection

    settings.configure(EMAIL_TIMEOUT=60)
    with_auth = kind in WITH_AUTH
    connection = get_connection(
        "django.core.mail.backends.smtp.EmailBackend",
        host="localhost",
        port=port,
        username=USER if with_auth else "",
        password=PASSWORD if with_auth else "",
        use_tls=kind in ("starttls", "submission"),
        use_ssl=kind == "submissions",
    )
    read = message_from_bytes(Path(file).read_bytes(), policy=default)
    text = read.get_body(("plain",))
    assert text is not None
    written = EmailMessage(read["Subject"], text.get_content(), SENDER, [to], connection=connection)
    for part in read.iter_attachments():
        written.attach(part.get_filename(), part.get_content(), part.get_content_type())
    assert written.send() == 1


def main() -> None:
    """Send, and exit with status 0 if the message was accepted."""
    library, kind, port, authority, file, to = sys.argv[1:]
    if library == "django":
        django(kind, int(port), file, to)
        return
    send = {"twisted": twisted, "factory": factory, "sendmail": ours}[library]
    react(lambda reactor: send(reactor, kind, int(port), authority, file, to))


if __name__ == "__main__":
    main()
