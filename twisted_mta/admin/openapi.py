"""The description of the API in the format of OpenAPI 3.1, for programs and their generators."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..mail.events import TYPES
from ..queue.operator.operations import ACTIONS, BYS
from ..queue.operator.suspended import LONGEST_REASON
from ..telemetry.recent_sessions import MOST_SESSIONS
from . import (
    backup_api,
    events_api,
    messages_api,
    queue_api,
    sessions_api,
    suppression_api,
    tls_api,
    tls_reports,
    webhooks_api,
)
from .http import EVENTS, JSON, LINES

PATH = "/v1/openapi.json"

_Schema = Mapping[str, Any]
_TEXT: _Schema = {"type": "string"}
_COUNT: _Schema = {"type": "integer", "minimum": 0}
_OBJECT: _Schema = {"type": "object"}
_CONTENT = "message/rfc822"
_ID: _Schema = {"type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{13}$"}
_ADDRESS: _Schema = {
    "oneOf": [
        {"type": "string"},
        {**_OBJECT, "properties": {"address": _TEXT, "name": _TEXT}, "required": ["address"]},
    ]
}
_ADDRESSES: _Schema = {"anyOf": [_ADDRESS, {"type": "array", "items": _ADDRESS, "maxItems": 1000}]}


def _object(required: Mapping[str, _Schema], optional: Mapping[str, _Schema] = {}) -> _Schema:
    """Return the schema of an answer, which may have further members."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def _list(items: _Schema = _OBJECT) -> _Schema:
    return {"type": "array", "items": items}


def _nullable(kind: str) -> _Schema:
    return {"type": [kind, "null"]}


_VERSION = {"version": {"const": 1}}
_ERROR = _object({"error": _TEXT})
_REFUSAL = _object({"error": _TEXT}, {"reply": _TEXT, "recipients": _OBJECT})
_FIELDS: _Schema = {
    "type": "object",
    "properties": {
        "from": _ADDRESSES,
        "to": _ADDRESSES,
        "cc": _ADDRESSES,
        "bcc": _ADDRESSES,
        "reply_to": _ADDRESSES,
        "sender": _TEXT,
        "subject": {"type": "string", "maxLength": 2000},
        "text": _nullable("string"),
        "html": _nullable("string"),
        "headers": {"type": "object", "additionalProperties": _TEXT, "maxProperties": 100},
        "attachments": {
            "type": "array",
            "maxItems": 100,
            "items": {
                "type": "object",
                "properties": {
                    "filename": _TEXT,
                    "content_type": _TEXT,
                    "content": {"type": "string", "contentEncoding": "base64"},
                },
                "required": ["content"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["from"],
    "additionalProperties": False,
}
_EXAMPLE = {
    "from": "Shop <shop@example.net>",
    "to": ["ann@example.org"],
    "subject": "Your order",
    "text": "It is on its way.",
}
_SELECTION: _Schema = {
    "type": "object",
    "properties": {
        "ids": _list(_TEXT),
        "to": _TEXT,
        "from": _TEXT,
        "domain": _TEXT,
        "state": {"enum": ["queued", "deferred", "held", "quarantined"]},
        "older": {"type": "number", "minimum": 0},
        "all": {"type": "boolean"},
        "dry_run": {"type": "boolean"},
        "limit": {"type": "integer", "minimum": 1},
        "after": _TEXT,
    },
    "additionalProperties": False,
}
_BY: _Schema = {"enum": list(BYS)}
_GROUP = _object(
    {
        "name": _nullable("string"),
        "recipients": _COUNT,
        "messages": _COUNT,
        "deferred": _COUNT,
        "held": _COUNT,
        "oldest": {"type": "number"},
    }
)
_RECORD = {
    "record": _OBJECT,
    "content": {"type": ["string", "null"], "contentEncoding": "base64"},
    "quarantine": _nullable("string"),
    "in_delivery": _list(_COUNT),
    "content_begins": _COUNT,
}
_COUNTS = _object(
    {
        **_VERSION,
        "action": {"enum": list(ACTIONS)},
        "dry_run": {"type": "boolean"},
        "messages": _COUNT,
        "recipients": _COUNT,
        "busy": _COUNT,
        "elsewhere": _COUNT,
        "looked_at": _COUNT,
        "next": _nullable("string"),
        "missing": _list(),
    }
)


def _query(name: str, schema: _Schema = _TEXT, *, required: bool = False) -> _Schema:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _in_path(name: str, schema: _Schema = _TEXT) -> _Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _answer(description: str, schema: _Schema | None = None, media: str = JSON) -> _Schema:
    content = {} if schema is None else {"content": {media: {"schema": schema}}}
    return {"description": description, **content}


_REFUSALS = {
    "400": _answer("The request cannot be read.", _ERROR),
    "401": _answer("A token or a session is missing.", _ERROR),
    "403": _answer("The token has another scope.", _ERROR),
    "404": _answer("There is no such thing.", _ERROR),
    "413": _answer("The request is too long.", _ERROR),
    "503": _answer("No answer is possible now.", _ERROR),
}


def _operation(
    scope: str,
    summary: str,
    answer: _Schema,
    *,
    code: str = "200",
    parameters: Sequence[_Schema] = (),
    body: _Schema | None = None,
    refusals: Mapping[str, _Schema] = {},
) -> dict[str, Any]:
    """Return an operation; its identifier is that of `document`."""
    operation: dict[str, Any] = {
        "summary": summary,
        "security": [{"token": [scope]}],
        "responses": {code: answer, **_REFUSALS, **refusals},
    }
    if parameters:
        operation["parameters"] = list(parameters)
    if body is not None:
        operation["requestBody"] = body
    return operation


def _action(summary: str) -> dict[str, Any]:
    done = _object({**_VERSION, "action": _TEXT, "lines": _list(_TEXT)})
    refused = {"409": _answer("It was refused, and nothing has changed.", _ERROR)}
    return {"post": _operation("act", summary, _answer("It was done.", done), refusals=refused)}


def _reading(summary: str, schema: _Schema, *parameters: _Schema, **rest: Any) -> dict[str, Any]:
    answered = _answer("The answer.", schema)
    return {"get": _operation("read", summary, answered, parameters=parameters, **rest)}


def _paths() -> dict[str, Any]:
    queue = queue_api.PATH
    selecting = [
        _query("id", _list(_TEXT)),
        *map(_query, ("to", "from", "domain")),
        _query("state", _SELECTION["properties"]["state"]),
        _query("older", _SELECTION["properties"]["older"]),
    ]
    paging = (_query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}), _query("after"))
    conflict = {"409": _answer("It cannot be done now.", _ERROR)}
    hosts = _object({**_VERSION, "hosts": _list()}, {"domain": _OBJECT})
    domain = _in_path("domain")
    paths: dict[str, Any] = {
        "/v1/status": _reading("The state of all processes", _object(_VERSION)),
        "/v1/metrics": _reading("The metrics", _object({**_VERSION, "metrics": _OBJECT})),
        queue: _reading(
            "Messages in the queue, the oldest first",
            _object(
                {
                    **_VERSION,
                    "messages": _list(_object({"id": _ID, "recipients": _list()})),
                    "next": _nullable("string"),
                    "missing": _list(),
                }
            ),
            *selecting,
            *paging,
        ),
        f"{queue}/summary": _reading(
            "How much mail is in the queue, in groups",
            _object(
                {
                    **_VERSION,
                    "by": _BY,
                    "groups": _list(_GROUP),
                    "others": {"anyOf": [_GROUP, {"type": "null"}]},
                    "missing": _list(),
                }
            ),
            _query("by", _BY),
            paging[0],
            *selecting[3:],
        ),
        f"{queue}/records": _reading(
            "What another queue needs to go on with messages, shard by shard",
            _object(
                {
                    **_VERSION,
                    "records": _list(_object(_RECORD)),
                    "next": _nullable("string"),
                    "missing": _list(),
                }
            ),
            *selecting,
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 250}),
            _query("after"),
        ),
        f"{queue}/{{id}}": _reading(
            "One message", _object({**_VERSION, "message": _OBJECT}), _in_path("id", _ID)
        ),
        f"{queue}/{{id}}/body": {
            "get": _operation(
                "read",
                "The content of a message",
                _answer("The content, as it is stored.", _TEXT, _CONTENT),
                parameters=[_in_path("id", _ID)],
            )
        },
        f"{queue}/{{id}}/record": _reading(
            "What another queue needs to go on with a message",
            _object({**_VERSION, **_RECORD}),
            _in_path("id", _ID),
        ),
        **{
            f"{queue}/{action}": {
                "post": _operation(
                    "act",
                    f"{action.capitalize()} the mail that filters pick",
                    _answer("How much it was.", _COUNTS),
                    body={"required": True, "content": {JSON: {"schema": _SELECTION}}},
                )
            }
            for action in ACTIONS
        },
        queue_api.SUSPENDED_PATH: _suspended_paths(),
        "/v1/explain/{subject}": _reading(
            "Why a message is queued, or where mail for an address would go",
            _object(_VERSION),
            _in_path("subject"),
            *map(_query, ("client", "sender", "helo")),
        ),
        "/v1/trace": {
            "get": _operation(
                "read",
                "The lines of sessions, as they happen",
                _answer("A line of JSON for each.", _TEXT, LINES),
                parameters=[
                    _query(name)
                    for name in ("direction", "client", "next_hop", "sender", "recipient")
                ],
                refusals=conflict,
            )
        },
        events_api.PATH: {
            "get": _operation(
                "read",
                "The steps of mail, as they happen",
                _answer("Server-sent events.", _TEXT, EVENTS),
                parameters=[
                    _query("types"),
                    {"name": "Last-Event-ID", "in": "header", "schema": _TEXT},
                ],
            )
        },
        messages_api.PATH: {"post": _message_operation()},
        tls_api.PATH: _reading("Hosts that TLS was used with", hosts),
        f"{tls_api.PATH}/{{domain}}": _reading("The TLS of mail for a domain", hosts, domain),
        f"{tls_api.PATH}/{{domain}}/probe": {
            "post": _operation(
                "act", "Try the TLS of a domain", _answer("The TLS.", hosts), parameters=[domain]
            )
        },
        f"{tls_api.PATH}/{{domain}}/forget": {
            "post": _operation(
                "act",
                "Forget that a host does TLS",
                _answer("It is forgotten.", _object({"host": _TEXT, "ports": _list(_COUNT)})),
                parameters=[domain],
            )
        },
        tls_reports.RECORDS: _reading(
            "What to publish about the TLS of our domains", _object(_VERSION)
        ),
        sessions_api.PATH: _reading(
            "The last sessions that have ended",
            _object(
                {
                    **_VERSION,
                    "sessions": _list(
                        _object(
                            {
                                "began": {"type": "number"},
                                "seconds": {"type": "number"},
                                "direction": {"enum": ["in", "out"]},
                                **dict.fromkeys(("kind", "peer", "host", "helo"), _TEXT),
                                **dict.fromkeys(("tls", "verdict", "end"), _TEXT),
                                "address": _nullable("string"),
                                "account": _nullable("string"),
                                **dict.fromkeys(("accepted", "refused", "worker"), _COUNT),
                                "replies": _list(_TEXT),
                            }
                        )
                    ),
                }
            ),
            _query("direction", {"enum": ["in", "out"]}),
            _query("peer", {"type": "string", "maxLength": 255}),
            _query("refused", {"type": "boolean"}),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_SESSIONS}),
        ),
        suppression_api.PATH: _reading(
            "The suppression list",
            _object(_VERSION),
            _query("limit", {"type": "integer"}),
            _query("after"),
            refusals=conflict,
        ),
        **{
            f"{suppression_api.PATH}/{action}": {
                "post": _operation(
                    "act",
                    f"{action.capitalize()} an address",
                    _answer("It was done.", _object(_VERSION)),
                    parameters=[_query("address", required=True), _query("reason")],
                    refusals=conflict,
                )
            }
            for action in ("add", "remove")
        },
        suppression_api.FEEDBACK_PATH: _reading(
            "Reports of complaints", _object(_VERSION), _query("account"), refusals=conflict
        ),
        webhooks_api.PATH: _reading(
            "The webhooks, and what waits for each", _object({**_VERSION, "webhooks": _list()})
        ),
        webhooks_api.TEST: {
            "post": _operation(
                "act",
                "Post a test event to webhooks",
                _answer("The answer of each.", _object({**_VERSION, "results": _list()})),
                parameters=[_query("url")],
                refusals=conflict,
            )
        },
        **{
            f"{backup_api.PATH}/{action}": {
                "post": _operation(
                    "act",
                    f"{action.capitalize()} keeping the files of the queue as they are",
                    _answer(
                        "Whether they are.",
                        _object({**_VERSION, "copy": _TEXT, "shards": _list()}),
                    ),
                    parameters=[
                        _query(
                            "copy",
                            {"type": "string", "pattern": "^[0-9A-Za-z]{1,64}$"},
                            required=True,
                        )
                    ],
                )
            }
            for action in backup_api.ACTIONS
        },
        "/v1/reload": _action("Read the configuration again"),
        "/v1/reopen-logs": _action("Close and open log files"),
        PATH: _reading("This description", _OBJECT),
    }
    reports = _object(_VERSION)
    paths[tls_reports.PATH] = {
        **_reading("Reports on TLS", reports, _query("domain"), refusals=conflict),
        "post": _operation(
            "act",
            "Send the reports on TLS now",
            _answer("They were sent.", reports),
            parameters=[_query("domain")],
            refusals=conflict,
        ),
    }
    return paths


def _suspended_paths() -> dict[str, Any]:
    since = {"since": {"type": "number"}, "until": _nullable("number"), "reason": _TEXT}
    facts = {**since, "by": _TEXT, "waiting": _COUNT}
    listed = _object({**_VERSION, "destinations": _list(_object({"destination": _TEXT, **facts}))})
    written: Mapping[str, _Schema] = {
        **_VERSION,
        "dry_run": {"type": "boolean"},
        "destination": _TEXT,
        "waiting": _COUNT,
    }
    wanted: _Schema = {
        "type": "object",
        "properties": {
            "destination": {
                "type": "string",
                "description": (
                    "A domain of recipients, .example.net for all domains below one, or a next hop"
                    " by its name in the status."
                ),
            },
            "reason": {"type": "string", "maxLength": LONGEST_REASON},
            "seconds": {"type": ["number", "null"], "minimum": 1, "maximum": 31_622_400},
            "dry_run": {"type": "boolean"},
        },
        "required": ["destination"],
        "additionalProperties": False,
    }
    return {
        **_reading("Destinations that the operator has suspended", listed, _query("destination")),
        "post": _operation(
            "act",
            "Suspend a destination",
            _answer("It is suspended, and so much mail waits.", _object(written, since)),
            body={"required": True, "content": {JSON: {"schema": wanted}}},
        ),
        "delete": _operation(
            "act",
            "Resume a destination, or all",
            _answer("They are resumed.", _object({**_VERSION, "resumed": _list(_TEXT)})),
            parameters=[_query("destination"), _query("all", {"const": "true"})],
        ),
    }


_EVENT = _object(
    {
        "id": {"type": "string", "pattern": "^evt_[0-9a-f]{24}$"},
        "type": {"enum": [*TYPES, "test"]},
        "timestamp": {"type": "string", "format": "date-time"},
        "data": _object(
            {"event": {"enum": [*TYPES, "test"]}, "at": {"type": "number"}},
            {
                "id": _ID,
                "sender": _TEXT,
                "recipients": _list(_TEXT),
                "more": _COUNT,
                "next_hop": _nullable("string"),
                "reply": _nullable("string"),
                "class": _nullable("string"),
            },
        ),
    }
)


def _webhook() -> _Schema:
    """Return the request that a receiver gets, see ``[[webhook]]``."""
    fields = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "operationId": "webhook_event",
        "summary": "A step of mail, signed as Standard Webhooks has it",
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": _TEXT} for name in fields
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": _EVENT}}},
        "responses": {
            "2XX": _answer("It was taken."),
            "410": _answer("The URL is disabled until a reload."),
            "default": _answer("It is posted again later."),
        },
    }


def _message_operation() -> dict[str, Any]:
    later = {"Retry-After": {"description": "seconds", "schema": _TEXT}}
    return _operation(
        "submit",
        "Hand over a message",
        _answer("It is in the queue.", _object({**_VERSION, "id": _ID})),
        code="202",
        parameters=[
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
            },
            _query("sender"),
            _query("recipient", {**_list(_TEXT), "maxItems": 1000}),
        ],
        body={
            "required": True,
            "description": "With message/rfc822, sender and recipient are in the query.",
            "content": {
                JSON: {"schema": _FIELDS, "example": _EXAMPLE},
                _CONTENT: {"schema": _TEXT},
            },
        },
        refusals={
            "409": _answer("The first request with this Idempotency-Key is under way.", _ERROR),
            "415": _answer("The body has another type.", _ERROR),
            "422": _answer("It is refused for good.", _REFUSAL),
            "429": {**_answer("The account has sent too much.", _REFUSAL), "headers": later},
            "503": {**_answer("It is refused for now.", _REFUSAL), "headers": later},
        },
    )


def document(version: str) -> bytes:
    """Return the description.

    Args:
        version: of twisted-mta.
    """
    paths = _paths()
    for path, operations in paths.items():
        for method, operation in operations.items():
            words = path.removeprefix("/v1/").replace("{", "").replace("}", "").replace("/", "_")
            operation["operationId"] = f"{method}_{words}".replace("-", "_").replace(".", "_")
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": "twisted-mta",
            "version": version,
            "description": "See “Monitor and control a running MTA”, the page on this API.",
        },
        "paths": paths,
        "webhooks": {"event": {"post": _webhook()}},
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "by twisted-mta users token; scopes: read, act, submit",
                }
            }
        },
    }
    return json.dumps(described, indent=2).encode("ascii") + b"\n"
