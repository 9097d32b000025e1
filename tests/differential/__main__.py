"""``python -m tests.differential``: print our differences from Postfix, or write their page."""

from __future__ import annotations

import argparse
import sys

from .servers import both_servers, dialogues
from .table import PAGE, by_place, load, page


def main() -> int:
    """Print each difference that is not in the table, or write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write docs/{PAGE.name} and end")
    parser.add_argument("--patience", type=float, default=1.5, help="seconds for a reply (1.5)")
    parser.add_argument("dialogue", nargs="*", help="only these, by name")
    arguments = parser.parse_args()
    known = by_place(load())
    if arguments.write:
        PAGE.write_text(page(load()), "utf-8")
        return 0
    found = 0
    with both_servers() as both:
        for dialogue in dialogues():
            if arguments.dialogue and dialogue.name not in arguments.dialogue:
                continue
            try:
                places = both.play(dialogue, known, arguments.patience)
            except AssertionError as error:
                print(f"# {error}", flush=True)
                continue
            for place in places:
                if known.get((place.dialogue, place.said)) != place:
                    found += 1
                    print(place, flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
