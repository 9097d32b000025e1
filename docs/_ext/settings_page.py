"""Write ``docs/settings.rst`` from the settings' own descriptions.

    python docs/_ext/settings_page.py > docs/settings.rst

A test compares the page with the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import AttrsInstance

from twisted_mta.config.certificates import SNICertificate
from twisted_mta.config.destination import Destination
from twisted_mta.config.listener import Listener
from twisted_mta.config.setting import Setting, settings_of
from twisted_mta.config.unbuilt import NOT_BUILT, NOT_BUILT_TABLES
from twisted_mta.config.values import (
    LISTENING,
    Config,
    DeliverySettings,
    DNSSettings,
    LogSettings,
    QueueSettings,
)

_INTRODUCTION = """\
Settings
========

Everything can stand in a TOML file that ``--config`` names; what has an option can be given there
too, and the option wins. Unknown keys, wrong types and values that cannot be are refused before
anything starts, with a line that names the file, the key, what was found, and what would do.
``twisted-mta check --config FILE`` says the same without starting anything.

Durations read ``"30 s"``, ``"5 min"``, ``"1 h"``, ``"5 days"``; sizes ``"64 KiB"``, ``"50 MiB"``;
plain numbers are seconds and octets. Lists of endpoints in the file add up with those of the
options.

.. code-block:: toml

   [mta]
   hostname = "mx.example.net"
   local_domains = ["example.net"]
   tls_certificate = "/etc/mta/chain.pem"
   tls_key = "/etc/mta/key.pem"
   max_message_size = "35 MiB"
   routes = { "*" = "smtp://relay.example.org" }

   [[listener]]
   kind = "smtp"
   endpoint = "tcp:25"
   minimum_tls = "1.2"

   [queue]
   retry_minimum = "10 min"
"""

_TABLES: Mapping[str, tuple[str, type[AttrsInstance]]] = {
    "mta": ("``[mta]``", Config),
    "listener": ("``[[listener]]``, once for each listener", Listener),
    "listener.sni": ("``[[listener.sni]]``, once for each certificate", SNICertificate),
    "queue": ("``[queue]``", QueueSettings),
    "delivery": ("``[delivery]``", DeliverySettings),
    "destination": ("``[[destination]]``, once for each", Destination),
    "dns": ("``[dns]``", DNSSettings),
    "log": ("``[log]``", LogSettings),
}


def page() -> str:
    """Return the page, in reStructuredText."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION.rstrip()
    for table, (title, cls) in _TABLES.items():
        yield from ("", title, "-" * len(title), "")
        if table == "listener":
            yield "Those marked with a star may also stand in ``[mta]``, for all listeners."
            yield ""
        yield from (
            ".. list-table::",
            "   :header-rows: 1",
            "   :widths: 26 50 24",
            "",
            "   * - Key",
            "     - Meaning",
            "     - Default",
        )
        for name, setting in settings_of(cls).items():
            if (setting.table or table) == table:
                yield from _row(setting.key or name, setting)
            if cls is Config and name == "listeners":
                for kind, listening in LISTENING.items():
                    yield from _row(kind, listening)
        if table == "mta":
            yield from _row("queue", settings_of(QueueSettings)["url"])
    title = "Known by name, and not built yet"
    yield from ("", title, "-" * len(title), "")
    for table, keys in NOT_BUILT.items():
        for key, unbuilt in keys.items():
            yield f"* ``{key}`` in ``[{table}]``: {_plain(unbuilt.doc)}"
    for table in NOT_BUILT_TABLES:
        yield f"* ``[[{table}]]``"


def _row(key: str, setting: Setting) -> Iterator[str]:
    star = " \\*" if setting.common else ""
    option = f", ``--{setting.option}``" if setting.option else ""
    yield f"   * - ``{key}``{star}{option}"
    yield f"     - {_plain(setting.doc)}"
    yield f"     - {_plain(setting.default)}"


def _plain(text: str) -> str:
    """Return text in which nothing is markup."""
    return text.replace("\\", "\\\\").replace("*", "\\*")


if __name__ == "__main__":
    print(page(), end="")
