"""XCLIENT, Postfix's extension: a proxy says which client it speaks for from now on.

    XCLIENT 1*( SP attribute "=" value )

Attributes come in any case, each at most once; a value is xtext (RFC 3461 §4). Success is answered
with the opening, 220, because the session begins anew: the client has yet to greet us, unless
``HELO`` tells how it greeted the proxy. With ``ADDR`` it is another client, of which only the other
attributes of the same command are known. Without it, attributes that are not given stay.

=============  =====================================================================================
``ADDR``       its address: IPv4, ``IPV6:`` and IPv6, or ``[UNAVAILABLE]``
``PORT``       its port, or ``[UNAVAILABLE]``
``NAME``       its name in the DNS, or ``[UNAVAILABLE]`` or ``[TEMPUNAVAIL]``: there is none (now)
``HELO``       the name in its HELO or EHLO, or ``[UNAVAILABLE]``: it has yet to greet us
``PROTO``      the verb: ``SMTP`` (HELO) or ``ESMTP`` (EHLO); ignored in LMTP
``LOGIN``      the user that the proxy has authenticated, or ``[UNAVAILABLE]``: none
``DESTADDR``   our address that it connected to, in the form of ``ADDR``
``DESTPORT``   our port that it connected to, or ``[UNAVAILABLE]``
=============  =====================================================================================

Permission goes by the connection, never by an earlier XCLIENT. A client without an address is
unknown: it has no permissions that go by address. ``LOGIN`` makes the session an authenticated one,
as AUTH does, whether AUTH is offered or not; no password is asked for, because the proxy has done
so. After an XCLIENT without it no user is authenticated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from attrs import evolve, field, frozen

from ...mail.address import AddressError, domain_name
from ...mail.reply import Reply
from ...mail.xtext import decode_xtext
from ..command import GREETING_NAME_WITH_SPACES, CommandError, Greeting
from ..peer import Peer
from ..sasl.exchange import SASLError
from ..sasl.saslprep import prepared
from . import Extension
from .views import NewClient, SessionView

NOT_AUTHORIZED = Reply.of(550, "7.0", "Insufficient authorization")
IN_TRANSACTION = Reply.of(503, "5.1", "XCLIENT is refused within a mail transaction")

_ATTRIBUTES = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
_UNAVAILABLE = "[UNAVAILABLE]"
_UNAVAILABLE_NOW = "[TEMPUNAVAIL]"

_VERBS: Mapping[str, Greeting] = {"SMTP": "HELO", "ESMTP": "EHLO"}

_PORT = re.compile(r"[0-9]{1,5}")
_LONGEST_LOGIN = 255  # characters, as for AUTH


@frozen(kw_only=True)
class XClient(Extension):
    """XCLIENT, announced to proxies with permission; others get 550.

    Attributes:
        allowed: returns whether a peer may speak for clients.
    """

    keyword: str = field(default=f"XCLIENT {' '.join(_ATTRIBUTES)}", init=False)
    allowed: Callable[[Peer], bool]

    def announcement(self, session: SessionView) -> str | None:
        """Return the keyword and the attributes, for a proxy with permission."""
        return self.keyword if self.allowed(session.proxy or session.peer) else None


def xclient(
    allowed: Callable[[Peer], bool], account_of: Callable[[str], str] = lambda login: login
) -> Extension:
    """Return the extension.

    Args:
        allowed: returns whether a peer may speak for clients.
        account_of: returns the name of the account that a login means, existing or not.
    """
    return XClient(
        allowed=allowed,
        commands={"XCLIENT": partial(_obey, account_of)},
        not_offered=NOT_AUTHORIZED,
    )


def _obey(account_of: Callable[[str], str], session: SessionView, argument: str) -> NewClient:
    if session.transaction is not None:
        raise CommandError(IN_TRANSACTION)
    given = _attributes(argument)
    client, local_address, local_port = session.peer, session.local_address, session.local_port
    if "ADDR" in given:
        client, local_address, local_port = Peer(_address("ADDR", given["ADDR"])), None, 0
    if "PORT" in given:
        client = evolve(client, port=_port("PORT", given["PORT"]))
    if "NAME" in given:
        client = evolve(client, name=_name(given["NAME"]))
    if "DESTADDR" in given:
        local_address = _address("DESTADDR", given["DESTADDR"])
    if "DESTPORT" in given:
        local_port = _port("DESTPORT", given["DESTPORT"])
    login = _login(given.get("LOGIN", _UNAVAILABLE))
    # RFC 2033 §4.1: in LMTP the only greeting is LHLO.
    verb = "LHLO" if session.lmtp else _proto(given.get("PROTO", "SMTP"))
    helo = _helo(given.get("HELO", _UNAVAILABLE))
    return NewClient(
        peer=client,
        local_address=local_address,
        local_port=local_port,
        greeting=verb if helo else None,
        helo=helo,
        identity=None if login is None else account_of(login),
    )


def _attributes(argument: str) -> Mapping[str, str]:
    given: dict[str, str] = {}
    for word in filter(None, argument.split(" ")):
        name, equals, value = word.partition("=")
        name = name.upper()
        if not equals or not value:
            raise _malformed("attribute=value")
        if name not in _ATTRIBUTES:
            raise _malformed(f"attributes are {', '.join(_ATTRIBUTES)}")
        if name in given:
            raise _malformed(f"{name} once")
        try:
            given[name] = decode_xtext(value)
        except ValueError as error:
            if name != "LOGIN" or isinstance(error, UnicodeDecodeError):
                raise _malformed(f"{name}=xtext") from None
            given[name] = value  # nginx writes the login as the user did: ann+shop
    if not given:
        raise _malformed("XCLIENT attribute=value ...")
    return given


def _address(attribute: str, value: str) -> str | None:
    if value.upper() == _UNAVAILABLE:
        return None
    try:
        if value[:5].upper() != "IPV6:":
            address: IPv4Address | IPv6Address = IPv4Address(value)
        elif "%" in value:  # a link-local scope has no meaning elsewhere
            raise ValueError
        else:
            whole = IPv6Address(value[5:])
            address = whole.ipv4_mapped or whole  # RFC 4291 §2.5.5.2
        if address.is_unspecified:
            raise ValueError
    except ValueError:
        raise _malformed(f"{attribute}=192.0.2.1 or {attribute}=IPV6:2001:db8::1") from None
    return str(address)


def _port(attribute: str, value: str) -> int:
    if value.upper() == _UNAVAILABLE:
        return 0
    if not _PORT.fullmatch(value) or int(value) > 65535:
        raise _malformed(f"{attribute}=number")
    return int(value)


def _login(value: str) -> str | None:
    if value.upper() == _UNAVAILABLE:
        return None
    try:
        login = prepared(value)
    except SASLError:
        login = ""
    if not login.isprintable() or not 0 < len(login) <= _LONGEST_LOGIN:
        raise _malformed("LOGIN=user")
    return login


def _name(value: str) -> str | None:
    if value.upper() in (_UNAVAILABLE, _UNAVAILABLE_NOW):
        return None
    try:
        name = domain_name(value)
    except AddressError:
        name = "["
    if name.startswith("["):
        raise _malformed("NAME=domain")
    return name


def _helo(value: str) -> str:
    if value.upper() == _UNAVAILABLE:
        return ""
    if not GREETING_NAME_WITH_SPACES.fullmatch(value):  # the proxy has taken it
        raise _malformed("HELO=name")
    return value


def _proto(value: str) -> Greeting:
    if value.upper() not in _VERBS:
        raise _malformed("PROTO=SMTP or PROTO=ESMTP")
    return _VERBS[value.upper()]


def _malformed(syntax: str) -> CommandError:
    return CommandError(Reply.of(501, "5.4", f"Syntax: {syntax}"))
