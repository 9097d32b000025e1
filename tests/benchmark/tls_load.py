"""A generator of STARTTLS load: smtp-source has none.

    python -m tests.benchmark.tls_load PORT --messages 1000 --sessions 20

Each message has a connection of its own and a full handshake: nothing is resumed. It says as JSON
how long it took and how much CPU time it needed itself, because that is missing to who is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from .client import Client, client_tls, content


def send_all(port: int, messages: int, sessions: int, octets: int) -> None:
    """Send ``messages`` by ``sessions`` threads.

    Raises:
        Exception: what went wrong first.
    """
    context = client_tls()
    message = content(octets)
    tickets: Iterator[int] = iter(range(messages))
    failures: list[Exception] = []

    def session() -> None:
        try:
            for _ in tickets:  # one `next` is one byte code: threads do not disturb it
                client = Client(port)
                client.greet(context)
                client.send(message)
                client.close()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=session) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in itertools.islice(failures, 1):
        raise failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Send, and print a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.tls_load", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--octets", type=int, default=4096)
    options = parser.parse_args(arguments)
    start, used = time.monotonic(), time.process_time()
    send_all(options.port, options.messages, options.sessions, options.octets)
    print(json.dumps({"seconds": time.monotonic() - start, "cpu": time.process_time() - used}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
