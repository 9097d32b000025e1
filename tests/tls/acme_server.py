"""An authority that speaks ACME as RFC 8555 and RFC 9773 demand, and refuses what they refuse.

It validates names by fetching the answer to its challenge from port 80 of their address, and signs
with an authority of its own. Faults are planned by kind of request (`ACMEServer.plan`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from tests.server.authority import Issued, name
from twisted_mta.testing.tls import PeerTLS

DAY = 86_400.0
_ERROR = "urn:ietf:params:acme:error:"
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@frozen
class Response:
    """What it answers."""

    code: int = 200
    value: Any = None
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes | None = None
    type: str = "application/json"

    def octets(self) -> bytes:
        body = self.body
        if body is None:
            body = b"" if self.value is None else json.dumps(self.value).encode("utf-8")
        lines = [f"HTTP/1.1 {self.code} Fine", f"Content-Length: {len(body)}", "Connection: close"]
        if body or self.body is not None:
            lines.append(f"Content-Type: {self.type}")
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def problem(code: int, kind: str, detail: str, **headers: str) -> Response:
    """Return a problem document."""
    return Response(
        code,
        {"type": _ERROR + kind, "detail": detail, "status": code},
        {name.replace("_", "-"): value for name, value in headers.items()},
        type="application/problem+json",
    )


class Refused(Exception):
    """A request that the RFC refuses."""

    def __init__(self, code: int, kind: str, detail: str, **headers: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.response = problem(code, kind, detail, **headers)


@define(eq=False)
class Account:
    url: str
    jwk: Mapping[str, str]
    contact: Sequence[str]


@define(eq=False)
class Authorization:
    number: int
    name: str
    token: str
    status: str = "pending"
    challenge: str = "pending"
    error: Any = None


@define(eq=False)
class Order:
    number: int
    account: Account
    names: Sequence[str]
    authorizations: Sequence[Authorization]
    status: str = "pending"
    certificate: bytes | None = None
    error: Any = None


@frozen
class Asked:
    """A request, with its signed content where it has one."""

    method: str
    path: str
    payload: Any = None
    account: Account | None = None
    jwk: Mapping[str, str] | None = None


class ACMEServer(Factory):
    """The authority.

    Args:
        clock: connects to names, and delays.
        wall_time: for certificates.
        shown: its certificate for HTTPS.
        host: of its URLs.
        addresses: of names, to validate them at.
        port: of challenges.

    Attributes:
        life: seconds of a certificate.
        backdated: seconds before now at which a certificate begins.
        bindings: keys of external account binding, by identifier; none: it is not needed.
        has_renewal_info: whether it says when to renew.
        window: returns the renewal window of a certificate; None: around two thirds of its life.
        delay: seconds until a validation, or a certificate, is done.
        issued: all certificates.
        requests: the kinds of all requests, in their order.
        refusals: what was refused by the rules of the RFC.
        plan: answers to the next requests of a kind, instead of the right ones.
        spoil: changes a chain before it is handed out.
    """

    noisy = False

    def __init__(
        self,
        clock: Any,
        *,
        wall_time: Callable[[], float],
        shown: Issued,
        host: str = "ca.example",
        addresses: Mapping[str, str] | None = None,
        port: int = 80,
        life: float = 90 * DAY,
    ) -> None:
        self.life = life
        self.backdated = 3600.0
        self.bindings: dict[str, bytes] = {}
        self.has_renewal_info = True
        self.profiles: dict[str, str] = {}
        self.window: Callable[[x509.Certificate], tuple[float, float]] | None = None
        self.delay = 2.0
        self.issued: list[x509.Certificate] = []
        self.requests: list[str] = []
        self.refusals: list[str] = []
        self.plan: dict[str, list[Response | bytes]] = defaultdict(list)
        self.spoil: Callable[[bytes], bytes] = lambda chain: chain
        self.replaced: set[str] = set()
        self.accounts: list[Account] = []
        self.orders: list[Order] = []
        self.base = f"https://{host}"
        self._clock = clock
        self._wall_time = wall_time
        self._shown = shown
        self._addresses = addresses or {}
        self._port = port
        self._numbers = count(1)
        self._timers: list[Any] = []
        self._nonces: set[str] = set()
        self._certificates: dict[str, x509.Certificate] = {}
        self.root, self._root_key = self._make_authority("Root", None)
        self._above, self._key = self._make_authority("Issuing", (self.root, self._root_key))

    def buildProtocol(self, addr: object) -> _Connection:
        return _Connection(self, PeerTLS(shown=(self._shown.certificate, self._shown.key)))

    def stopFactory(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()

    def _later(self, function: Callable[[], object]) -> None:
        self._timers = [each for each in self._timers if each.active()]
        self._timers.append(self._clock.callLater(self.delay, function))

    @property
    def directory(self) -> str:
        return f"{self.base}/directory"

    # The authority.

    def _make_authority(self, title: str, by: Any) -> tuple[x509.Certificate, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        moment = self._wall_time()
        made = (
            x509.CertificateBuilder()
            .subject_name(name(title))
            .issuer_name(name(title) if by is None else by[0].subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(moment - 365 * DAY, UTC))
            .not_valid_after(datetime.fromtimestamp(moment + 3650 * DAY, UTC))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key if by is None else by[1], hashes.SHA256())
        )
        return made, key

    def issue(self, names: Sequence[str], public_key: Any) -> bytes:
        """Return a chain for names and a key, the root left out."""
        moment = self._wall_time()
        end = moment + self.life
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._above.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(moment - self.backdated, UTC))
            .not_valid_after(datetime.fromtimestamp(end, UTC))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=True
            )
            .add_extension(x509.BasicConstraints(False, None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        self.issued.append(leaf)
        self._certificates[_certificate_id(leaf)] = leaf
        return leaf.public_bytes(Encoding.PEM) + self._above.public_bytes(Encoding.PEM)

    # Requests.

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Answer a request; return the octets."""
        kind = path.lstrip("/").partition("/")[0]
        self.requests.append(kind)
        planned = self.plan[kind].pop(0) if self.plan[kind] else None
        try:
            if isinstance(planned, bytes):
                return planned
            if planned is not None and method != "POST":
                return planned.octets()
            if not headers.get("user-agent"):
                raise Refused(400, "malformed", "no User-Agent (RFC 8555 §6.1)")
            answer = self._answered(kind, method, path, headers, body, planned)
        except Refused as refused:
            self.refusals.append(str(refused))
            answer = refused.response
        if method == "POST" and "Replay-Nonce" not in answer.headers:
            nonce = self._new_nonce()
            answer = Response(
                answer.code,
                answer.value,
                {**answer.headers, "Replay-Nonce": nonce},
                answer.body,
                answer.type,
            )
        return answer.octets()

    def _answered(
        self,
        kind: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        planned: Response | None,
    ) -> Response:
        functions: dict[tuple[str, str], Callable[[Asked], Response]] = {
            ("GET", "directory"): self._directory_of,
            ("HEAD", "newNonce"): self._nonce,
            ("GET", "newNonce"): self._nonce,
            ("GET", "renewalInfo"): self._renewal_info,
            ("POST", "newAccount"): self._new_account,
            ("POST", "account"): self._account,
            ("POST", "newOrder"): self._new_order,
            ("POST", "order"): self._order,
            ("POST", "authorization"): self._authorization,
            ("POST", "challenge"): self._challenge,
            ("POST", "finalize"): self._finalize,
            ("POST", "certificate"): self._certificate,
        }
        function = functions.get((method, kind))
        if function is None:
            raise Refused(
                405 if kind in {each for _, each in functions} else 404, "malformed", path
            )
        if method != "POST":
            return function(Asked(method, path))
        if headers.get("content-type") != "application/jose+json":
            raise Refused(415, "malformed", "expected application/jose+json (RFC 8555 §6.2)")
        asked = self._verified(path, body)
        if planned is not None:
            return planned
        return function(asked)

    def _verified(self, path: str, body: bytes) -> Asked:
        """Return a request whose signature is good (RFC 8555 §6.2 to §6.4)."""
        try:
            jws = json.loads(body)
            header = json.loads(_octets(jws["protected"]))
            payload = _octets(jws["payload"])
            signature = _octets(jws["signature"])
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(400, "malformed", f"no JWS: {error!r}") from None
        if set(jws) != {"protected", "payload", "signature"}:
            raise Refused(400, "malformed", "expected a flattened JWS without other members")
        if header.get("alg") != "ES256":
            raise Refused(400, "badSignatureAlgorithm", "expected ES256")
        if ("jwk" in header) == ("kid" in header):
            raise Refused(400, "malformed", "expected one of jwk and kid")
        if set(header) - {"jwk", "kid"} != {"alg", "nonce", "url"}:
            raise Refused(400, "malformed", "expected alg, nonce and url")
        account = None
        if "kid" in header:
            found = [each for each in self.accounts if each.url == header["kid"]]
            if not found:
                raise Refused(400, "accountDoesNotExist", "no such account")
            account = found[0]
        jwk = account.jwk if account else header["jwk"]
        if len(signature) != 64:
            raise Refused(400, "malformed", "expected a signature of 64 octets (RFC 7518 §3.4)")
        der = encode_dss_signature(
            int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        )
        signed = f"{jws['protected']}.{jws['payload']}".encode("ascii")
        try:
            _public_key(jwk).verify(der, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise Refused(400, "malformed", "the signature is wrong") from None
        if header["url"] != f"{self.base}{path}":
            raise Refused(401, "unauthorized", "url is not that of the request (RFC 8555 §6.4)")
        if header["nonce"] not in self._nonces:
            raise Refused(400, "badNonce", "the nonce was used, or is not ours")
        self._nonces.remove(header["nonce"])
        if (account is None) != (path == "/newAccount"):
            raise Refused(400, "malformed", "jwk for newAccount alone (RFC 8555 §6.2)")
        try:
            content = None if not payload else json.loads(payload)
        except ValueError:
            raise Refused(400, "malformed", "the payload is not JSON") from None
        return Asked("POST", path, content, account, jwk)

    def _new_nonce(self) -> str:
        nonce = _text(f"nonce {next(self._numbers)}")
        self._nonces.add(nonce)
        return nonce

    # Functions.

    def _directory_of(self, asked: Asked) -> Response:
        functions = {each: f"{self.base}/{each}" for each in ("newNonce", "newAccount", "newOrder")}
        if self.has_renewal_info:
            functions["renewalInfo"] = f"{self.base}/renewalInfo"
        meta: dict[str, Any] = {"termsOfService": f"{self.base}/terms"}
        if self.bindings:
            meta["externalAccountRequired"] = True
        if self.profiles:
            meta["profiles"] = self.profiles
        return Response(value={**functions, "meta": meta})

    def _nonce(self, asked: Asked) -> Response:
        headers = {"Replay-Nonce": self._new_nonce(), "Cache-Control": "no-store"}
        return Response(200 if asked.method == "HEAD" else 204, headers=headers)

    def _new_account(self, asked: Asked) -> Response:
        payload = asked.payload
        assert asked.jwk is not None
        for account in self.accounts:
            if account.jwk == asked.jwk:
                return self._shown_account(account, 200, {"Location": account.url})
        if payload.get("onlyReturnExisting"):
            raise Refused(400, "accountDoesNotExist", "no such account")
        if payload.get("termsOfServiceAgreed") is not True:
            raise Refused(403, "userActionRequired", "the terms have to be agreed to")
        self._require_contact(payload.get("contact", []))
        if self.bindings:
            self._require_binding(payload.get("externalAccountBinding"), asked.jwk)
        url = f"{self.base}/account/{next(self._numbers)}"
        account = Account(url, asked.jwk, payload.get("contact", []))
        self.accounts.append(account)
        return self._shown_account(account, 201, {"Location": url})

    def _require_contact(self, contact: Any) -> None:
        for each in contact:
            if not re.fullmatch(r"mailto:[^@,?]+@[^@,?]+", each):
                raise Refused(400, "unsupportedContact", each)

    def _require_binding(self, binding: Any, jwk: Mapping[str, str]) -> None:
        if binding is None:
            raise Refused(403, "externalAccountRequired", "customers alone")
        header = json.loads(_octets(binding["protected"]))
        if set(header) != {"alg", "kid", "url"} or header["alg"] != "HS256":
            raise Refused(400, "malformed", "expected alg HS256, kid and url (RFC 8555 §7.3.4)")
        key = self.bindings.get(header["kid"])
        signed = f"{binding['protected']}.{binding['payload']}".encode("ascii")
        if key is None or not hmac.compare_digest(
            hmac.digest(key, signed, "sha256"), _octets(binding["signature"])
        ):
            raise Refused(403, "unauthorized", "the binding is of no customer")
        if header["url"] != f"{self.base}/newAccount":
            raise Refused(401, "unauthorized", "url of the binding")
        if json.loads(_octets(binding["payload"])) != jwk:
            raise Refused(400, "malformed", "the binding is of another key")

    def _shown_account(self, account: Account, code: int, headers: Mapping[str, str]) -> Response:
        return Response(code, {"status": "valid", "contact": account.contact}, headers)

    def _account(self, asked: Asked) -> Response:
        account = self._owner(asked)
        if account.url != f"{self.base}{asked.path}":
            raise Refused(403, "unauthorized", "the account of others")
        if asked.payload is not None:
            self._require_contact(asked.payload.get("contact", []))
            account.contact = asked.payload.get("contact", account.contact)
        return self._shown_account(account, 200, {})

    def _owner(self, asked: Asked) -> Account:
        assert asked.account is not None
        return asked.account

    def _new_order(self, asked: Asked) -> Response:
        account, payload = self._owner(asked), asked.payload
        unknown = set(payload) - {"identifiers", "notBefore", "notAfter", "replaces", "profile"}
        if unknown:
            raise Refused(400, "malformed", f"unknown {unknown}")
        if payload.get("profile") is not None and payload["profile"] not in self.profiles:
            raise Refused(400, "invalidProfile", payload["profile"])
        names = []
        for identifier in payload["identifiers"]:
            if identifier["type"] != "dns":
                raise Refused(400, "unsupportedIdentifier", identifier["type"])
            if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", identifier["value"]):
                raise Refused(400, "rejectedIdentifier", identifier["value"])
            names.append(identifier["value"])
        replaces = payload.get("replaces")
        if replaces is not None:
            if not self.has_renewal_info or replaces not in self._certificates:
                raise Refused(404, "malformed", "replaces no certificate of ours")
            if replaces in self.replaced:
                raise Refused(409, "alreadyReplaced", "another order replaces it")
            self.replaced.add(replaces)
        authorizations = [
            Authorization(next(self._numbers), each, _text(f"token {next(self._numbers)}"))
            for each in names
        ]
        order = Order(next(self._numbers), account, names, authorizations)
        self.orders.append(order)
        location = {"Location": f"{self.base}/order/{order.number}"}
        return self._shown_order(order, 201, location)

    def _shown_order(
        self, order: Order, code: int = 200, headers: Mapping[str, str] | None = None
    ) -> Response:
        if order.status == "pending":
            states = {each.status for each in order.authorizations}
            if "invalid" in states:
                order.status = "invalid"
            elif states == {"valid"}:
                order.status = "ready"
        value: dict[str, Any] = {
            "status": order.status,
            "expires": "2099-01-01T00:00:00Z",
            "identifiers": [{"type": "dns", "value": each} for each in order.names],
            "authorizations": [
                f"{self.base}/authorization/{each.number}" for each in order.authorizations
            ],
            "finalize": f"{self.base}/finalize/{order.number}",
        }
        if order.certificate is not None and order.status == "valid":
            value["certificate"] = f"{self.base}/certificate/{order.number}"
        if order.error is not None:
            value["error"] = order.error
        more = {"Retry-After": "2"} if order.status == "processing" else {}
        return Response(code, value, {**(headers or {}), **more})

    def _own_order(self, asked: Asked) -> Order:
        number = int(asked.path.rpartition("/")[2])
        for order in self.orders:
            if order.number == number:
                if order.account is not asked.account:
                    raise Refused(403, "unauthorized", "the order of others")
                return order
        raise Refused(404, "malformed", "no such order")

    def _order(self, asked: Asked) -> Response:
        self._require_reading(asked)
        return self._shown_order(self._own_order(asked))

    def _require_reading(self, asked: Asked) -> None:
        if asked.payload is not None:
            raise Refused(400, "malformed", "expected POST-as-GET (RFC 8555 §6.3)")

    def _own_authorization(self, asked: Asked) -> Authorization:
        number = int(asked.path.rpartition("/")[2])
        for order in self.orders:
            for each in order.authorizations:
                if each.number == number and order.account is asked.account:
                    return each
        raise Refused(404, "malformed", "no such authorization")

    def _shown_challenge(self, authorization: Authorization) -> dict[str, Any]:
        value = {
            "type": "http-01",
            "url": f"{self.base}/challenge/{authorization.number}",
            "token": authorization.token,
            "status": authorization.challenge,
        }
        if authorization.error is not None:
            value["error"] = authorization.error
        return value

    def _authorization(self, asked: Asked) -> Response:
        self._require_reading(asked)
        authorization = self._own_authorization(asked)
        other = {
            "type": "dns-01",
            "url": f"{self.base}/challenge/0",
            "token": authorization.token,
            "status": "pending",
        }
        return Response(
            value={
                "status": authorization.status,
                "identifier": {"type": "dns", "value": authorization.name},
                "challenges": [other, self._shown_challenge(authorization)],
            }
        )

    def _challenge(self, asked: Asked) -> Response:
        if asked.payload != {}:
            raise Refused(400, "malformed", "expected {} (RFC 8555 §7.5.1)")
        authorization, owner = self._own_authorization(asked), self._owner(asked)
        if authorization.challenge == "pending":
            authorization.challenge = "processing"
            self._later(lambda: self._validate(authorization, owner))
        url = f"{self.base}/authorization/{authorization.number}"
        return Response(
            value=self._shown_challenge(authorization), headers={"Link": f'<{url}>;rel="up"'}
        )

    def _validate(self, authorization: Authorization, account: Account) -> None:
        """Fetch the answer to a challenge (RFC 8555 §8.3)."""
        thumbprint = _thumbprint(account.jwk)

        def fetched(response: bytes | None) -> None:
            head, _, body = (response or b"").partition(b"\r\n\r\n")
            expected = f"{authorization.token}.{thumbprint}".encode("ascii")
            if response is None:
                error = "connection", f"{authorization.name}: Connection refused"
            elif not head.startswith(b"HTTP/1.1 200 "):
                error = "unauthorized", f"Invalid response: {head[:30]!r}"
            elif body.rstrip() != expected:
                error = (
                    "incorrectResponse",
                    "The key authorization file from the server did not match",
                )
            else:
                authorization.status = authorization.challenge = "valid"
                return
            authorization.status = authorization.challenge = "invalid"
            kind, detail = error
            authorization.error = {"type": _ERROR + kind, "detail": detail, "status": 403}

        address = self._addresses.get(authorization.name)
        if address is None:
            fetched(None)
            return
        path = f"/.well-known/acme-challenge/{authorization.token}"
        self.fetch(authorization.name, address, path, fetched)

    def fetch(
        self, name: str, address: str, path: str, fetched: Callable[[bytes | None], object]
    ) -> None:
        """Send a request to port 80 of an address; call ``fetched`` with the response, or None."""
        self._clock.connectTCP(address, self._port, _Fetch(name, path, fetched), 10)

    def _finalize(self, asked: Asked) -> Response:
        order = self._own_order(asked)
        self._shown_order(order)  # it may have become ready
        if order.status != "ready":
            raise Refused(403, "orderNotReady", f"the order is {order.status}")
        try:
            csr = x509.load_der_x509_csr(_octets(asked.payload["csr"]))
            san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, KeyError, x509.ExtensionNotFound) as error:
            raise Refused(400, "badCSR", repr(error)) from None
        if not csr.is_signature_valid:
            raise Refused(400, "badCSR", "the signature is wrong")
        if sorted(san.get_values_for_type(x509.DNSName)) != sorted(order.names) or csr.subject:
            raise Refused(400, "badCSR", "expected the names of the order, and no other")
        if csr.public_key() == _public_key(order.account.jwk):
            raise Refused(400, "badCSR", "the key is that of the account (RFC 8555 §11.1)")
        order.status = "processing"

        def done() -> None:
            order.certificate = self.issue(order.names, csr.public_key())
            order.status = "valid"

        self._later(done)
        location = {"Location": f"{self.base}/order/{order.number}"}
        return self._shown_order(order, headers=location)

    def _certificate(self, asked: Asked) -> Response:
        self._require_reading(asked)
        order = self._own_order(asked)
        assert order.certificate is not None
        return Response(
            body=self.spoil(order.certificate), type="application/pem-certificate-chain"
        )

    def _renewal_info(self, asked: Asked) -> Response:
        found = self._certificates.get(asked.path.rpartition("/")[2])
        if found is None or not self.has_renewal_info:
            raise Refused(404, "malformed", "no certificate of ours")
        end = found.not_valid_after_utc.timestamp()
        start = max(found.not_valid_before_utc.timestamp(), end - self.life)
        third = start + (end - start) * 2 / 3
        window = third, third + (end - start) / 50
        if self.window is not None:
            window = self.window(found)
        first, last = (datetime.fromtimestamp(each, UTC).isoformat() for each in window)
        return Response(
            value={"suggestedWindow": {"start": first, "end": last}},
            headers={"Retry-After": "21600"},
        )


class _Connection(Protocol):
    """A connection of HTTPS with one request."""

    transport: Any

    def __init__(self, server: ACMEServer, tls: PeerTLS) -> None:
        self._server = server
        self._tls = tls
        self._octets = b""

    def connectionMade(self) -> None:
        self.transport.startTLS(self._tls)

    def dataReceived(self, data: bytes) -> None:
        self._octets += data
        head, end, body = self._octets.partition(b"\r\n\r\n")
        if not end:
            return
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {
            each.partition(":")[0].lower(): each.partition(":")[2].strip() for each in fields
        }
        if len(body) < int(headers.get("content-length", "0")):
            return
        method, path, _ = line.split(" ")
        answer = self._server.respond(method, path, headers, body)
        if method == "HEAD":
            answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        self.transport.write(answer)
        self.transport.loseConnection()


class _Fetching(Protocol):
    transport: Any

    def __init__(self, factory: _Fetch) -> None:
        self._factory = factory
        self._octets = b""

    def connectionMade(self) -> None:
        name, path = self._factory.name, self._factory.path
        request = f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
        self.transport.write(request.encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        self._octets += data

    def connectionLost(self, reason: object = None) -> None:
        self._factory.fetched(self._octets)


class _Fetch(ClientFactory):
    noisy = False

    def __init__(self, name: str, path: str, fetched: Callable[[bytes | None], object]) -> None:
        self.name = name
        self.path = path
        self.fetched = fetched

    def buildProtocol(self, addr: object) -> Protocol:
        return _Fetching(self)

    def clientConnectionFailed(self, connector: object, reason: object) -> None:
        self.fetched(None)


def _octets(text: str) -> bytes:
    if "=" in text or set(text) - set(_UPPER):
        raise ValueError("padding, or not base64url (RFC 8555 §6.1)")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _text(words: str) -> str:
    digest = hashlib.sha256(words.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _public_key(jwk: Mapping[str, str]) -> ec.EllipticCurvePublicKey:
    if set(jwk) != {"crv", "kty", "x", "y"} or (jwk["crv"], jwk["kty"]) != ("P-256", "EC"):
        raise Refused(400, "badPublicKey", "expected a key of P-256")
    x, y = (int.from_bytes(_octets(jwk[each]), "big") for each in "xy")
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _thumbprint(jwk: Mapping[str, str]) -> str:
    text = json.dumps({each: jwk[each] for each in sorted(jwk)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def _certificate_id(certificate: x509.Certificate) -> str:
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert found.key_identifier is not None
    serial = certificate.serial_number
    octets = serial.to_bytes((serial.bit_length() + 8) // 8, "big")
    parts = found.key_identifier, octets
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)
