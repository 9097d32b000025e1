"""Send a message file straight to a server, and print what the server says to each recipient.

    python send_mail.py [--user NAME] [--port PORT] SERVER FILE SENDER RECIPIENT...

The password of a user is asked for. It is sent under TLS alone, to a server whose certificate is
verified. The exit status is 0 if all recipients were accepted, and otherwise 1.
"""

from __future__ import annotations

import argparse
import sys
from getpass import getpass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react

from twisted_mta import SendError, sendmail


async def send(arguments: argparse.Namespace, password: str | None, reactor: IReactorCore) -> None:
    """Send the message; exit with status 1 if it is not for all recipients."""
    try:
        with open(arguments.file, "rb") as message:
            result = await sendmail(
                arguments.server,
                arguments.sender,
                arguments.recipients,
                message,
                port=arguments.port,
                username=arguments.user,
                password=password,
                reactor=reactor,
            )
    except (SendError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print("under", result.tls.outgoing_description if result.tls else "no TLS")
    for address, reply in result.recipients.items():
        print(f"{address}: {reply}")
    if result.refused:
        sys.exit(1)


def main(reactor: IReactorCore, *words: str) -> Deferred[None]:
    """Read the command line, and send."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--user")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("server")
    parser.add_argument("file")
    parser.add_argument("sender")
    parser.add_argument("recipients", nargs="+")
    arguments = parser.parse_args(words)
    password = getpass() if arguments.user else None
    return Deferred.fromCoroutine(send(arguments, password, reactor))


if __name__ == "__main__":
    react(main, sys.argv[1:])
