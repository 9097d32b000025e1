"""A generator of STARTTLS load: smtp-source has none.

    python -m tests.benchmark.tls_load PORT --messages 1000 --sessions 20

Each message has its own connection with a full handshake. The output is JSON: the time, and the CPU
time of the generator, which is not available to the contestant.
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
        Exception: the first failure.
    """
    context = client_tls()
    message = content(octets)
    tickets: Iterator[int] = iter(range(messages))
    failures: list[Exception] = []

    def session() -> None:
        try:
            for _ in tickets:  # `next` is atomic among threads
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
    """Send messages, and print the result as a line of JSON."""
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
