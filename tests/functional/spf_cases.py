"""Generated zones with SPF records, and claims to check against them."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from attrs import frozen

DOMAIN = "spf.example"
BROKEN = "broken.example"
"""A zone whose queries fail."""

_IPV4 = [f"192.0.2.{number}" for number in (1, 2, 9, 65, 129, 200)]
_IPV6 = ["2001:db8::1", "2001:db8::2:1", "2001:db8:1::9"]
_IPV4_LENGTHS = ("", "", "/32", "/28", "/24", "/0")
# Not /0: by it the judge lets clients with IPv4 match, against RFC 7208 §5.6.
_IPV6_LENGTHS = ("", "", "/128", "/64", "/32", "/16")
_HOSTS = ("mx1", "mx2", "four", "six", "both", "alias", "none", "gone")
_LOCAL_PARTS = ("ann", "bob+list", "a-b.c", "")
_LABELS = (
    "d",
    "d2",
    "d1r",
    "o",
    "h",
    "v",
    "i",
    "ir",
    "l",
    "l1r+-",
    "L",
    "lr-",
    "s",
    "p",
    "pr",
    "d99",
)

_FIXED = """\
mx1     A    192.0.2.1
mx2     A    192.0.2.65
mx2     AAAA 2001:db8::1
four    A    192.0.2.2
four    A    192.0.2.9
six     AAAA 2001:db8::2:1
both    A    192.0.2.129
both    AAAA 2001:db8:1::9
alias   CNAME both
none    TXT  "no address"
two     TXT  "v=spf1 -all"
two     TXT  "v=spf1 +all"
why     TXT  "%{i} is not %{o}, asked by %{r}%_(%{c}) about %{S}"
wrong   TXT  "100%"
*.yes   A    127.0.0.2
*.in-addr.yes A 127.0.0.2
"""

_POINTERS = """\
1       PTR  mx1.spf.example.
2       PTR  four.spf.example.
9       PTR  mx1.spf.example.
65      PTR  nowhere.elsewhere.example.
65      PTR  mx2.spf.example.
"""


@frozen
class Claim:
    """A claim of a client.

    Attributes:
        address: of the client.
        domain: that is checked.
        local_part: of the sender; empty: the name in the greeting is checked.
        helo: the name in the greeting.
    """

    address: str
    domain: str
    local_part: str
    helo: str


class Cases:
    """Records and claims that are drawn from a seed.

    Args:
        draw: the seed.
        domains: how many domains have a record.

    Attributes:
        records: the record of each domain.
    """

    def __init__(self, draw: Random, domains: int) -> None:
        self._draw = draw
        self._names = [f"d{number}" for number in range(domains)]
        self.records = {name: self._record() for name in self._names}

    def zones(self) -> dict[str, str | None]:
        """Return the zones for a name server."""
        lines = [_FIXED]
        for name, record in self.records.items():
            strings = [record[at : at + 100] for at in range(0, len(record), 100)]
            lines.append(f"{name} TXT {' '.join(map(_quoted, strings))}\n")
            for number in range(self._draw.choice((0, 1, 1, 2, 3))):
                lines.append(f"{name} MX {number} {self._draw.choice(_HOSTS)}\n")
            if self._draw.random() < 0.5:
                lines.append(f"{name} A {self._draw.choice(_IPV4)}\n")
            if self._draw.random() < 0.3:
                lines.append(f"{name} AAAA {self._draw.choice(_IPV6)}\n")
        return {
            DOMAIN: "".join(lines),
            "2.0.192.in-addr.arpa": _POINTERS,
            "8.b.d.0.1.0.0.2.ip6.arpa": f"{'.'.join('1' + '0' * 23)} PTR mx2.spf.example.\n",
            BROKEN: None,
        }

    def claims(self, each: int) -> Iterator[Claim]:
        """Yield claims about all domains, ``each`` about one."""
        draw = self._draw
        for name in self._names:
            for _ in range(each):
                address = draw.choice((*_IPV4, *_IPV4, *_IPV6))
                domain = f"{name}.{DOMAIN}"
                local_part = draw.choice(_LOCAL_PARTS)
                helo = draw.choice((f"mx1.{DOMAIN}", "elsewhere.example")) if local_part else domain
                yield Claim(address, domain, local_part, helo)

    # Records.

    def _record(self) -> str:
        draw = self._draw
        terms = [self._term() for _ in range(draw.choice((0, 1, 2, 2, 3, 3, 4, 6)))]
        if draw.random() < 0.2:
            terms.append(f"redirect={self._target()}")
        if draw.random() < 0.6:
            terms.append(f"{draw.choice('-~?+')}all")
        if draw.random() < 0.4:
            terms.insert(
                draw.randrange(len(terms) + 1),
                f"exp={draw.choice(('why', 'wrong', 'none'))}.{DOMAIN}",
            )
        if draw.random() < 0.1:
            terms.insert(draw.randrange(len(terms) + 1), self._unusual())
        return draw.choice((" ", " ", "  ")).join(["v=spf1", *terms])

    def _term(self) -> str:
        draw = self._draw
        qualifier = draw.choice(("", "", "", "+", "-", "~", "?"))
        kind = draw.choice(
            ("a", "a", "mx", "mx", "ptr", "ip4", "ip4", "ip6", "include", "include", "exists")
        )
        if kind == "ip4":
            return f"{qualifier}ip4:{draw.choice(_IPV4)}{draw.choice(_IPV4_LENGTHS)}"
        if kind == "ip6":
            return f"{qualifier}ip6:{draw.choice(_IPV6)}{draw.choice(_IPV6_LENGTHS)}"
        if kind in ("include", "exists"):
            return f"{qualifier}{kind}:{self._target()}"
        target = f":{self._target()}" if draw.random() < 0.6 else ""
        lengths = draw.choice(("", "", "/24", "//64", "/28//48")) if kind != "ptr" else ""
        return f"{qualifier}{kind}{target}{lengths}"

    def _target(self) -> str:
        draw = self._draw
        macro = f"%{{{draw.choice(_LABELS)}}}"
        return draw.choice(
            (
                *(f"{draw.choice(self._names)}.{DOMAIN}" for _ in range(4)),
                *(f"{draw.choice(_HOSTS)}.{DOMAIN}" for _ in range(2)),
                f"{macro}.yes.{DOMAIN}",
                f"%{{ir}}.%{{v}}.yes.{DOMAIN}",
                f"{draw.choice(_HOSTS)}.%{{d2}}",
                f"two.{DOMAIN}",
                f"x.{BROKEN}"
                if draw.random() < 0.3
                else f"{draw.choice(_HOSTS).upper()}.{DOMAIN}.",
                draw.choice(("%{d}", "%{o}", "%{h}", "%{p}", "%{d2}", "%{d1r}")),
            )
        )

    def _unusual(self) -> str:
        return self._draw.choice(
            (
                *(
                    "moo",
                    "a:",
                    "a:example",
                    "a/33",
                    "a//129",
                    "mx/24/64",
                    "all:x",
                    "ip4:192.0.2",
                    "ip4",
                ),
                *(
                    "ip6:::1/129",
                    "ip6:2001:db8::1::2",
                    "ptr/24",
                    "include",
                    "exists:",
                    "exp=",
                    "redirect=",
                ),
                *(
                    "exp=a.example exp=b.example",
                    "x=%{d}",
                    "x=%",
                    "x=",
                    "1x=y",
                    "a:%{d0}",
                    "a:%{x}",
                ),
                *(
                    "a:b..c.example",
                    "a:a.-b",
                    "a:a.1",
                    "a:a.b-",
                    "-redirect=a.example",
                    "A",
                    "IP4:192.0.2.1",
                ),
                *(
                    "a:%%.yes.spf.example",
                    "exists:a%_b%-c.yes.spf.example",
                    "ip4:192.0.2.01",
                    "a/024",
                ),
            )
        )


def _quoted(text: str) -> str:
    return f'"{text}"'
