"""The rights of clients of the page and of the control socket."""

from __future__ import annotations

from attrs import field, frozen

READ = "read"
"""Everything that changes nothing; contents of messages are included."""

ACT = "act"
"""The actions of an operator."""

SUBMIT = "submit"
"""Handing over mail."""


@frozen(kw_only=True)
class Grant:
    """The rights of one client.

    Attributes:
        name: of its account or token; empty for one that has none.
        scopes: `READ`, `ACT`, `SUBMIT`.
        csrf: what its unsafe requests have to repeat, in the field X-CSRF-Token or in a form, as
            pages of other origins cannot; empty where it has no session.
        public: whether it has neither login nor token, and reads from this machine.
    """

    name: str = ""
    scopes: frozenset[str] = frozenset()
    csrf: str = field(default="", repr=False)
    public: bool = False

    def may(self, scope: str) -> bool:
        """Whether it may do what needs ``scope``."""
        return scope in self.scopes


OPERATOR = Grant(scopes=frozenset((READ, ACT, SUBMIT)))
"""The client of the control socket, which the file system has admitted."""

ANONYMOUS = Grant(scopes=frozenset((READ,)), public=True)
"""A client on loopback without a login."""
