"""One attempt to get a certificate, as a state machine without I/O (RFC 8555 §7).

`Issuance.begin` returns the first step, and each answer or pause leads to the next: a request to
send, a pause, or the chain. Whatever cannot go on raises an `ACMEError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from attrs import evolve, field, frozen

from ...mail.printable import printable
from .jws import AccountKey, Binding, base64url
from .messages import ACMEError, Answer, Authorization, Directory, Order, Problem, Request

_MOST_NONCES = 5  # times that a request is sent again because of its nonce (RFC 8555 §6.5)
_PAUSE = 3.0  # seconds between two looks, where the server does not say
_LONGEST_PAUSE = 60.0
_PATIENCE = 900.0  # seconds of pauses for one thing to be decided
_LARGEST_CHAIN = 65_536  # octets


class State(StrEnum):
    """A state of an attempt: what is waited for."""

    NEW = "new"
    DIRECTORY = "directory"
    ACCOUNT = "account"
    CONTACT = "contact"
    ORDER = "order"
    AUTHORIZATION = "authorization"
    CHALLENGE = "challenge"
    VALIDATING = "validating"
    READY = "ready"
    FINALIZING = "finalizing"
    PROCESSING = "processing"
    CERTIFICATE = "certificate"
    ISSUED = "issued"
    FAILED = "failed"


class Event(StrEnum):
    """An event that changes the state of an attempt."""

    BEGIN = "begin"
    NO_ACCOUNT = "no account"
    HAS_ACCOUNT = "has an account"
    OTHER_CONTACT = "other contact"
    ACCEPTED = "accepted"
    ANOTHER = "another name"
    PENDING = "pending"
    PAUSED = "paused"
    VALID = "valid"
    LAST_VALID = "last valid"
    FAIL = "fail"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.NEW: {Event.BEGIN: State.DIRECTORY},
    State.DIRECTORY: {
        Event.NO_ACCOUNT: State.ACCOUNT,
        Event.OTHER_CONTACT: State.CONTACT,
        Event.HAS_ACCOUNT: State.ORDER,
        Event.FAIL: State.FAILED,
    },
    State.ACCOUNT: {Event.ACCEPTED: State.ORDER, Event.FAIL: State.FAILED},
    State.CONTACT: {
        Event.ACCEPTED: State.ORDER,
        Event.NO_ACCOUNT: State.ACCOUNT,
        Event.FAIL: State.FAILED,
    },
    State.ORDER: {
        Event.ACCEPTED: State.AUTHORIZATION,
        Event.VALID: State.READY,
        Event.NO_ACCOUNT: State.ACCOUNT,
        Event.FAIL: State.FAILED,
    },
    # A name's authorization was asked for; valid ones need no challenge.
    State.AUTHORIZATION: {
        Event.PENDING: State.CHALLENGE,
        Event.ANOTHER: State.AUTHORIZATION,
        Event.LAST_VALID: State.READY,
        Event.FAIL: State.FAILED,
    },
    # The server was told that it may fetch the answer to its challenge.
    State.CHALLENGE: {Event.ACCEPTED: State.VALIDATING, Event.FAIL: State.FAILED},
    State.VALIDATING: {
        Event.PENDING: State.VALIDATING,
        Event.PAUSED: State.VALIDATING,
        Event.ANOTHER: State.AUTHORIZATION,
        Event.LAST_VALID: State.READY,
        Event.FAIL: State.FAILED,
    },
    # All names are validated: the order becomes ready, and gets the certificate request.
    State.READY: {
        Event.PENDING: State.READY,
        Event.PAUSED: State.READY,
        Event.ACCEPTED: State.FINALIZING,
        Event.FAIL: State.FAILED,
    },
    State.FINALIZING: {
        Event.PENDING: State.PROCESSING,
        Event.VALID: State.CERTIFICATE,
        Event.FAIL: State.FAILED,
    },
    State.PROCESSING: {
        Event.PENDING: State.PROCESSING,
        Event.PAUSED: State.PROCESSING,
        Event.VALID: State.CERTIFICATE,
        Event.FAIL: State.FAILED,
    },
    State.CERTIFICATE: {Event.VALID: State.ISSUED, Event.FAIL: State.FAILED},
    State.ISSUED: {},
    State.FAILED: {},
}


@frozen
class Pause:
    """Wait before the next step.

    Attributes:
        seconds: how long.
    """

    seconds: float


@frozen
class Issued:
    """The end: a certificate.

    Attributes:
        chain: PEM, as the server sends it; not checked yet.
    """

    chain: bytes


Step = Request | Pause | Issued


@frozen(kw_only=True)
class Account:
    """An account at an authority, as it is kept.

    Attributes:
        key: signs its requests.
        url: names it; None: it is not made yet.
        contact: that the authority knows.
    """

    key: AccountKey = field(repr=False)
    url: str | None = None
    contact: tuple[str, ...] = ()


@frozen(kw_only=True)
class Wanted:
    """What is wanted.

    Attributes:
        directory: the URL of the authority's directory.
        names: for the certificate.
        csr: the certificate request, DER.
        contact: for the account.
        profile: the kind of certificate; None: that of the authority.
        binding: external account binding; None: none.
        replaces: the identifier of the certificate that it replaces (RFC 9773 §5); None: none.
    """

    directory: str
    names: tuple[str, ...]
    csr: bytes = field(repr=False)
    contact: tuple[str, ...] = ()
    profile: str | None = None
    binding: Binding | None = field(default=None, repr=False)
    replaces: str | None = None


class Issuance:
    """One attempt.

    Args:
        wanted: what is wanted.
        account: the account.
        save: keeps the account, as soon as it has changed.

    Attributes:
        state: of the attempt.
        answers: to challenges, by token; the server fetches them.
    """

    def __init__(
        self,
        wanted: Wanted,
        account: Account,
        *,
        save: Callable[[Account], object] = lambda account: None,
    ) -> None:
        self.state = State.NEW
        self.answers: dict[str, str] = {}
        self._wanted = wanted
        self._account = account
        self._save = save
        self._directory: Directory | None = None
        self._order: Order | None = None
        self._order_url = ""
        self._waiting: list[str] = []  # authorizations, the present one first
        self._name = ""  # of the present one
        self._replaces = wanted.replaces
        self._nonce: str | None = None
        # The signed request that waits for its answer: where it goes, and its content.
        self._posted: tuple[str, Mapping[str, object] | None] | None = None
        self._fetches_nonce = False
        self._refused_nonces = 0
        self._paused = 0.0
        self._registered = False

    def begin(self) -> Step:
        """Return the first step."""
        self._happened(Event.BEGIN)
        return Request("GET", self._wanted.directory)

    def answered(self, answer: Answer) -> Step:
        """Return the step after the answer to a request.

        Raises:
            ACMEError: there will be no certificate.
        """
        try:
            return self._answered(answer)
        except ACMEError as error:
            self._fail()
            wait = answer.retry_after if error.wait is None else error.wait
            raise evolve(error, wait=wait) from None

    def waited(self) -> Step:
        """Return the step after a pause."""
        self._happened(Event.PAUSED)
        if self.state is State.VALIDATING:
            return self._post(self._waiting[0])
        return self._post(self._order_url)

    # Signed requests, which need nonces.

    def _happened(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _fail(self) -> None:
        if Event.FAIL in TRANSITIONS[self.state]:
            self._happened(Event.FAIL)

    def _post(self, url: str, payload: Mapping[str, object] | None = None) -> Step:
        self._posted = url, payload
        nonce, self._nonce = self._nonce, None
        if nonce is None:
            self._fetches_nonce = True
            return Request("HEAD", self._known.new_nonce)
        # An account is made, and found, by its key itself (RFC 8555 §6.2).
        account = None if url == self._known.new_account else self._account.url
        content = self._account.key.sign(payload, url=url, nonce=nonce, account=account)
        return Request("POST", url, content)

    @property
    def _known(self) -> Directory:
        assert self._directory is not None
        return self._directory

    def _answered(self, answer: Answer) -> Step:
        self._nonce = answer.nonce or self._nonce
        if self._posted is None:
            return self._read_directory(answer)
        if self._fetches_nonce:
            self._fetches_nonce = False
            if not answer.is_good or self._nonce is None:
                raise ACMEError(f"the server gives no nonce: {self._unexpected(answer)}")
            return self._post(*self._posted)
        if answer.is_good:
            self._refused_nonces = 0
            return self._ANSWERED[self.state](self, answer)
        problem = answer.problem
        if problem.kind == "badNonce":
            self._refused_nonces += 1
            if self._refused_nonces > _MOST_NONCES:
                raise ACMEError(
                    f"the server has refused {self._refused_nonces} nonces in a row",
                    kind="badNonce",
                )
            return self._post(*self._posted)
        return self._refused(problem, answer)

    def _refused(self, problem: Problem, answer: Answer) -> Step:
        """Return the step after a refusal, if there is one that may help."""
        is_unknown = problem.kind == "accountDoesNotExist" and not self._registered
        if is_unknown and Event.NO_ACCOUNT in TRANSITIONS[self.state]:
            self._keep(evolve(self._account, url=None, contact=()))
            return self._register()
        is_refusal = 400 <= answer.code < 500 and answer.code != 429
        if self.state is State.ORDER and self._replaces and is_refusal:
            # Another order replaces that certificate, or another authority has issued it
            # (RFC 9773 §5): an order without this is as good.
            self._replaces = None
            return self._post(self._known.new_order, self._new_order())
        doing = _DOING[self.state]
        raise ACMEError(f"{doing}: {problem.text}", wait=answer.retry_after, kind=problem.kind)

    # One function for each state: what the answer leads to.

    def _read_directory(self, answer: Answer) -> Step:
        if not answer.is_good:
            raise ACMEError(f"{_DOING[self.state]}: {self._unexpected(answer)}")
        self._directory = known = Directory.read(answer)
        wanted = self._wanted
        if wanted.profile is not None and wanted.profile not in known.profiles:
            offered = ", ".join(printable(each)[:40] for each in known.profiles[:8]) or "none"
            raise ACMEError(
                f"the authority has no profile {printable(wanted.profile)}; it offers {offered}"
            )
        if self._account.url is None:
            return self._register()
        if self._account.contact != wanted.contact:
            self._happened(Event.OTHER_CONTACT)
            return self._post(self._account.url, {"contact": list(wanted.contact)})
        self._happened(Event.HAS_ACCOUNT)
        return self._post(known.new_order, self._new_order())

    def _register(self) -> Step:
        wanted, known = self._wanted, self._known
        if known.needs_binding and wanted.binding is None:
            raise ACMEError(
                "the authority takes accounts of its customers alone (external account binding);"
                " expected eab_key_id and eab_key_file"
            )
        self._happened(Event.NO_ACCOUNT)
        self._registered = True
        payload: dict[str, object] = {"termsOfServiceAgreed": True}
        if wanted.contact:
            payload["contact"] = list(wanted.contact)
        if wanted.binding is not None:
            bound = self._account.key.bound(wanted.binding, known.new_account)
            payload["externalAccountBinding"] = bound
        return self._post(known.new_account, payload)

    def _take_account(self, answer: Answer) -> Step:
        account = answer.location
        _require_valid_account(answer)
        self._keep(evolve(self._account, url=account, contact=self._wanted.contact))
        self._happened(Event.ACCEPTED)
        return self._post(self._known.new_order, self._new_order())

    def _take_contact(self, answer: Answer) -> Step:
        _require_valid_account(answer)
        self._keep(evolve(self._account, contact=self._wanted.contact))
        self._happened(Event.ACCEPTED)
        return self._post(self._known.new_order, self._new_order())

    def _keep(self, account: Account) -> None:
        self._account = account
        self._save(account)

    def _new_order(self) -> Mapping[str, object]:
        names = [{"type": "dns", "value": name} for name in self._wanted.names]
        payload: dict[str, object] = {"identifiers": names}
        if self._wanted.profile is not None:
            payload["profile"] = self._wanted.profile
        if self._replaces is not None and self._known.renewal_info is not None:
            payload["replaces"] = self._replaces
        else:
            self._replaces = None
        return payload

    def _take_order(self, answer: Answer) -> Step:
        self._order_url = answer.location
        self._order = order = Order.read(answer)
        self._require_order(order)
        if order.status == "ready":
            self._happened(Event.VALID)
            return self._take_ready_order(answer)
        self._waiting = list(order.authorizations)
        self._happened(Event.ACCEPTED)
        return self._post(self._waiting[0])

    def _take_authorization(self, answer: Answer) -> Step:
        authorization = Authorization.read(answer)
        self._name = authorization.name
        if authorization.name not in self._wanted.names:
            raise ACMEError("the order has an authorization of a name that was not asked for")
        if authorization.status == "valid":
            return self._next_authorization()
        challenge = authorization.challenge
        if authorization.status != "pending":
            raise self._invalid(authorization)
        if challenge is None:
            offered = ", ".join(authorization.offered) or "none"
            raise ACMEError(
                f"{self._name}: the authority offers the challenges {offered}, expected http-01"
            )
        self.answers[challenge.token] = self._account.key.key_authorization(challenge.token)
        self._happened(Event.PENDING)
        return self._post(challenge.url, {})

    def _take_challenge(self, answer: Answer) -> Step:
        self._happened(Event.ACCEPTED)
        self._paused = 0.0
        return self._pause(answer)

    def _look_at_authorization(self, answer: Answer) -> Step:
        authorization = Authorization.read(answer)
        if authorization.status == "pending":
            self._happened(Event.PENDING)
            return self._pause(answer)
        if authorization.status == "valid":
            return self._next_authorization()
        raise self._invalid(authorization)

    def _next_authorization(self) -> Step:
        self._waiting.pop(0)
        if self._waiting:
            self._happened(Event.ANOTHER)
            return self._post(self._waiting[0])
        self._happened(Event.LAST_VALID)
        self._paused = 0.0
        return self._post(self._order_url)

    def _take_ready_order(self, answer: Answer) -> Step:
        order = Order.read(answer)
        self._require_order(order)
        if order.status == "pending":
            self._happened(Event.PENDING)
            return self._pause(answer)
        self._happened(Event.ACCEPTED)
        self._paused = 0.0
        if order.status != "ready":  # an order of before was the same: it is finalized
            return self._take_final_order(answer)
        return self._post(order.finalize, {"csr": base64url(self._wanted.csr)})

    def _take_final_order(self, answer: Answer) -> Step:
        order = Order.read(answer)
        self._require_order(order)
        if order.status == "valid":
            if order.certificate is None:
                raise ACMEError("the order is valid, and names no certificate")
            self._happened(Event.VALID)
            return self._post(order.certificate)
        self._happened(Event.PENDING)
        return self._pause(answer)

    def _take_certificate(self, answer: Answer) -> Step:
        if answer.media_type != "application/pem-certificate-chain":
            found = printable(answer.media_type)[:60] or "no media type"
            raise ACMEError(
                f"the certificate comes as {found}, expected application/pem-certificate-chain",
                spent=True,
            )
        if len(answer.content) > _LARGEST_CHAIN:
            raise ACMEError(
                f"the chain has {len(answer.content)} octets, expected {_LARGEST_CHAIN} at most",
                spent=True,
            )
        self._happened(Event.VALID)
        return Issued(answer.content)

    def _pause(self, answer: Answer) -> Pause:
        if self._paused >= _PATIENCE:
            raise ACMEError(
                f"{_DOING[self.state]}: the authority has decided nothing within"
                f" {_PATIENCE / 60:.0f} min"
            )
        wanted = answer.retry_after
        seconds = min(max(_PAUSE if wanted is None else wanted, 1.0), _LONGEST_PAUSE)
        self._paused += seconds
        return Pause(seconds)

    def _require_order(self, order: Order) -> None:
        if order.status == "invalid":
            text = "no reason" if order.problem is None else order.problem.text
            kind = "" if order.problem is None else order.problem.kind
            raise ACMEError(f"the authority has ended the order: {text}", kind=kind)
        if order.status not in ("pending", "ready", "processing", "valid"):
            raise ACMEError(f"the order is {order.status}, expected pending or ready")

    def _invalid(self, authorization: Authorization) -> ACMEError:
        challenge = authorization.challenge
        if challenge is None or challenge.problem is None:
            return ACMEError(f"{self._name}: its authorization is {authorization.status}")
        return ACMEError(
            f"{self._name}: the authority cannot validate it: {challenge.problem.text}",
            kind=challenge.problem.kind,
        )

    def _unexpected(self, answer: Answer) -> str:
        if answer.is_good:
            return f"the answer {answer.code} has none"
        if 300 <= answer.code < 400:
            return f"the server answers {answer.code}; redirects are not followed"
        return answer.problem.text

    _ANSWERED: Mapping[State, Callable[[Issuance, Answer], Step]] = {
        State.ACCOUNT: _take_account,
        State.CONTACT: _take_contact,
        State.ORDER: _take_order,
        State.AUTHORIZATION: _take_authorization,
        State.CHALLENGE: _take_challenge,
        State.VALIDATING: _look_at_authorization,
        State.READY: _take_ready_order,
        State.FINALIZING: _take_final_order,
        State.PROCESSING: _take_final_order,
        State.CERTIFICATE: _take_certificate,
    }


_DOING: Mapping[State, str] = {
    State.NEW: "the attempt",
    State.DIRECTORY: "the directory",
    State.ACCOUNT: "the authority makes no account",
    State.CONTACT: "the authority does not take our contact",
    State.ORDER: "the authority takes no order",
    State.AUTHORIZATION: "the authority shows no authorization",
    State.CHALLENGE: "the authority takes no answer to its challenge",
    State.VALIDATING: "the validation",
    State.READY: "the order",
    State.FINALIZING: "the authority does not take the certificate request",
    State.PROCESSING: "the order",
    State.CERTIFICATE: "the authority does not hand out the certificate",
    State.ISSUED: "the certificate",
    State.FAILED: "the attempt",
}
"""The beginning of a reason, by the state in which a request was refused."""


def _require_valid_account(answer: Answer) -> None:
    status = answer.json().get("status")
    if status != "valid":
        raise ACMEError(f"the account is {printable(str(status))[:30]}, expected valid")
