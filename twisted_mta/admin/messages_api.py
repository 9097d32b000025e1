"""Mail over HTTP, on its way into the queue.

    POST /v1/messages    a message as ``message/rfc822``, with ``?sender=`` and ``?recipient=``,
                         which may be repeated; or its fields as JSON (`message_fields`)

The answer is 202, after the commit. A request with an Idempotency-Key may be repeated for a day:
the answer is that of the first one, and there is one message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..interfaces import Executor
from ..mail.printable import printable
from ..message.application_content import Content
from ..server.application_mail import LimitReached, Receipt, SubmissionRefused
from .http import Request, Response, error_response, json_response, only
from .idempotency import IdempotencyKeys, KnownRequest, digest_of
from .message_fields import FieldError, read_fields
from .status import VERSION

PATH = "/v1/messages"

LONGEST_JSON = 8 << 20
"""Octets of a message as JSON: it is read as a whole, and other work waits for parts of that."""

_RFC822 = "message/rfc822"
_JSON = "application/json"
_PARAMETERS = ("sender", "recipient")
_MOST_RECIPIENTS = 1_000
_LONGEST_KEY = 255  # characters
_RETRY = 60  # seconds until a client should try again


class Submit(Protocol):
    """Puts a message into the queue (`service.MailTransferAgent.submit`)."""

    def __call__(
        self, message: Content, *, sender: str, recipients: list[str], account: str | None
    ) -> Deferred[Receipt]:
        """Return the receipt after the commit, or fail with `SubmissionRefused`."""
        ...


class MessagesAPI:
    """Answers requests for `PATH`.

    Args:
        submit: puts a message into the queue.
        keys: of requests.
        executor: where files and JSON are read.
    """

    _log = Logger()

    def __init__(self, submit: Submit, *, keys: IdempotencyKeys, executor: Executor) -> None:
        self._submit = submit
        self._keys = keys
        self._executor = executor
        self._under_way: set[tuple[str, str]] = set()

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request."""
        if request.method != "POST":
            return only(("POST",))
        written = request.fields.get("idempotency-key", ())
        if not written:
            return Deferred.fromCoroutine(self._take(request))
        key = written[0]
        if len(written) > 1 or not 0 < len(key) <= _LONGEST_KEY or not _is_visible(key):
            return error_response(
                f"Idempotency-Key: expected one, of 1 to {_LONGEST_KEY} visible ASCII characters",
                400,
            )
        place = (request.grant.name, key)
        if place in self._under_way:
            return error_response(
                "Idempotency-Key: the first request with it is under way",
                409,
                headers={"Retry-After": "1"},
            )
        self._under_way.add(place)

        def ended(result: Any) -> Any:
            self._under_way.discard(place)
            return result

        return Deferred.fromCoroutine(self._take_once(request, *place)).addBoth(ended)

    async def _take_once(self, request: Request, owner: str, key: str) -> Response:
        head = f"{request.only_field('content-type')} {request.query}"
        digest = await self._executor(digest_of, head, request.content)
        known = await self._executor(self._keys.find, owner, key)
        if known is not None:
            if known.digest != digest:
                return error_response(
                    "Idempotency-Key: found another message than that of the first request with"
                    " it, expected the same",
                    422,
                )
            return _taken(known.id, {"Idempotency-Replayed": "true"})
        return await self._take(request, lambda id: self._keep(owner, key, digest, id))

    async def _keep(self, owner: str, key: str, digest: bytes, id: str) -> None:
        try:
            await self._executor(self._keys.keep, owner, key, KnownRequest(digest, id))
        except Exception:
            # The message is in the queue: the client is told so, or it would send it again.
            self._log.failure("the Idempotency-Key of {id} could not be stored", id=id)

    async def _take(self, request: Request, keep: Callable[[str], Any] | None = None) -> Response:
        try:
            message, sender, recipients = await self._read(request)
        except FieldError as error:
            return error_response(str(error), 400)
        if message is None:
            return error_response(f"expected a body of {_RFC822} or {_JSON}", 415)
        account = request.grant.name or None
        try:
            receipt = await self._submit(
                message, sender=sender, recipients=recipients, account=account
            )
        except SubmissionRefused as error:
            return _refused(error)
        except (TypeError, ValueError) as error:
            return error_response(str(error), 422)
        except RuntimeError as error:
            return error_response(str(error), 503, headers={"Retry-After": str(_RETRY)})
        if keep is not None:
            await keep(receipt.id)
        return _taken(receipt.id, {})

    async def _read(self, request: Request) -> tuple[Content | None, str, list[str]]:
        """Return the message, the reverse-path and the recipients; no message: an unknown type.

        Raises:
            FieldError: they cannot be read.
        """
        kind = request.only_field("content-type").partition(";")[0].strip().lower()
        if kind == _RFC822:
            sender, recipients = _envelope(request.query)
            return request.content, sender, recipients
        if kind != _JSON:
            return None, "", []
        if request.query:
            raise FieldError("found a query, expected all in the fields of the JSON object")
        octets = await self._executor(request.content.read, LONGEST_JSON + 1)
        if len(octets) > LONGEST_JSON:
            raise FieldError(
                f"found JSON of more than {LONGEST_JSON} octets, expected {_RFC822} for a message"
                " of that size"
            )
        given = await self._executor(read_fields, octets)
        return given.message, given.sender, list(given.recipients)


def _envelope(query: str) -> tuple[str, list[str]]:
    try:
        pairs = parse_qsl(
            query,
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=_MOST_RECIPIENTS + 1,
        )
    except ValueError:
        raise FieldError(
            f"expected ?sender=…&recipient=…, with {_MOST_RECIPIENTS} recipients at most"
        ) from None
    senders = [value for name, value in pairs if name == "sender"]
    recipients = [value for name, value in pairs if name == "recipient"]
    for name, _ in pairs:
        if name not in _PARAMETERS:
            raise FieldError(f"found {printable(name[:80])}, expected sender and recipient")
    if len(senders) != 1:
        raise FieldError(
            f"sender: found {len(senders)}, expected one; empty for the null reverse-path"
        )
    if not recipients:
        raise FieldError("recipient: found none, expected one at least")
    return senders[0], recipients


def _taken(id: str, headers: Mapping[str, str]) -> Response:
    return json_response({"version": VERSION, "id": id}, 202, headers=dict(headers))


def _refused(error: SubmissionRefused) -> Response:
    """Return a refusal: 422 for good; 503 or, for a limit of the account, 429 for now."""
    reasons = {
        "error": printable(str(error)),
        "reply": str(error.reply),
        "recipients": {address: str(reply) for address, reply in error.recipients.items()},
    }
    if error.reply.code // 100 == 5:
        return json_response(reasons, 422)
    code = 429 if isinstance(error, LimitReached) else 503
    return json_response(reasons, code, headers={"Retry-After": str(_RETRY)})


def _is_visible(text: str) -> bool:
    return all(33 <= ord(each) <= 126 for each in text)
