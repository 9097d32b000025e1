"""Write ``docs/settings.rst`` from the settings' own descriptions.

    python docs/_ext/settings_page.py > docs/settings.rst

A test compares the page with the output.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from twisted_mta.config.catalog import LISTENER_KINDS, REPEATED, SWITCHES, TABLES
from twisted_mta.config.certificates import SNICertificate
from twisted_mta.config.setting import Setting, settings_of
from twisted_mta.config.tables import QueueSettings
from twisted_mta.config.unbuilt import NOT_BUILT, NOT_BUILT_TABLES

_INTRODUCTION = """\
Settings
========

Look up a setting with its meaning and default. All settings may stand in a TOML file that
``--config`` names. Those with an option may be given on the command line too; the option wins.
Unknown keys, wrong types and impossible values are refused before anything starts, with a line
that names the file, the key, the value found, and what was expected. ``twisted-mta check --config
FILE`` says the same without starting anything.

Durations are written ``"30 s"``, ``"5 min"``, ``"1 h"``, ``"5 days"``; sizes ``"64 KiB"``,
``"50 MiB"``; plain numbers are seconds and octets. Listeners of the file and of the options add up.

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


def page() -> str:
    """Return the page, in reStructuredText."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION.rstrip()
    for table, cls in TABLES.items():
        yield from _title(f"``[[{table}]]``" if table in REPEATED else f"``[{table}]``")
        if table in SWITCHES:
            yield from inspect.getdoc(cls).partition("\n\nRaises:")[0].splitlines()  # type: ignore[union-attr]
            if not settings_of(cls):
                continue
            yield ""
        if table == "listener":
            yield "Keys with a star may also stand in ``[mta]``, for all listeners."
            yield ""
        yield from _header()
        for name, setting in settings_of(cls).items():
            if (setting.table or table) == table:
                yield from _row(setting.key or name, setting)
            if table == "mta" and name == "listeners":
                for kind, listening in LISTENER_KINDS.items():
                    yield from _row(kind, listening)
        if table == "mta":
            yield from _row("queue", settings_of(QueueSettings)["url"])
        if table == "listener":
            yield from _title("``[[listener.sni]]``")
            yield from _header()
            for name, setting in settings_of(SNICertificate).items():
                yield from _row(name, setting)
    if NOT_BUILT or NOT_BUILT_TABLES:
        yield from _title("Not built yet")
        yield "These are refused by name:"
        yield ""
    for table, keys in NOT_BUILT.items():
        for key, unbuilt in keys.items():
            yield f"* ``{key}`` in ``[{table}]``: {_plain(unbuilt.doc)}"
    for table, unbuilt in NOT_BUILT_TABLES.items():
        yield f"* ``[{table}]``: {_plain(unbuilt.doc)}"


def _title(title: str) -> Iterator[str]:
    yield from ("", title, "-" * len(title), "")


def _header() -> Iterator[str]:
    yield from (
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 26 50 24",
        "",
        "   * - Key",
        "     - Meaning",
        "     - Default",
    )


def _row(key: str, setting: Setting) -> Iterator[str]:
    star = " \\*" if setting.common else ""
    option = f", ``--{setting.option}``" if setting.option else ""
    yield f"   * - ``{key}``{star}{option}"
    yield f"     - {_plain(setting.doc)}"
    yield f"     - {_plain(setting.default)}"


def _plain(text: str) -> str:
    """Return text with all markup escaped."""
    return text.replace("\\", "\\\\").replace("*", "\\*")


if __name__ == "__main__":
    print(page(), end="")
