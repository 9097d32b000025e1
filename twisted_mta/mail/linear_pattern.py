r"""Regular expressions that are matched in time that grows linearly with the text.

Operators write them, and peers write the text. ``re`` tries alternatives one after the other, and
``(a+)+b`` takes it years for 40 octets; here all are followed at the same time, as the position
automaton of Glushkov does: a set of positions in the pattern, in one integer, for each character.

The language is the part of that of ``re`` that is regular: ``.``, ``[a-z]``, ``[^a-z]``, ``\d``,
``\s``, ``\w`` and their opposites, ``( )``, ``(?: )``, ``|``, ``*``, ``+``, ``?``, ``{2,5}``, and
``^`` and ``$`` at the ends of the pattern or of an alternative. Case does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import define, frozen

MOST_POSITIONS = 200
"""Characters and classes in one pattern, each as often as ``{2,5}`` repeats it at most."""

_REMEMBERED = 2000  # successors of sets, and positions of characters
_MOST_ATOMS = 10_000  # each as often as it is read
_MOST_DEPTH = 20
_SPECIAL = ".[]()|*+?{}^$\\"
_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal,
    "s": str.isspace,
    "w": lambda char: char.isalnum() or char == "_",
}
_COUNTS = re.compile(r"\{([0-9]{1,3})(,?)([0-9]{0,3})\}")

_Test = Callable[[str], bool]


@frozen
class _Part:
    """A part of a pattern, by positions in bits.

    Attributes:
        optional: whether it matches the empty text.
        first: positions with which it can begin.
        last: positions with which it can end.
    """

    optional: bool
    first: int = 0
    last: int = 0


@define
class _Automaton:
    tests: list[_Test]
    follow: list[int]

    def position(self, test: _Test) -> _Part:
        if len(self.tests) == MOST_POSITIONS:
            raise ValueError(f"too long; expected at most {MOST_POSITIONS} characters to match")
        self.tests.append(test)
        self.follow.append(0)
        bit = 1 << (len(self.tests) - 1)
        return _Part(False, bit, bit)

    def link(self, last: int, first: int) -> None:
        for place in _places(last):
            self.follow[place] |= first

    def sequence(self, one: _Part, other: _Part) -> _Part:
        self.link(one.last, other.first)
        return _Part(
            one.optional and other.optional,
            one.first | (other.first if one.optional else 0),
            other.last | (one.last if other.optional else 0),
        )


@frozen
class _Alternative:
    part: _Part
    at_start: bool
    at_end: bool


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._atoms = 0
        self._depth = 0
        self.automaton = _Automaton([], [])

    def parse(self) -> list[_Alternative]:
        alternatives = [self._alternative()]
        while self._take("|"):
            alternatives.append(self._alternative())
        if self._next:
            raise ValueError(f"found {self._next!r} at {self._at + 1}; expected the end")
        return alternatives

    @property
    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _alternative(self) -> _Alternative:
        at_start = self._take("^")
        part = self._sequence()
        return _Alternative(part, at_start, self._take("$"))

    def _sequence(self) -> _Part:
        part = _Part(True)
        while self._next and self._next not in "|)$":
            part = self.automaton.sequence(part, self._repeated())
        return part

    def _repeated(self) -> _Part:
        begin = self._at
        part = self._atom()
        least, most = self._counts()
        if (least, most) == (1, 1):
            return part
        end = self._at
        # The first repetition stands in the automaton; each further one is read once more.
        parts = [part]
        for _ in range(1, max(least, most or 1)):
            self._at = begin
            parts.append(self._atom())
        self._at = end
        if most is None:
            self.automaton.link(parts[-1].last, parts[-1].first)
        whole = _Part(True)
        for number, each in enumerate(parts):
            optional = each.optional or number >= least
            whole = self.automaton.sequence(whole, _Part(optional, each.first, each.last))
        return whole

    def _counts(self) -> tuple[int, int | None]:
        counts: tuple[int, int | None] = (1, 1)
        if self._take("*"):
            counts = 0, None
        elif self._take("+"):
            counts = 1, None
        elif self._take("?"):
            counts = 0, 1
        elif self._next == "{":
            found = _COUNTS.match(self._pattern, self._at)
            if found is None:
                raise ValueError(f"found {{ at {self._at + 1}; expected {{2}}, {{2,}} or {{2,5}}")
            least = int(found[1])
            most = least if not found[2] else int(found[3]) if found[3] else None
            if most == 0 or (most is not None and most < least):
                raise ValueError(f"found {found[0]}; expected a higher number")
            if max(least, most or 1) > MOST_POSITIONS:
                raise ValueError(f"found {found[0]}; expected at most {MOST_POSITIONS}")
            self._at = found.end()
            counts = least, most
        else:
            return counts
        self._take("?")  # what is matched first does not matter
        if self._next and self._next in "*+{":
            raise ValueError(f"found {self._next} at {self._at + 1}, after a repetition")
        return counts

    def _atom(self) -> _Part:
        char = self._next
        self._atoms += 1
        if self._atoms > _MOST_ATOMS:
            raise ValueError("too many repetitions within repetitions")
        if self._take("("):
            if self._take("?") and not self._take(":"):
                raise ValueError(f"found (? at {self._at - 1}; expected (?: or (")
            self._depth += 1
            if self._depth > _MOST_DEPTH:
                raise ValueError(f"expected at most {_MOST_DEPTH} ( within each other")
            part = self._sequence()
            while self._take("|"):
                other = self._sequence()
                part = _Part(
                    part.optional or other.optional,
                    part.first | other.first,
                    part.last | other.last,
                )
            if not self._take(")"):
                raise ValueError("a ( is not closed; expected ), and ^ and $ at the ends alone")
            self._depth -= 1
            return part
        if self._take("["):
            return self.automaton.position(self._class())
        if self._take("."):
            return self.automaton.position(lambda char: True)
        if self._take("\\"):
            return self.automaton.position(self._escaped())
        if char in _SPECIAL:
            raise ValueError(f"found {char} at {self._at + 1}; to match it, write \\{char}")
        self._at += 1
        return self.automaton.position(_one(char))

    def _escaped(self) -> _Test:
        char = self._next
        self._at += 1
        if not char:
            raise ValueError("found \\ at the end; expected a character after it")
        if char.lower() in _CLASSES:
            test = _CLASSES[char.lower()]
            return test if char.islower() else lambda char: not test(char)
        if char.isalnum():
            raise ValueError(f"found \\{char}; expected \\d, \\s, \\w or a sign such as \\.")
        return _one(char)

    def _class(self) -> _Test:
        negated = self._take("^")
        tests: list[_Test] = []
        begin = self._at
        while self._next != "]" or self._at == begin:
            if not self._next:
                raise ValueError("a [ is not closed; expected ]")
            tests.append(self._member())
        self._at += 1
        if negated:
            return lambda char: not any(test(char) for test in tests)
        return lambda char: any(test(char) for test in tests)

    def _member(self) -> _Test:
        if self._take("\\"):
            at = self._at
            test = self._escaped()
            low = self._pattern[at]
            if low.lower() in _CLASSES:
                return test
        else:
            low = self._next
            self._at += 1
        if self._next == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            self._take("\\")
            high = self._next
            self._at += 1
            if high < low:
                raise ValueError(f"found [{low}-{high}]; expected the lower character first")
            return lambda char: any(low <= each <= high for each in (char, char.swapcase()))
        return _one(low)


def _one(char: str) -> _Test:
    folded = char.lower()
    return lambda other: other.lower() == folded


def _places(bits: int) -> Sequence[int]:
    places = []
    while bits:
        lowest = bits & -bits
        places.append(lowest.bit_length() - 1)
        bits ^= lowest
    return places


class LinearPattern:
    """A regular expression; `search` takes linear time.

    Raises:
        ValueError: it is not one, or has what is not regular, such as a reference to a group.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        parser = _Parser(pattern)
        self._alternatives = parser.parse()
        self._tests = parser.automaton.tests
        self._follow = parser.automaton.follow
        self._accepting: dict[str, int] = {}
        self._successors: dict[int, int] = {}
        self._anchored = self._free = self._at_end = self._anywhere = 0
        for each in self._alternatives:
            if each.at_start:
                self._anchored |= each.part.first
            else:
                self._free |= each.part.first
            if each.at_end:
                self._at_end |= each.part.last
            else:
                self._anywhere |= each.part.last

    def search(self, text: str) -> bool:
        """Whether the pattern matches somewhere in a text."""
        for each in self._alternatives:
            if each.part.optional and not (each.at_start and each.at_end and text):
                return True
        reached, begin = 0, self._anchored | self._free
        for char in text:
            reached = (self._after(reached) | begin) & self._accepts(char)
            if reached & self._anywhere:
                return True
            begin = self._free
        return bool(reached & self._at_end)

    def _accepts(self, char: str) -> int:
        bits = self._accepting.get(char)
        if bits is None:
            bits = sum(1 << place for place, test in enumerate(self._tests) if test(char))
            if len(self._accepting) == _REMEMBERED:
                self._accepting.clear()
            self._accepting[char] = bits
        return bits

    def _after(self, reached: int) -> int:
        if not reached:
            return 0
        bits = self._successors.get(reached)
        if bits is None:
            bits = 0
            for place in _places(reached):
                bits |= self._follow[place]
            if len(self._successors) == _REMEMBERED:
                self._successors.clear()
            self._successors[reached] = bits
        return bits

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinearPattern) and other.pattern == self.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"LinearPattern({self.pattern!r})"

    def __str__(self) -> str:
        return self.pattern
