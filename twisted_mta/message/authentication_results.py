"""The Authentication-Results field (RFC 8601): written, read, and removed in our own name.

Results carry text of strangers: a reverse-path, a domain of a signature, a reason of a name server.
It is written bare only if it consists of harmless characters, and is quoted otherwise, so that it
can neither end the field nor pass for another result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter

from attrs import frozen

from ..mail.address import AddressError, domain_name, u_labels
from ..mail.printable import printable

_WIDTH = 78  # RFC 5322 §2.1.1: characters of a line without its CR LF
_LONGEST_TEXT = 200  # characters of a reason or a comment
_LONGEST_VALUE = 500  # of a property; lines stay below 998 octets, also in UTF-8
_MOST_FIELDS = 200  # Authentication-Results fields of a message that are looked at
_MOST_COMMENT_TOKENS = 64  # parentheses and quoted pairs before the authserv-id
_LATEST = 2048  # octets of a field before the authserv-id

# RFC 5321 §4.1.2: Keyword = Ldh-str = *( ALPHA / DIGIT / "-" ) Let-dig
_LDH = r"[A-Za-z0-9-]*[A-Za-z0-9]"
_KEYWORD = re.compile(_LDH)
_NAME_OF = itemgetter(0)
# RFC 8601 §2.2: ptype "." property
_PROPERTY = re.compile(rf"{_LDH}\.{_LDH}")
# RFC 2045 §5.1: token = 1*<any ASCII character but SPACE, CTLs, tspecials>
_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+")
# RFC 8601 §2.2: [ [ local-part ] "@" ] domain-name, where local-part is a dot-atom (RFC 5322
# §3.4.1; RFC 6532 §3.2 adds UTF-8) and domain-name is that of RFC 6376 §3.5. Characters with a
# meaning in the field are left out of the dot-atom: a mailbox with one is quoted as a whole.
_ATOM = r'[^\x00-\x20"(),./:;<=>?@\[\\\]\x7f-\xa0\ud800-\udfff]+'
_DOMAIN = r"[0-9A-Za-z](?:[0-9A-Za-z-]*[0-9A-Za-z])?"
_MAILBOX = re.compile(rf"(?:{_ATOM}(?:\.{_ATOM})*+)?@{_DOMAIN}(?:\.{_DOMAIN})*+")
_UNPRINTABLE_UTF8 = re.compile(r"[\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff]")
_QUOTED_SPECIALS = re.compile(r'["\\]')
_COMMENT_SPECIALS = re.compile(r"[()\\]")

# Read leniently: white space before the colon (RFC 5322 §4.5), bare CR or LF as an end of line.
_NAME = b"authentication-results"
_START = _NAME + rb"(?<=[\r\n]" + _NAME + rb")[ \t\v\f\r\n]*+(?<![\r\n]):"
_LINE_END = rb"(?:\r\n|\r|\n)"
# All lines of a value, with the line end behind it. A search for the end takes ten times as long.
_VALUE = rb"[^\r\n]*+(?:" + _LINE_END + rb"(?=[ \t])[^\r\n]*+)*+" + _LINE_END + rb"?+"
_START_OF_FIELD = re.compile(_START)
_REST_OF_FIELD = re.compile(_VALUE)
_WHOLE_FIELDS = re.compile(b"(?:" + _START + _VALUE + b")++")
_MAILFROM = "smtp.mailfrom"
_SPACE = re.compile(rb"[ \t\r\n\v\f]*+")
_COMMENT_TOKENS = re.compile(rb"[()]|\\.", re.DOTALL)
_DEPTHS = {b"(": 1, b")": -1}
_QUOTED_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
# A token, or one with UTF-8 (RFC 8601 §2.2): up to the first octet that cannot be part of it.
_READ_TOKEN = re.compile(rb'[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]++')


@frozen
class MethodResult:
    """The result of one authentication method (RFC 8601 §2.2, ``resinfo``).

    Text may have been written by a stranger: the writer of the field quotes or encodes it.

    Attributes:
        method: its name in the registry: ``spf``, ``dkim``, ``dmarc``, ….
        result: its word in the registry: ``pass``, ``fail``, ``temperror``, ….
        reason: text of the ``reason`` property; empty: none.
        properties: (``ptype.property``, value), such as ``("smtp.mailfrom", "ann@example.net")``,
            of which the field has the domain alone for SPF; domains are A-labels.
        comment: text behind the result, in parentheses; empty: none.

    Raises:
        ValueError: method, result or the name of a property is no keyword.
    """

    method: str
    result: str
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()
    comment: str = ""

    def __attrs_post_init__(self) -> None:
        _check_names(self.method, self.result, *map(_NAME_OF, self.properties))


@lru_cache(maxsize=1024)  # there are few
def _check_names(method: str, result: str, *properties: str) -> None:
    for word in (method, result):
        if not _KEYWORD.fullmatch(word):
            raise ValueError(f"found {word!r}, expected a keyword")
    for name in properties:
        if not _PROPERTY.fullmatch(name):
            raise ValueError(f"found the property {name!r}, expected ptype.property")


def authentication_results(
    authserv_id: str, results: Sequence[MethodResult], *, smtputf8: bool = False
) -> bytes:
    """Return a whole Authentication-Results field, folded, with its CR LF (RFC 8601 §2.2).

    Args:
        authserv_id: our name, in A-labels.
        results: in the order in which they stand; without any, the field says ``none``.
        smtputf8: Whether the message may have UTF-8 in its header section. Otherwise a mailbox
            beyond ASCII is shown by its domain alone. Other text is escaped in any case.
    """
    groups = [
        _group(each.method, each.result, each.reason, each.properties, each.comment, smtputf8)
        for each in results
    ] or ["none"]
    name = f"Authentication-Results: {_value(authserv_id, smtputf8=False)}"
    return (";\r\n ".join((name, *groups)) + "\r\n").encode()


# Mail of one sender has the same results but for its signatures. To compare strings takes less than
# to compare results.
@lru_cache(maxsize=1024)
def _group(
    method: str,
    result: str,
    reason: str,
    properties: tuple[tuple[str, str], ...],
    comment: str,
    smtputf8: bool,
) -> str:
    """Return a result as the field has it, folded; it begins a line."""
    first, *others = _words(MethodResult(method, result, reason, properties, comment), smtputf8)
    lines = [first]
    for word in others:
        # The space that begins a continuation line is the one between the words, which may stand in
        # a quoted string.
        if 1 + len(lines[-1]) + 1 + len(word) > _WIDTH - 1:  # room for a semicolon
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\r\n ".join(lines)


def _words(result: MethodResult, smtputf8: bool) -> tuple[str, ...]:
    """Return the parts of a result between which the field may be folded."""
    words = [f"{result.method}={result.result}"]
    if result.comment:
        words += f"({_COMMENT_SPECIALS.sub(_escaped, _line(result.comment))})".split(" ")
    if result.reason:
        words += f"reason={_quoted(_line(result.reason))}".split(" ")
    of_spf = result.method == "spf"
    values = [
        (name, _value(_domain(value) if of_spf and name == _MAILFROM else value, smtputf8))
        for name, value in result.properties
    ]
    # Properties have no order; some readers (the library authres) read none behind a quoted one.
    values.sort(key=lambda each: each[1].startswith('"'))
    return (*words, *(f"{name}={value}" for name, value in values))


def _domain(mailbox: str) -> str:
    """Return the domain of a mailbox, which is what SPF has checked.

    The local part is optional (RFC 8601 §2.2), and Debian's OpenDMARC reads no result with one.
    """
    return mailbox.rpartition("@")[2]


def _line(text: str) -> str:
    """Return free text as one line of printable ASCII with single spaces."""
    return _shortened(printable(" ".join(text.split())), _LONGEST_TEXT)


def _value(text: str, smtputf8: bool) -> str:
    """Return a ``pvalue``: a token, a mailbox, a domain, or a quoted string."""
    local_part, at, domain = text.rpartition("@")
    if at and (len(text) > _LONGEST_VALUE or not (smtputf8 or local_part.isascii())):
        text = f"@{domain}"  # the local part is optional; part of it would be another mailbox
    if len(text) <= _LONGEST_VALUE and (_TOKEN.fullmatch(text) or _MAILBOX.fullmatch(text)):
        return text
    text = _UNPRINTABLE_UTF8.sub(_named, text) if smtputf8 and at else printable(text)
    return _quoted(_shortened(text, _LONGEST_VALUE))


def _quoted(text: str) -> str:
    return f'"{_QUOTED_SPECIALS.sub(_escaped, text)}"'


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def _escaped(special: re.Match[str]) -> str:
    return f"\\{special[0]}"


def _named(control: re.Match[str]) -> str:
    return ascii(control[0])[1:-1]


def authserv_id(value: bytes) -> str | None:
    """Return the authserv-id of a field (RFC 8601 §2.5); None: it has none that can be read.

    A domain name is in A-labels and in lower case, also if it was written in U-labels.

    Args:
        value: of the field, folded or not.
    """
    value = value[: 2 * _LATEST]
    at = _past_comments(value)
    if at is None or at > _LATEST:
        return None
    if quoted := _QUOTED_STRING.match(value, at):
        return _canonical(_QUOTED_PAIR.sub(rb"\1", quoted[1]))
    token = _READ_TOKEN.match(value, at)
    return _canonical(token[0]) if token else None


def _past_comments(value: bytes) -> int | None:
    """Return the offset behind white space and comments; None: they do not end, or are many."""
    depth = at = 0
    tokens = _MOST_COMMENT_TOKENS
    while True:
        at = _SPACE.match(value, at).end()  # type: ignore[union-attr]  # it always matches
        if value[at : at + 1] != b"(":
            return at
        for token in _COMMENT_TOKENS.finditer(value, at):
            tokens -= 1
            depth += _DEPTHS.get(token[0], 0)
            if not depth or tokens <= 0:
                at = token.end()
                break
        if depth:
            return None


def _canonical(name: bytes) -> str:
    text = name.decode("utf-8", "replace").strip()
    try:
        return domain_name(text)
    except AddressError:
        return text.lower()


def without_own(header: bytes, authserv_id: str) -> bytes:
    """Return a header section without the Authentication-Results fields in our name.

    RFC 8601 §5: a reader trusts fields with our authserv-id, so none may come in from outside.
    Fields that cannot be read go too if our name is in them, and so do all fields after the 200th.
    Others stay octet by octet. Line ends may be bare.

    Args:
        header: with or without the empty line.
        authserv_id: our name.
    """
    section = b"\n" + header
    lowered = section.lower()
    if _NAME not in lowered:
        return header  # most mail
    own = _Own(authserv_id)
    kept = []
    at = 1
    found = last = 0
    for match in islice(_START_OF_FIELD.finditer(lowered), _MOST_FIELDS):
        found += 1
        last = _REST_OF_FIELD.match(section, match.end()).end()  # type: ignore[union-attr]
        if own.claims(section[match.end() : last]):
            kept.append(section[at : match.start()])
            at = last
    if found == _MOST_FIELDS:
        for match in _WHOLE_FIELDS.finditer(lowered, last):
            kept.append(section[at : match.start()])
            at = match.end()
    return b"".join((*kept, section[at:])) if kept else header


class _Own:
    """Our authserv-id, in the forms that a field may have."""

    def __init__(self, name: str) -> None:
        self._name = _canonical(name.encode())
        self._forms = {form.encode() for form in (self._name, u_labels(self._name))}

    def claims(self, value: bytes) -> bool:
        """Whether the value of a field is in our name, or might be taken to be."""
        found = authserv_id(value)
        if found is not None:
            return found == self._name
        plain = value.translate(None, b"\\").lower()
        return any(form in plain for form in self._forms)
