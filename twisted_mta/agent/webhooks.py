"""The webhooks of an agent: events are made, written with what they tell of, and posted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import Config, ConfigError, WebhookSettings
from ..config.webhook import webhook_name
from ..mail.address import Mailbox
from ..mail.counted import counted
from ..mail.envelope import Recipient
from ..mail.events import MailEvent, described
from ..mail.message import Message
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..queue.store.contract import StoreError, StoreFull
from ..queue.store.webhook_events import EventCount, NewEvent
from ..system.work import Work
from ..telemetry.metrics import Metrics, table
from ..tls.client import ClientContexts, ClientTLS, LoadedContext
from ..tls.https import HTTPSError
from ..webhooks.outbox import Outbox, Perform
from ..webhooks.sender import Sender, client_tls
from ..webhooks.signature import read_secrets
from ..webhooks.status import WebhookStatus
from ..webhooks.webhook import Webhook, key_of
from .events import About, accepted_events, changed_event, settled_events
from .resources import Resources

MOST_EVENTS = 100_000
"""Events that may wait for one webhook, in all processes together."""

MOST_OCTETS = 64 << 20
"""Octets of those."""

_DROPPED = 500  # events of a webhook that is no more, in one go


@frozen
class LoadedWebhooks:
    """Webhooks that are ready to be put in force.

    Attributes:
        webhooks: their settings and secrets.
        contexts: of their TLS.
    """

    webhooks: Sequence[tuple[WebhookSettings, tuple[bytes, ...]]]
    contexts: Mapping[ClientTLS, LoadedContext]


class Webhooks:
    """Tells webhooks of events (`queue.events_outbox.EventsOutbox`).

    Args:
        resources: of the agent.
        contexts: makes TLS connections.
        metrics: counts events.
        workers: processes that share the bounds.
    """

    _log = Logger()

    def __init__(
        self, *, resources: Resources, contexts: ClientContexts, metrics: Metrics, workers: int
    ) -> None:
        self._resources = resources
        self._contexts = contexts
        self._metrics = metrics
        self._sender = Sender(
            reactor=resources.reactor,
            resolver=resources.resolver,
            contexts=contexts,
            executor=resources.file_executor,
            wall_time=resources.wall_time,
        )
        self._most = EventCount(MOST_EVENTS // workers, MOST_OCTETS // workers)
        self._outbox = Outbox()
        self._webhooks: dict[str, Webhook] = {}  # by key, in the order of the settings
        self._secrets: dict[str, tuple[bytes, ...]] = {}  # by key
        self._by_type: dict[str, list[str]] = {}  # the keys of those that want a type of events
        self._started = False

    # Their life.

    def load(self, config: Config) -> Work[LoadedWebhooks]:
        """Read the secrets and authorities of webhooks, without any effect.

        Raises:
            ConfigError: a file of secrets cannot be used.
            CertificateError: a file of authorities cannot be used.
        """
        webhooks = []
        for each in config.webhooks:
            yield
            try:
                webhooks.append((each, read_secrets(each.secret_file)))
            except ConfigError as error:
                raise ConfigError(
                    f"[[webhook]] {printable(webhook_name(each.url))}: {error}"
                ) from None
        contexts = yield from self._contexts.load(
            client_tls(each) for each in config.webhooks if each.authorities is not None
        )
        return LoadedWebhooks(webhooks, contexts)

    def use(self, loaded: LoadedWebhooks) -> list[str]:
        """Put webhooks in force; return lines that say what has changed in files, printable."""
        lines = self._contexts.use(loaded.contexts)
        self._sender.close()  # the next requests have the new authorities
        before, self._webhooks = self._webhooks, {}
        secrets, self._secrets = self._secrets, {}
        for settings, signing in loaded.webhooks:
            key = key_of(settings.url)
            known = before.pop(key, None)
            self._secrets[key] = signing
            if known is None:
                known = self._make(settings, signing)
                if self._started:
                    known.start(EventCount())
            else:
                known.use(settings, signing)
                if secrets[key] != signing:
                    lines.append(
                        f"{printable(settings.secret_file)}:"
                        f" {counted(len(signing), 'secret signs', 'secrets sign')};"
                        f" before: {len(secrets[key])}"
                    )
            self._webhooks[key] = known
        for key, gone in before.items():
            gone.stop()
            gone.cancel()
            self._forget(key, gone.settings.url)
        self._by_type = {}
        for key, webhook in self._webhooks.items():
            for each in webhook.settings.events:
                self._by_type.setdefault(each, []).append(key)
        return lines

    def start(self, performs: Sequence[Perform]) -> None:
        """Begin to post what waits.

        Args:
            performs: apply operations to the stores of this process; new events go to the first.
        """
        self._outbox = Outbox(performs)
        self._started = True
        for key, webhook in list(self._webhooks.items()):
            self._webhooks[key] = self._make(webhook.settings, self._secrets[key])
        Deferred.fromCoroutine(self._look()).addErrback(self._not_counted)

    async def _look(self) -> None:
        """Count what waits, and forget the events of webhooks that are no more."""
        counts = await self._outbox.count()
        for key, webhook in self._webhooks.items():
            webhook.start(counts.get(key, EventCount()))
        for key in counts:
            if key not in self._webhooks:
                self._forget(key, "")

    def _not_counted(self, failure: Failure) -> None:
        self._log.warn(
            "the events for webhooks cannot be counted: {error}",
            error=printable(failure.getErrorMessage()),
        )
        for webhook in self._webhooks.values():
            webhook.start(EventCount())

    def _forget(self, key: str, url: str) -> None:
        """Drop the events of a webhook that is no more."""

        async def drop() -> None:
            dropped = 0
            while key not in self._webhooks:
                number = (await self._outbox.drop(key, _DROPPED)).number
                dropped += number
                if number < _DROPPED:
                    break
            if dropped:
                self._count("dropped", dropped)
                self._log.warn(
                    "dropped {_events} for the webhook {url}: it is not in the settings",
                    number=dropped,
                    _events=counted(dropped, "event"),
                    url=printable(webhook_name(url)) or "of before",
                )

        if self._started:
            Deferred.fromCoroutine(drop()).addErrback(self._not_recorded)

    def stop(self) -> Deferred[list[tuple[bool, None]]]:
        """Begin no further request; fires when those under way have ended."""
        stopped = DeferredList([each.stop() for each in self._webhooks.values()])
        return stopped.addCallback(self._close)

    def _close(self, stopped: list[tuple[bool, None]]) -> list[tuple[bool, None]]:
        self._sender.close()
        return stopped

    def cancel(self) -> None:
        """Give up the requests under way."""
        for each in self._webhooks.values():
            each.cancel()
        self._sender.close()

    def _make(self, settings: WebhookSettings, secrets: Sequence[bytes]) -> Webhook:
        resources = self._resources
        return Webhook(
            settings,
            secrets,
            outbox=self._outbox,
            post=self._sender.post,
            clock=resources.reactor,
            wall_time=resources.wall_time,
            random=resources.random,
            most=self._most,
            count=self._count,
        )

    def _count(self, result: str, number: int) -> None:
        self._metrics.count(table.WEBHOOK_EVENTS, result, by=number)

    # Events.

    def wants(self, kind: type[MailEvent]) -> bool:
        """Whether a webhook wants events of a class."""
        return kind.__name__.lower() in self._by_type

    def accepted(self, message: Message) -> Sequence[NewEvent]:
        """Return the events of a message that is to be accepted (`EventsOutbox`)."""
        if not self._by_type:
            return ()
        return self._new(accepted_events(message, self._resources.wall_time()))

    def settled(
        self, message: Message, outcomes: Sequence[Outcome], next_hop: str
    ) -> Sequence[NewEvent]:
        """Return the events of an attempt that is to be settled (`EventsOutbox`)."""
        if not self._by_type:
            return ()
        return self._new(settled_events(message, outcomes, next_hop, self._resources.wall_time()))

    def changed(
        self,
        kind: type[MailEvent],
        id: QueueId,
        reverse_path: Mailbox | None,
        recipients: Sequence[Recipient],
    ) -> None:
        """Write the event of recipients that were removed or held."""
        if self.wants(kind) and recipients:
            now = self._resources.wall_time()
            self.record(self._new([changed_event(kind, id, reverse_path, recipients, now)]))

    def record(self, events: Sequence[NewEvent]) -> None:
        """Write events of something that no operation of the queue has written."""
        if events:
            recording = Deferred.fromCoroutine(self._outbox.record(events))
            recording.addCallback(lambda _: self.written(events)).addErrback(self._not_recorded)

    def written(self, events: Sequence[NewEvent]) -> None:
        """Take note that events are in the store (`EventsOutbox`)."""
        counts: dict[str, EventCount] = {}
        for each in events:
            known = counts.get(each.webhook, EventCount())
            counts[each.webhook] = known + EventCount(1, len(each.body))
        for key, count in counts.items():
            if key in self._webhooks:
                self._webhooks[key].written(count.number, count.octets)

    def _new(self, events: Iterable[About]) -> list[NewEvent]:
        made: list[NewEvent] = []
        for event, _ in events:
            keys = self._by_type.get(event.type)
            if keys:
                name = f"evt_{self._resources.random.getrandbits(96):024x}"
                body = body_of(name, event.type, event.at, described(event))
                made += [NewEvent(key, name, body, event.at) for key in keys]
        return made

    def _not_recorded(self, failure: Failure) -> None:
        if failure.check(StoreError, StoreFull):
            self._log.warn(
                "events for webhooks cannot be written: {error}",
                error=printable(failure.getErrorMessage()),
            )
        else:
            self._log.failure("events for webhooks cannot be written", failure)

    # For operators.

    def statuses(self) -> Sequence[WebhookStatus]:
        """Return the state of each webhook."""
        return [each.status for each in self._webhooks.values()]

    async def test(self, url: str | None) -> Sequence[tuple[str, str]]:
        """Post a test event, once, to one webhook or to all.

        Returns:
            For each its URL without the query, and why it has not taken the event; empty: it has.

        Raises:
            ValueError: there is no such webhook.
        """
        chosen = [each for each in self._webhooks.values() if url in (None, each.settings.url)]
        if not chosen:
            known = ", ".join(each.status.url for each in self._webhooks.values())
            found = "found no webhook" if url is None else f"{printable(url)}: found no such URL"
            raise ValueError(f"{found}; expected {known or 'a table [[webhook]] in the settings'}")
        name = f"evt_{self._resources.random.getrandbits(96):024x}"
        now = self._resources.wall_time()
        body = body_of(name, "test", now, {"event": "test", "at": now})
        results = []
        for each in chosen:
            problem = ""
            try:
                await self._sender.post(each.settings, self._secrets[each.key], name, body)
            except HTTPSError as error:
                problem = error.reason
            results.append((each.status.url, problem))
        return results


def body_of(name: str, type: str, at: float, data: Mapping[str, object]) -> bytes:
    """Return what is posted: a JSON object in ASCII, in the shape of Standard Webhooks."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    content = {"id": name, "type": type, "timestamp": moment, "data": data}
    return json.dumps(content, separators=(",", ":")).encode("ascii")
