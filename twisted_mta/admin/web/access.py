"""Access over TCP: logins of browsers, bearer tokens of programs, reading alone on loopback.

Each request gets a `Grant`, or a refusal. It needs one scope, by its method and path:

    POST /v1/messages            submit
    GET and HEAD, of any path    read
    anything else                act

On a loopback address, reading needs neither a login nor a token, the contents of messages aside;
all else, and everything on another address, needs one of them. An account has all scopes, a token
has its own.

A session is a cookie that scripts cannot read and that other sites cannot make a browser send. Its
unsafe requests also repeat a token that only our own pages know, and come from our own origin.
Bearer tokens come in the Authorization field alone (RFC 6750 §2.1): one in the URL would be in
histories and logs.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ...auth.accounts import Accounts, account_key, verify
from ...auth.accounts_file import parse_in_slices as parse_accounts
from ...auth.accounts_file import read_content as read_accounts
from ...auth.throttle import Throttle, ThrottleSettings
from ...auth.tokens import PREFIX, Tokens
from ...auth.tokens import parse_in_slices as parse_tokens
from ...auth.tokens import read_content as read_tokens
from ...config import Config
from ...config.change import WARNING
from ...interfaces import Clock, Executor
from ...mail.counted import counted
from ...mail.printable import printable
from ...smtp.sasl.exchange import SASLError
from ...smtp.sasl.saslprep import prepared
from ...system.deadline import sleep
from ...system.limits import LocalLimits
from ...system.work import Work
from ..grant import ACT, ANONYMOUS, READ, SUBMIT, Grant
from ..http import IN_MEMORY, READING, Request, Response, error_response, json_response, only
from ..messages_api import PATH as MESSAGES
from .login_page import login_page
from .sessions import Session, Sessions

LOGIN = "/login"
LOGOUT = "/logout"
SESSION = "/v1/session"

_FORM = "application/x-www-form-urlencoded"
_LONGEST_FORM = 4096  # octets
_LONGEST_JSON = IN_MEMORY  # octets, as on the control socket
_COOKIE = "twisted-mta"
# By its prefix, browsers take this one over HTTPS alone, and for this host alone.
_SECURE_COOKIE = f"__Host-{_COOKIE}"
_LONGEST_PASSWORD = 1024  # octets
_AT_ONCE = 4  # passwords that are hashed, or wait for that
_CHALLENGE = 'Bearer realm="twisted-mta"'
_HTML = "text/html"
_IN_URL = ("access_token", "token", "password")


def scope_of(method: str, path: str) -> str:
    """Return the scope that a request needs."""
    if path == MESSAGES and method not in READING:
        return SUBMIT
    return READ if method in READING else ACT


@frozen
class _InForce:
    """The accounts and tokens in force.

    Attributes:
        accounts: that may log in.
        tokens: of programs.
        configured: whether there are files of them.
    """

    accounts: Accounts
    tokens: Tokens
    configured: bool = False


class Access:
    """Decides on the requests of one site.

    Args:
        clock: of sessions, and of the periods in which failed logins are counted.
        secret: returns that many random octets.
        executor: where passwords are hashed, few at a time.
        longest_message: returns the octets of a message that is handed over.

    Attributes:
        on_loopback: whether only this machine can connect to the site; it is not, until that is
            known.
        open: whether there are neither accounts nor tokens, and that is right: a capture server
            keeps nothing but mail of tests.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        clock: Clock,
        secret: Callable[[int], bytes],
        executor: Executor,
        longest_message: Callable[[], int] = lambda: 0,
        open: bool = False,
        on_loopback: bool = False,
    ) -> None:
        self.on_loopback = on_loopback
        self.open = open
        self._clock = clock
        self._executor = executor
        self._longest_message = longest_message
        self._in_force = _InForce(Accounts(), Tokens())
        self._sessions = Sessions(clock=clock, secret=secret)
        self._throttle = Throttle(ThrottleSettings(), limits=LocalLimits(), clock=clock)
        self._judging = 0

    # Its files.

    def load(self, config: Config) -> Work[Callable[[], Sequence[str]]]:
        """Read the files of a configuration; nothing is in force yet. Blocks.

        Returns:
            A function that puts them in force, and returns printable lines about changes.

        Raises:
            AccountsError: the file of accounts cannot be used.
            TokensError: the file of tokens cannot be used.
        """
        page = config.web_page
        accounts, tokens = Accounts(), Tokens()
        if page.users is not None:
            accounts = yield from parse_accounts(read_accounts(page.users), page.users)
        if page.tokens is not None:
            tokens = yield from parse_tokens(read_tokens(page.tokens), page.tokens)
        loaded = _InForce(accounts, tokens, page.users is not None or page.tokens is not None)
        settings = ThrottleSettings(
            per_account=config.auth_failures_per_account,
            per_address=config.auth_failures_per_address,
            period=config.auth_failure_period,
            delay=config.auth_failure_delay,
        )

        def use() -> Sequence[str]:
            before, self._in_force = self._in_force, loaded
            self._throttle.update(settings)
            lines = []
            if page.users is not None and before.accounts != accounts:
                lines.append(
                    f"{printable(page.users)}: {counted(len(accounts.by_name), 'account')}"
                )
            if page.tokens is not None and before.tokens != tokens:
                lines.append(f"{printable(page.tokens)}: {counted(len(tokens.by_digest), 'token')}")
            if page.users is not None and page.users == config.users:
                lines.append(
                    f"{WARNING}[web] users is the file of AUTH too: every account of it can read"
                    " all mail and control the MTA"
                )
            return lines

        return use

    @property
    def configured(self) -> bool:
        """Whether there are accounts or tokens."""
        return self._in_force.configured

    @property
    def has_logins(self) -> bool:
        """Whether there are accounts, for whom the login page is."""
        return bool(len(self._in_force.accounts.by_name))

    # Requests.

    def longest(self, request: Request) -> int:
        """Return how many octets of a request's body are kept, before it is read.

        Without a login or token they are read past, and use no memory.
        """
        if not self.configured:
            return 0
        if request.path == LOGIN and request.method == "POST":
            return _LONGEST_FORM
        grant = self._grant(request)
        if isinstance(grant, Response) or not grant.name:
            return 0
        if scope_of(request.method, request.path) == SUBMIT and grant.may(SUBMIT):
            return max(_LONGEST_JSON, self._longest_message())
        return _LONGEST_JSON

    def admit(self, request: Request) -> Request | Response:
        """Return a request with its `Grant`, or a refusal."""
        if not self.configured:
            if self.on_loopback or self.open:
                return evolve(request, public=True, grant=ANONYMOUS)
            return error_response(
                "found no login: on this address, a page is served to accounts (users) and tokens"
                " of [web] alone, and there are none; expected one of the two, or an endpoint on"
                " loopback",
                403,
            )
        if _secret_in_url(request):
            return error_response(
                "found a secret in the URL, which goes into histories and logs; replace it, and"
                " send it in the field Authorization: Bearer TOKEN",
                400,
            )
        grant = self._grant(request)
        if isinstance(grant, Response):
            return grant
        scope = scope_of(request.method, request.path)
        if not grant.may(scope):
            if grant.public or not grant.name:
                return self._unknown(request)
            return error_response(
                f"found a token with the scopes {', '.join(sorted(grant.scopes))}, expected one"
                f" with {scope}",
                403,
                # RFC 6750 §3.1
                headers={
                    "WWW-Authenticate": f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
                },
            )
        if grant.csrf and request.method not in READING:
            refusal = _of_other_origin(request) or _without_csrf_token(request, grant)
            if refusal is not None:
                return refusal
        user = f"{grant.name} ({'login' if grant.csrf else 'token'})" if grant.name else ""
        return evolve(request, public=grant.public, grant=grant, user=user)

    def _grant(self, request: Request) -> Grant | Response:
        """Return what the credentials of a request allow, or why they are refused."""
        written = request.fields.get("authorization", ())
        if len(written) > 1:
            return error_response("found several Authorization fields, expected one", 400)
        if written:
            scheme, _, text = written[0].partition(" ")
            token = None
            if scheme.lower() == "bearer":
                token = self._in_force.tokens.find(text.strip(" "))
            if token is None:
                return error_response(
                    "found credentials that are not known, expected Authorization: Bearer and a"
                    " token",
                    401,
                    headers={"WWW-Authenticate": f'{_CHALLENGE}, error="invalid_token"'},
                )
            return Grant(name=token.name, scopes=frozenset(token.scopes))
        session = self._session(request)
        if session is not None:
            return Grant(
                name=session.name, scopes=frozenset((READ, ACT, SUBMIT)), csrf=session.csrf
            )
        return ANONYMOUS if self.on_loopback else Grant()

    def _session(self, request: Request) -> Session | None:
        id = _session_id(request)
        session = self._sessions.find(id) if id else None
        if session is None:
            return None
        account = self._in_force.accounts.get(session.name)
        if account is None or account.argon2 != session.verifier:
            self._sessions.end(id)
            return None
        return session

    def _unknown(self, request: Request) -> Response:
        """Ask a client for a login or a token."""
        if self.has_logins and request.method in READING and _HTML in request.accept:
            return _redirect(LOGIN)
        return error_response(
            "found no login, expected Authorization: Bearer and a token, or a session"
            f" (POST {LOGIN})",
            401,
            headers={"WWW-Authenticate": _CHALLENGE},
        )

    def refusal_of_anonymous(self, request: Request) -> Response:
        """Ask for a login where a path cannot be read without."""
        return self._unknown(request)

    # Logins.

    def serves(self, path: str) -> bool:
        """Whether a path is answered here, for clients without a login too."""
        return self.configured and path in (LOGIN, LOGOUT, SESSION)

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request for one of these paths."""
        if request.path == LOGIN:
            return self._login_page(request)
        if request.path == LOGOUT:
            return self._logout(request)
        admitted = self.admit(request)
        if isinstance(admitted, Response):
            return admitted
        if request.method not in READING:
            return only(READING)
        grant = admitted.grant
        return json_response(
            {"name": grant.name, "scopes": sorted(grant.scopes), "csrf": grant.csrf}
        )

    def _login_page(self, request: Request) -> Response | Deferred[Response]:
        if not self.has_logins:
            return error_response("there are no accounts ([web] users)", 404)
        if request.method in READING:
            return login_page()
        if request.method != "POST":
            return only((*READING, "POST"))
        refusal = _of_other_origin(request)
        if refusal is not None:
            return refusal
        form = _form(request)
        if form is None:
            return error_response(f"expected {_FORM} with name and password", 415)
        name, password = form.get("name", ""), form.get("password", "")
        if len(password.encode("utf-8", "replace")) > _LONGEST_PASSWORD:
            return error_response("found a password of more than 1,024 octets", 400)
        if self._judging >= _AT_ONCE:
            return _busy("too many logins at a time; try again", 1)
        return Deferred.fromCoroutine(self._login(request, name, password))

    async def _login(self, request: Request, name: str, password: str) -> Response:
        try:
            name, password = prepared(name), prepared(password)
        except SASLError:
            name, password = "", ""
        key, address = account_key(name), request.client or None
        throttle = self._throttle
        self._judging += 1
        try:
            end = await throttle.turn(key)
            try:
                if not await throttle.allows(key, address):
                    self._say(request, name, "was not judged, after too many failures,")
                    return _busy(
                        "too many failed logins of this account or address; try again later",
                        round(throttle.settings.period),
                    )
                account = self._in_force.accounts.get(name)
                argon2 = None if account is None else account.argon2
                # Unknown names take the same work.
                matches = await self._executor(verify, argon2, password)
                if not matches or account is None or argon2 is None:
                    await throttle.failed(key, address)
                    account = None
            finally:
                end()
        finally:
            self._judging -= 1
        if account is None or argon2 is None:
            self._say(request, name, "failed to log in")
            await sleep(self._clock, throttle.settings.delay)
            return login_page(wrong=True)
        self._say(request, account.name, "logged in", good=True)
        id = self._sessions.begin(account.name, argon2)
        return _redirect("/", _cookie(request, id))

    def _logout(self, request: Request) -> Response:
        if request.method != "POST":
            return only(("POST",))
        session = self._session(request)
        if session is None:
            return _redirect(LOGIN)
        grant = Grant(name=session.name, csrf=session.csrf)
        refusal = _of_other_origin(request) or _without_csrf_token(request, grant)
        if refusal is not None:
            return refusal
        self._sessions.end(_session_id(request))
        return _redirect(LOGIN, _cookie(request, ""))

    def _say(self, request: Request, name: str, said: str, *, good: bool = False) -> None:
        log = self._log.info if good else self._log.warn
        log(
            "{peer} {said} at the page as user={user}",
            peer=printable(request.client),
            said=said,
            user=printable(name),
        )


# Parts of requests.


def _secret_in_url(request: Request) -> bool:
    """Whether a URL has a token, or what is named like one (RFC 6750 §2.3)."""
    if PREFIX in request.query or PREFIX in request.path:
        return True
    return any(name in _IN_URL for name, _ in parse_qsl(request.query, keep_blank_values=True))


def _session_id(request: Request) -> str:
    """Return the id of the session in the cookies; empty where there is none, or several.

    Under TLS only the cookie counts that nothing in clear can have set.
    """
    found: dict[str, list[str]] = {_SECURE_COOKIE: [], _COOKIE: []}
    for line in request.fields.get("cookie", ()):
        for each in line.split(";"):
            name, _, value = each.strip(" \t").partition("=")
            if name in found:
                found[name].append(value)
    for name in (_SECURE_COOKIE,) if request.secure else (_SECURE_COOKIE, _COOKIE):
        if found[name]:
            return found[name][0] if len(found[name]) == 1 else ""
    return ""


def _of_other_origin(request: Request) -> Response | None:
    """Return a refusal where a page of another origin has sent a request, else None.

    The origin is compared exactly: a page on another port of this host is of another origin, and
    browsers send it our cookie.
    """
    ours = {f"{scheme}://{host}".lower() for host in request.hosts for scheme in ("http", "https")}
    if request.secure:
        ours = {each for each in ours if each.startswith("https:")}
    site = request.fields.get("sec-fetch-site", ())
    if all(each.lower() in ours for each in request.origins) and all(
        each in ("same-origin", "none") for each in site
    ):
        return None
    return error_response("Pages from elsewhere are not answered.", 403)


def _without_csrf_token(request: Request, grant: Grant) -> Response | None:
    """Return a refusal where a request does not repeat the token of its session, else None."""
    said = request.only_field("x-csrf-token") or (_form(request) or {}).get("csrf", "")
    if said and hmac.compare_digest(said.encode("utf-8", "replace"), grant.csrf.encode("ascii")):
        return None
    return error_response(
        f"found no X-CSRF-Token of this session, expected the csrf of GET {SESSION}", 403
    )


def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None if the body is none."""
    content_type = request.only_field("content-type").partition(";")[0].strip().lower()
    if content_type != _FORM or len(request.body) > _LONGEST_FORM:
        return None
    try:
        text = request.body.decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return None


# Responses.


def _cookie(request: Request, id: str) -> str:
    """Return a Set-Cookie (RFC 6265 §4.1); an empty id removes the cookie."""
    # A proxy that has TLS itself says so by the origin that the browser names.
    secure = request.secure or any(each.startswith("https://") for each in request.origins)
    name, more = (_SECURE_COOKIE, "; Secure") if secure else (_COOKIE, "")
    ended = "" if id else "; Max-Age=0"
    return f"{name}={id}; Path=/; HttpOnly; SameSite=Strict{more}{ended}"


def _redirect(path: str, cookie: str = "") -> Response:
    headers = {"Location": path, **({"Set-Cookie": cookie} if cookie else {})}
    return Response(body=b"", code=303, headers=headers)


def _busy(text: str, seconds: int) -> Response:
    return error_response(text, 429, headers={"Retry-After": str(seconds)})
