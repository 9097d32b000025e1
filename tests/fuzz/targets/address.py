"""The address target: an address that parses is canonical, breaks no line, and parses fast.

Pieces: one text. What is a path to MAIL and RCPT is the same mailbox without its brackets.
"""

from __future__ import annotations

import re
import unicodedata
from random import Random

from twisted_mta.mail import address
from twisted_mta.mail.address import AddressError, Mailbox, domain_name, literal_address, path

from ..case import Case
from . import Target, demand
from .mailbox import WORDS, mailbox
from .mailbox import path as some_path

_DOMAIN = re.compile(
    r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
    r"|\[[0-9.]+\]|\[IPv6:[0-9a-f:.]+\]"
)


def probe(case: Case) -> None:
    """Parse the text as a mailbox, as a path and as a domain."""
    text = b"".join(case.pieces).decode("utf-8", "surrogateescape")
    if re.search("[\ud800-\udfff]", text):
        return  # the command line refuses it before
    for read in (Mailbox.parse, lambda text: path(text)[0], domain_name):
        try:
            found = read(text)
        except AddressError as error:
            demand(
                re.fullmatch(r"[\x20-\x7e]+", str(error)), f"a reason that is not safe: {error!r}"
            )
        else:
            if isinstance(found, Mailbox):
                _look_at(found)
            elif isinstance(found, str):
                _look_at_domain(found)
    _compare(text)


def _look_at(mailbox: Mailbox) -> None:
    if mailbox.domain:
        again = Mailbox.parse(str(mailbox))
        demand(again == mailbox, f"{mailbox!r} is written as another: {again!r}")
        demand(str(again) == str(mailbox), "two spellings of one mailbox")
        found, end = path(f"<{mailbox}>")
        demand(found == mailbox and end == len(str(mailbox)) + 2, "not the same in brackets")
        _look_at_domain(mailbox.domain)
    else:
        demand(mailbox.local_part == "postmaster", f"no domain: {mailbox!r}")
        demand(path(f"<{mailbox}>")[0] == mailbox, "not the same in brackets")
    controls = [each for each in str(mailbox) if unicodedata.category(each) == "Cc"]
    demand(not controls, f"control characters in {mailbox!r}")


def _look_at_domain(domain: str) -> None:
    demand(_DOMAIN.fullmatch(domain), f"not a canonical domain: {domain!r}")
    demand(domain_name(domain) == domain, f"{domain!r} comes to {domain_name(domain)!r}")
    literal = literal_address(domain)
    demand((literal is None) == (domain[0] != "["), f"literal or not? {domain!r}")


def _compare(text: str) -> None:
    """Check that brackets and a source route change nothing."""
    try:
        mailbox: Mailbox | None = Mailbox.parse(text)
    except AddressError:
        mailbox = None
    for route in ("", "@hop.example:", "@a.example,@[192.0.2.1]:"):
        written = f"<{route}{text}> SIZE=1"
        try:
            found, end = path(written)
        except AddressError:
            demand(mailbox is None, f"{written!r} is no path, yet {text!r} is a mailbox")
        else:
            if mailbox is not None:
                demand(found == mailbox, f"{written!r} is {found!r} and not {mailbox!r}")
                demand(end == len(written) - len(" SIZE=1"), "the path ends elsewhere")


def new(draw: Random) -> Case:
    """Return a new text."""
    return Case("address", pieces=((mailbox if draw.random() < 0.6 else some_path)(draw),))


ADDRESS = Target(
    name="address",
    shows="what parses is canonical, holds no control character, and is one mailbox in any path",
    modules=(address,),
    new=new,
    words=WORDS,
    knobs=0,
    probe=probe,
    check=probe,
)
