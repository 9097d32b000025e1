"""A reload puts each setting in force: the agent is afterwards as one that was started with it.

The values that an agent holds are collected from its whole graph of objects, also those that
functions have captured. A setting that is copied somewhere at the start, and not again at a reload,
shows as a value that the reload leaves behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import types
from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs
from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.policy.dkim.key_files import write_key
from tests.server.authority import self_signed
from twisted_mta import Config
from twisted_mta.config import (
    DNSBL,
    DKIMKey,
    GreylistSettings,
    Listener,
    MilterSettings,
    PolicyServiceSettings,
    ReplyAction,
    SourceAddress,
    SourcePool,
    WebhookSettings,
)
from twisted_mta.config.account_limits import AccountLimit
from twisted_mta.config.catalog import TABLES
from twisted_mta.config.change import changes, fixed
from twisted_mta.config.checker import checker_spec
from twisted_mta.config.destination import Destination
from twisted_mta.config.feedback import FeedbackSettings
from twisted_mta.config.setting import ConfigError, settings_of
from twisted_mta.config.suppression import SuppressionSettings
from twisted_mta.mail.address import Mailbox
from twisted_mta.service import CannotReload
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.webhooks.signature import written
from twisted_mta.workers.spawning import packed, unpacked

ONE_VALUE = {("listener", "kind")}
"""Settings that have only one possible value, or decide what a listener is."""

OTHERS: Mapping[str, Any] = {
    "hostname": "other.example",
    "url": "postgresql://other.example/mta",
    "address": Mailbox("other", "localhost"),
    "hosts": ("other.example",),
    "publish": "tcp:8443",
    "mx": ("other.example",),
    "web": "tcp:8025",
    "endpoint": "tcp:2626:interface=127.0.0.1",
    "auth_mechanisms": ("PLAIN",),
    "ciphers": "ECDHE+AESGCM",
    "routes": (("*", "discard:"),),
    "local_domains": ("other.example",),
    "virtual_domains": ("other.example",),
    "relay_domains": ("relayed.example", "other.test"),
    "srs_domain": "other.example",
    "helo": "helo.example",
    "source_address": ("192.0.2.1",),
    "nameservers": ("192.0.2.1",),
    "relay_certificates": ("ab" * 32,),
    "domain": "other.example",
    "exchanger": ".other.example",
    "signed_name": "other.example",
    "bogus_name": "other.example",
    "username": "bob",
    "token_command": ("print", "another"),
    "oauth_token_url": "https://other.example/token",
    "oauth_client_id": "other",
    "oauth_scope": "mail",
    "rate": "100/min",
    "source_pool": "second",
    "pattern": "other",
    "code": "45",
    "selector": "other",
    "authserv_id": "other.example",
    "report_from": Mailbox("bob", "other.example"),
    "trusted_sealers": ("other.example",),
    "trusted_forwarders": ("other.example",),
    "organization": "Other",
    "local_submission_directory": "/var/spool/other",
    "zone": "other.example",
    "name": "other.example",
    "answers": ("127.0.0.2/31",),
    "policy_context": "other",
    "events": ("bounced",),
}
"""Another value of each setting that is no choice, number, flag, file or list of networks."""


_HELD = {
    "listener": "listeners",
    "destination": "destinations",
    "web": "web_page",
    "dkim": "dkim_keys",
    "milter": "milters",
    "account_limit": "limits_of_accounts",
    "policy_service": "policy_services",
    "webhook": "webhooks",
    "source_pool": "source_pools",
    "reply_action": "reply_actions",
}
"""The fields of `Config` with other names than the tables that they hold, by the table."""


def values(root: object) -> dict[str, str]:
    """Return all plain values that can be reached from ``root``, by path.

    An object with an identity is walked through once, by the shortest path; one that is compared by
    its value, wherever it is held.
    """
    found: dict[str, str] = {}
    seen: dict[int, object] = {}  # which keeps them, so that no number is used twice
    queue: deque[tuple[str, object]] = deque([("", root)])
    while queue:
        path, value = queue.popleft()
        if isinstance(value, _PLAIN):
            found[path] = repr(value)
        elif _is_value(type(value)) or id(value) not in seen:
            seen[id(value)] = value
            queue.extend((path + step, inner) for step, inner in _parts(value))
    return found


_PLAIN = (str, bytes, int, float, types.NoneType, Enum, IPv4Network, IPv6Network)


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    """Yield what an object holds: attributes, members, and values that a function captured."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, _PLAIN):
                yield f"[{key!r}]", inner
    elif isinstance(value, list | tuple | deque):
        for number, inner in enumerate(value):
            yield f"[{number}]", inner
    elif isinstance(value, set | frozenset):
        yield "{}", sorted(map(repr, value))
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            yield f".{name}", cell.cell_contents
        yield ".defaults", value.__defaults__
    elif _is_ours(type(value)):
        names = dict.fromkeys(getattr(value, "__dict__", ()))
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            names.update(dict.fromkeys((slots,) if isinstance(slots, str) else slots))
        for name in names:
            if name != "__weakref__":
                yield f".{name}", getattr(value, name, None)


def _is_value(cls: type) -> bool:
    return attrs.has(cls) and cls.__eq__ is not object.__eq__


_NO_SETTINGS = ("twisted_mta.testing.", "twisted_mta.queue.store.")  # open files, and a network


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("twisted_mta.") and not cls.__module__.startswith(_NO_SETTINGS)


def _choices(hint: Any) -> list[Any]:
    """Return the values of a `Literal`, also within a union."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [choice for each in get_args(hint) for choice in _choices(each)]


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Return the values of ``after`` that are not those of ``before``; "absent": it has none."""
    return {
        path: after.get(path, "absent")
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    }


class EachSetting(SynchronousTestCase):
    """Settings are changed by a reload, and changed back."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        self.files = UnsyncedFiles()
        first, second = self_signed("first.example"), self_signed("second.example")
        self.first = first.save(self.directory, "first.pem")
        self.second = second.save(self.directory, "second.pem")
        self.before = Config(
            hostname="mta.example",
            state_dir=os.path.join(self.directory, "state"),
            listeners=(
                Listener(
                    endpoint="tcp:25:interface=127.0.0.1",
                    client_certificates="ask",
                    client_certificate_authorities=self.first,
                ),
                Listener(kind="submission", endpoint="tcp:587:interface=127.0.0.1"),
                Listener(kind="lmtp", endpoint="tcp:24:interface=127.0.0.1"),
            ),
            recipients="existing",
            minimum_free_disk=1 << 30,
            local_domains=("localhost",),
            aliases=self.write("aliases", "team: bob\n"),
            relay_domains=("relayed.example",),
            relay_recipients=self.write("recipients", "bob@relayed.example\n"),
            users=self.write("users", ""),
            auth=checker_spec("memory:ann:secret"),
            tls_certificate=self.first,
            destinations=(
                Destination(
                    domain="far.example",
                    tls="encrypt",
                    username="ann",
                    password_file=self.write("password", "secret\n"),
                    client_certificate=self.first,
                ),
                Destination(domain="near.example", tls="verify", authorities=self.first),
                Destination(exchanger=".provider.example"),
                Destination(
                    domain="tokens.example",
                    username="ann",
                    oauth_token_url="https://tokens.example/token",
                    oauth_client_id="us",
                    oauth_client_secret_file=self.write("secret", "secret\n"),
                    oauth_refresh_token_file=self.write("refresh", "refresh\n"),
                ),
                Destination(
                    domain="file.example", username="ann", token_file=self.write("token", "abc\n")
                ),
                Destination(domain="command.example", username="ann", token_command=("print",)),
            ),
            source_pools=(
                SourcePool(name="first", address=[SourceAddress(address="192.0.2.3")]),
                SourcePool(
                    name="second",
                    address=[
                        SourceAddress(
                            address="192.0.2.4", warm_up=[50, 100], warm_up_since="2026-12-01"
                        )
                    ],
                ),
            ),
            reply_actions=(
                ReplyAction(code="4", pattern="rate", action="suspend", duration="1 h"),
                ReplyAction(code="4", pattern="quota", action="fail"),
            ),
            dkim_keys=(DKIMKey(domain="localhost", selector="s1", key=self.key(1)),),
            greylist=GreylistSettings(),
            suppression=SuppressionSettings(),
            feedback=FeedbackSettings(address="fbl@localhost"),
            dnsbl=(DNSBL(zone="key.list.example", name="list.example"),),
            milters=(MilterSettings(endpoint="unix:/run/filter.sock"),),
            limits_of_accounts=(AccountLimit(account="ann"),),
            policy_services=(PolicyServiceSettings(endpoint="unix:/run/service.sock"),),
            webhooks=(
                WebhookSettings(
                    url="https://app.example/hook",
                    secret_file=self.write("webhook", f"{written(b'1' * 32)}\n"),
                ),
            ),
        )

    def write(self, name: str, content: str) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(path, 0o600)
        return path

    def key(self, number: int) -> str:
        return write_key(os.path.join(self.directory, f"key {number}"), number=number)

    def other(self, name: str, value: Any, hint: Any) -> Any:
        """Return another value of a setting, whose type is ``hint``."""
        files = {
            "aliases": lambda: self.write("other aliases", "crew: bob\ncrowd: bob\n"),
            "relay_recipients": lambda: self.write("other recipients", "@relayed.example\n"),
            "allow": lambda: self.write("allowed", "192.0.2.1\n"),
            "deny": lambda: self.write("denied", "192.0.2.1\n"),
            "users": lambda: self.write("other users", "\n"),
            "tokens": lambda: self.write("other tokens", "\n"),
            "password_file": lambda: self.write("other password", "confidential\n"),
            "token_file": lambda: self.write("other token", "def\n"),
            "oauth_client_secret_file": lambda: self.write("other secret", "other\n"),
            "oauth_refresh_token_file": lambda: self.write("other refresh", "other\n"),
            "secret_file": lambda: self.write("other webhook", f"{written(b'2' * 32)}\n"),
            "key": lambda: self.key(2),
            "sni": lambda: ({"names": ["sni.example"], "certificate": self.second},),
        }
        if name in files:
            return files[name]()
        if name == "tls" and not isinstance(value, bool):
            return "none" if value == "may" else "may"
        if name in ("tls_key", "client_key"):
            return None if value is None else shutil.copy(value, f"{value}.again")
        if name.endswith(("certificate", "authorities")):
            return self.second
        if isinstance(value, str) and value.startswith("unix:"):
            return "tcp:127.0.0.1:8891"
        if name == "url" and value.startswith("https:"):
            return "https://other.example/hook"
        if name == "address" and isinstance(value, tuple):
            return (SourceAddress(address="192.0.2.77", helo="helo.example"),)
        if name in OTHERS:
            return OTHERS[name]
        if name.endswith("_from"):
            return (ip_network("192.0.2.0/24"),)
        choices = [choice for choice in _choices(hint) if choice != value]
        if choices:
            return choices[-1]
        if isinstance(value, bool):
            return not value
        if isinstance(value, int | float | None):
            return (value or 0) + 1
        return f"{value}-other"

    def places(self) -> Iterator[tuple[str, str, int]]:
        """Yield (table, setting, number of the table) for each setting that has other values."""
        for table, cls in TABLES.items():
            for name in settings_of(cls):
                if name != "listeners" and (table, name) not in ONE_VALUE:
                    for number, _ in enumerate(self.tables(self.before, table)):
                        yield table, name, number

    def tables(self, config: Config, table: str) -> tuple[Any, ...]:
        """Return all tables of a configuration with one name."""
        held = config if table == "mta" else getattr(config, _HELD.get(table, table))
        if held is None:
            return ()
        return held if isinstance(held, tuple) else (held,)

    def changed(self, config: Config, table: str, name: str, number: int) -> Config:
        """Return a configuration with another value of one setting.

        Raises:
            ConfigError: it contradicts the other settings.
        """
        tables = self.tables(config, table)
        hint = get_type_hints(type(tables[number]))[name]
        value = self.other(name, getattr(tables[number], name), hint)
        if table == "mta" and name == "auth":
            value = checker_spec("memory:bob:secret")
        also = {
            "tls_certificate": {"tls_key": value},
            "client_certificate": {"client_key": value},
            "dkim": {"dmarc": "off"},  # which needs it
            "local_domains": {"feedback": FeedbackSettings(address="fbl@other.example")},
        }
        changed = evolve(tables[number], **{name: value, **also.get(name, {})})
        if table == "mta":
            return changed
        several = (*tables[:number], changed, *tables[number + 1 :])
        held = _HELD.get(table, table)
        is_repeated = isinstance(getattr(config, held), tuple)
        return evolve(config, **{held: several if is_repeated else changed})

    def changes(self) -> Iterator[tuple[str, str, Config]]:
        """Yield (table, setting, the configuration with another value of it)."""
        for table, name, number in self.places():
            with contextlib.suppress(ConfigError):
                config = self.changed(self.before, table, name, number)
                if config != self.before:
                    yield table, name, config

    def rounds(self) -> Iterator[Config]:
        """Yield configurations that differ in as many settings as do not contradict each other.

        Each setting that a reload may change is in one of them.
        """
        pending = list(self.places())
        while pending:
            config, left = self.before, []
            for place in pending:
                try:
                    if fixed(self.before, self.changed(self.before, *place)):
                        continue
                    config = self.changed(config, *place)
                except ConfigError:
                    left.append(place)
            if config == self.before:
                return  # the rest contradicts the other settings of its table in any case
            yield config
            pending = left

    def start(self, config: Config) -> MemoryMTA:
        given = {each.name: getattr(config, each.name) for each in attrs.fields(Config)}
        mta = MemoryMTA(given.pop("state_dir"), files=self.files, **given)
        mta.start()
        return mta

    def fresh(self, config: Config) -> dict[str, str]:
        """Return the values of an agent that is started with a configuration."""
        mta = self.start(config)
        try:
            return values(mta.mta)
        finally:
            mta.stop()

    def test_each_setting_is_tried_with_another_value(self) -> None:
        tried = {(table, name) for table, name, _ in self.changes()}
        # Settings of [acme], which contradict a certificate: tests.tls.acme.test_in_an_agent.
        tables = {table: cls for table, cls in TABLES.items() if table != "acme"}
        there = {(table, name) for table, cls in tables.items() for name in settings_of(cls)}
        # A capture server has none of the other settings; only a start makes one.
        self.assertEqual(there - tried - ONE_VALUE, {("mta", "listeners"), ("mta", "capture")})

    def test_an_agent_after_a_reload_is_like_one_started_with_the_settings(self) -> None:
        before = self.fresh(self.before)
        random = difference(before, self.fresh(self.before))
        rounds = list(self.rounds())
        expected = [difference(before, self.fresh(config)) for config in rounds]
        mta = self.start(self.before)
        self.addCleanup(mta.stop)
        left: list[str] = []
        for config, differences in zip(rounds, expected, strict=True):
            unused = [
                f"._agent.listeners._contexts[{number}]."
                for number, listener in enumerate(config.listeners)
                if listener.tls == "none"
            ]
            # The key of SRS is read once, reports are looked for from the first time that they are
            # wanted, and a context for TLS stays while it is not offered.
            once = (
                "mailboxes._srs_key",
                "dmarc_reports._reporting.daily.",
                "dmarc_reports._reporting._is_wanted",
            )
            begun = [f"._agent.{each}" for each in once]
            for path in list(differences):
                kept = path.startswith((*begun, *unused))
                if kept or path in random:
                    del differences[path]
            lines = self.reload(mta, config)
            self.assertLess(frozenset(changes(self.before, config)), frozenset(lines))
            left += self.left(mta, differences, "the reload")
            self.reload(mta, self.before)
            old = {path: before.get(path, "absent") for path in differences}
            left += self.left(mta, old, "the reload back")
        self.assertEqual(left, [], "\n".join(left))

    def reload(self, mta: MemoryMTA, config: Config) -> list[str]:
        reloaded = mta.mta.reload(config)
        mta.reactor.settle()
        lines: list[str] = self.successResultOf(reloaded)
        return lines

    def left(self, mta: MemoryMTA, expected: Mapping[str, str], what: str) -> list[str]:
        """Return a line for each value that is not as expected."""
        now = values(mta.mta)
        return [
            f"{what} leaves {path} = {now.get(path, 'absent')}; expected {value}"
            for path, value in expected.items()
            if now.get(path, "absent") != value
        ]

    def test_a_setting_that_only_a_start_can_change_is_refused_by_its_name(self) -> None:
        mta = self.start(self.before)
        self.addCleanup(mta.stop)
        before = values(mta.mta.agent.config)
        refused = set()
        for table, name, config in self.changes():
            if fixed(self.before, config):
                reloaded = mta.mta.reload(config)
                mta.reactor.settle()
                error = self.failureResultOf(reloaded, CannotReload).value
                self.assertIn(f"{name} = ", str(error))
                self.assertIn("only a start can change this", str(error))
                refused.add((table, name))
        self.assertEqual(values(mta.mta.agent.config), before)
        self.assertIn(("mta", "workers"), refused)

    def test_each_setting_reaches_the_workers(self) -> None:
        for table, name, config in self.changes():
            arrived = unpacked(packed(config))
            self.assertEqual(arrived, config, f"{name} of [{table}]")
            self.assertNotEqual(
                fixed(self.before, arrived) + changes(self.before, arrived), [], (table, name)
            )
