"""A generator of messages that each have many recipients, every one in a domain of its own.

    python -m tests.benchmark.fan_load PORT --messages 100 --sessions 4 --hops 100

smtp-source sends to one domain. The output is JSON: the time, and the CPU time of the generator.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence

from .client import Client, content
from .contestant import domain


def send_all(port: int, messages: int, sessions: int, octets: int, hops: int) -> None:
    """Send ``messages`` by ``sessions`` threads, each on one connection.

    Raises:
        Exception: the first failure.
    """
    message = content(octets)
    recipients = [f"bob@{domain(number)}" for number in range(hops)]
    tickets = iter(range(messages))
    failures: list[Exception] = []

    def session() -> None:
        try:
            client = Client(port)
            client.greet()
            for _ in tickets:  # `next` is atomic among threads
                client.send_to(recipients, message)
            client.close()
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=session) for _ in range(sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Send messages, and print the result as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.fan_load", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--octets", type=int, default=4096)
    parser.add_argument("--hops", type=int, default=100)
    options = parser.parse_args(arguments)
    start, used = time.monotonic(), time.process_time()
    send_all(options.port, options.messages, options.sessions, options.octets, options.hops)
    print(json.dumps({"seconds": time.monotonic() - start, "cpu": time.process_time() - used}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
