"""The scaling target: the time of every reader, for octets that are made to take long.

Pieces: the name of a reader, the beginning and the end of its octets, and the repeated octets.
"""

from __future__ import annotations

from random import Random

from twisted_mta.mail import address
from twisted_mta.message import header
from twisted_mta.message.mime import (
    content_reader,
    conversion,
    conversion_plan,
    entity,
    measure,
    sections,
)
from twisted_mta.routing import alias_file
from twisted_mta.smtp import command
from twisted_mta.smtp.client import reply_reader
from twisted_mta.smtp.sasl import client, server
from twisted_mta.smtp.server import session

from ..case import Case
from ..readers import READERS
from ..scaling import HELD, Reader, Shape, measured
from . import Target, demand

_SMALL = 1_000  # octets that are read for the coverage


def probe(case: Case) -> None:
    """Read a few octets of a shape."""
    found = _read(case)
    if found is not None:
        reader, shape = found
        reader.read(shape.octets(_SMALL))


def check(case: Case) -> None:
    """Measure the reader at growing sizes.

    Raises:
        Broken: the time grows faster than the octets, or is too long for the reactor.
    """
    found = _read(case)
    if found is None:
        return
    reader, shape = found
    times = measured(reader, shape)
    demand(not times.steep, f"the time of {reader.name!r} grows too fast: {times}")
    demand(
        reader.place != "reactor" or times.longest < HELD,
        f"{reader.name!r} keeps the reactor: {times}",
    )


def case_of(reader: Reader, shape: Shape) -> Case:
    """Return the case of a shape for a reader."""
    return Case("scaling", pieces=(reader.name.encode(), shape.start, shape.end, *shape.repeated))


def _read(case: Case) -> tuple[Reader, Shape] | None:
    name, start, end, *repeated = (*case.pieces, b"", b"", b"")
    reader = READERS.get(name.decode("latin-1"))
    if reader is None or not any(repeated):
        return None
    return reader, Shape(start, end, tuple(repeated))


def new(draw: Random) -> Case:
    """Return a new shape for some reader."""
    reader = READERS[draw.choice(list(READERS))]
    start, end = draw.choice(reader.frames)
    count = draw.choice((1, 1, 2, 2, 3))
    repeated = tuple(
        b"".join(draw.choice(reader.words) for _ in range(draw.choice((1, 1, 1, 2, 3))))
        for _ in range(count)
    )
    return case_of(reader, Shape(start, end, repeated))


SCALING = Target(
    name="scaling",
    shows="four times the octets take four times as long, and none keep the reactor",
    modules=(
        *(address, alias_file, command, header, reply_reader, client, server, session),
        *(content_reader, conversion, conversion_plan, entity, measure, sections),
    ),
    new=new,
    words=tuple(dict.fromkeys(word for reader in READERS.values() for word in reader.words)),
    knobs=0,
    probe=probe,
    check=check,
)
