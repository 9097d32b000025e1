"""``twisted-mta status``, ``tls``, ``reload`` and ``reopen-logs``: output and exit status."""

import json
import os
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from io import StringIO
from typing import Any

from attrs import asdict
from click.testing import CliRunner, Result

from tests.server.authority import self_signed
from tests.tidy import TidyTestCase
from twisted_mta.admin.merging import merge
from twisted_mta.admin.report import Connections, ProcessReport, RecentMessage, SuspendedHop
from twisted_mta.cli import terminal
from twisted_mta.cli.command import main
from twisted_mta.cli.status import facts, tables
from twisted_mta.health.trouble import Trouble
from twisted_mta.telemetry.metrics import Metrics, table

NOW = 1_790_000_000.0
EVIL = "[red]eve[/red]\x1b[2J@evil.example"


def status(workers: int = 1) -> dict[str, Any]:
    """Return the answer of ``/v1/status``."""
    metrics = Metrics()
    metrics.count(table.MESSAGES_ACCEPTED, by=1234)
    reports = [
        ProcessReport(
            number=number,
            pid=4000 + number,
            state="ready",
            started_at=NOW - 7200,
            queue={"messages": 3, "leased": 1},
            connections={"smtp tcp 127.0.0.1:2525": Connections(1, 20)},
            metrics=metrics.snapshot(),
            suspended=(
                SuspendedHop(
                    next_hop=f"smtp:{EVIL}",
                    seconds=125.0 + number,
                    times=3,
                    last="451 4.4.1 [red]Connection refused\x07",
                ),
            ),
            recent=(
                RecentMessage.shortened(
                    id="0000000000ABC",
                    received_at=NOW - 60,
                    reverse_path=EVIL,
                    recipients=[f"bob{each}@example.net" for each in range(12)],
                    size=1536,
                    state="failed",
                    last="550 5.1.1 [bold]No such user",
                ),
            ),
        )
        for number in range(workers)
    ]
    merged = merge(
        reports,
        hostname="mail.example",
        version="1.2.3",
        now=NOW,
        listeners=("smtp tcp 127.0.0.1:2525",),
    )
    answer: dict[str, Any] = json.loads(json.dumps(merged.to_json()))
    return answer


class MTA:
    """Answers one request on a control socket.

    Attributes:
        request: its first line.
    """

    def __init__(self, state_dir: str, content: Any, code: int = 200) -> None:
        self.request = ""
        self._response = json.dumps(content).encode("ascii")
        self._code = code
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(os.path.join(state_dir, "control.sock"))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._socket:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # the tool has ended without a request
                return
        with connection:
            self.request = connection.recv(10_000).decode("ascii").split("\r\n")[0]
            connection.sendall(b"HTTP/1.1 %d X\r\n\r\n%b" % (self._code, self._response))

    def ended(self) -> str:
        """Wait until it has answered; return what it was asked, empty for nothing."""
        self._thread.join(10.0)
        if self._thread.is_alive():
            self._socket.shutdown(socket.SHUT_RDWR)  # ends `accept`
            self._thread.join()
        return self.request


class RunningTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.state = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.state)

    def run_tool(self, *words: str, environment: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(main, words, env=environment or {})

    def asked(self, content: Any, *words: str, code: int = 200) -> tuple[Result, str]:
        mta = MTA(self.state, content, code)
        self.addCleanup(mta.ended)
        result = self.run_tool(*words, "--state-dir", self.state)
        return result, mta.ended()


class Status(RunningTestCase):
    def test_a_pipe_gets_lines_without_markup(self) -> None:
        result, request = self.asked(status(2), "status")
        self.assertEqual((result.exit_code, request), (0, "GET /v1/status HTTP/1.1"))
        for line in (
            "host: mail.example",
            "state: ready",
            "up for: 2 h",
            "queue: 6 messages, 2 in delivery or next in line",
            "since the start: 2468 accepted, 0 delivered, 0 deferred, 0 failed, 0 early data,"
            " 0 TLS downgrades, 0 TLS alarms, 0 credentials refused,"
            " 0 over an account's limit",
            "smtp:[red]eve[/red]\\x1b[2J@evil.example\t2 min 6 s\t3\t451 4.4.1 [red]Connection"
            " refused\\x07",
            "smtp tcp 127.0.0.1:2525\t2\t40",
            "1\t4001\tready\t0\t1\t20\t1234",
        ):
            self.assertIn(line, result.output.splitlines())
        self.assertIn(
            "bob4@example.net and 7 more\t1536\tfailed\t550 5.1.1 [bold]No", result.output
        )

    def test_with_one_process_there_is_no_table_of_workers(self) -> None:
        result, _ = self.asked(status(1), "status")
        self.assertNotIn("Workers", result.output)

    def test_the_reason_for_not_being_ready_is_shown(self) -> None:
        answer = {**status(), "unready": "draining", "state": "draining", "troubles": []}
        result, _ = self.asked(answer, "status")
        self.assertIn("state: draining, not ready: draining\n", result.output)
        self.assertEqual(result.exit_code, 0)

    def test_troubles_and_missing_workers_are_shown(self) -> None:
        troubles = [{"text": "12 octets are free"}, {"text": "no log\x1b"}]
        answer = {**status(), "unready": "12 octets are free", "troubles": troubles}
        result, _ = self.asked({**answer, "incomplete": ["worker 1 has ended"]}, "status")
        for line in (
            "state: not ready: 12 octets are free",
            "trouble: no log\\x1b",
            "incomplete: worker 1 has ended",
        ):
            self.assertIn(line, result.output.splitlines())

    def test_a_trouble_says_how_long_it_lasts_and_what_to_do(self) -> None:
        full = Trouble(kind="disk", text="12 octets are free", stops=True, seconds=61.0, since=NOW)
        drain = Trouble(kind="drain", text="draining", stops=True)
        troubles = [asdict(full), asdict(drain)]
        answer = {**status(), "unready": "12 octets are free; draining", "troubles": troubles}
        result, _ = self.asked(answer, "status")
        (line,) = [each for each in result.output.splitlines() if each.startswith("trouble")]
        self.assertTrue(line.startswith("trouble: critical, for 1 min 1 s: 12 octets are free. Fr"))

    def test_json_is_the_answer_of_the_mta(self) -> None:
        answer = status()
        result, _ = self.asked(answer, "status", "--json")
        self.assertEqual((result.exit_code, json.loads(result.output)), (0, answer))

    def test_control_characters_of_peers_never_reach_the_terminal(self) -> None:
        for words in (("status",), ("status", "--json")):
            result, _ = self.asked(status(), *words)
            os.unlink(os.path.join(self.state, "control.sock"))
            self.assertNotIn("\x1b", result.output)
            self.assertIn("evil.example", result.output)

    def test_brackets_in_tables_are_not_markup(self) -> None:
        screen = StringIO()
        answer = status(2)
        terminal.show(facts(answer), tables(answer, brief=True), file=screen, width=200)
        text = screen.getvalue()
        self.assertIn("[red]eve[/red]\\x1b[2J@evil.example", text)
        self.assertIn("bob0@example.net and 11 more", text)
        self.assertIn("[bold]No such user", text)
        self.assertIn("Workers", text)
        self.assertNotIn("\x1b", text)

    def test_an_answer_of_another_version_is_refused(self) -> None:
        result, _ = self.asked({"version": 2, "news": True}, "status")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("has another version", result.output)


HANDSHAKE: Mapping[str, Any] = {
    "host": "mx1.example",
    "port": 25,
    "address": "192.0.2.1",
    "at": NOW,
    "level": "may",
    "source": "the settings",
    "problem": None,
    "tls": {
        "version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "key_exchange": "X25519MLKEM768",
        "resumed": True,
        "peer_verified": False,
        "peer_problem": None,
        "verified_by": None,
    },
}
HOSTS: Mapping[str, Any] = {
    "version": 1,
    "hosts": [
        {
            "host": "mx1.example",
            "port": 25,
            "first": NOW,
            "last": NOW,
            "missing": None,
            "handshake": HANDSHAKE,
        },
        {
            "host": "mx2.example",
            "port": 26,
            "first": NOW,
            "last": NOW,
            "missing": NOW + 60,
            "handshake": None,
        },
    ],
}
DOMAIN: Mapping[str, Any] = {
    **HOSTS,
    "domain": {
        "domain": "away.example",
        "next_hop": "smtp:away.example",
        "rule": "",
        "failure": None,
        "targets": [
            {
                "host": "mx1.example",
                "address": "192.0.2.1",
                "port": 25,
                "passed_over": "",
                "tls": {
                    "level": "dane",
                    "from": "DANE: _25._tcp.mx1.example",
                    "since": NOW,
                    "problem": None,
                    "memory": HOSTS["hosts"][1],
                },
                "handshake": {
                    **HANDSHAKE,
                    "tls": {
                        **HANDSHAKE["tls"],
                        "resumed": False,
                        "peer_verified": True,
                        "verified_by": "DANE, TLSA 3 1 1 ab12",
                    },
                },
            },
            {
                "host": "mx2.example",
                "address": "192.0.2.2",
                "port": 25,
                "passed_over": "",
                "tls": {
                    "level": "encrypt",
                    "from": "[delivery]",
                    "since": None,
                    "problem": "it is \x1b[2Jdown",
                    "memory": None,
                },
                "handshake": {**HANDSHAKE, "tls": None, "problem": "STARTTLS is not offered"},
            },
        ],
    },
}


class TLS(RunningTestCase):
    def test_a_pipe_gets_a_line_for_each_host(self) -> None:
        result, request = self.asked(HOSTS, "tls")
        self.assertEqual(request, "GET /v1/tls HTTP/1.1")
        self.assertEqual(
            result.output,
            "Host\tPort\tFirst TLS\tLast TLS\tMissing since\tLast handshake\n"
            "mx1.example\t25\t2026-09-21 14:13:20\t2026-09-21 14:13:20\t\t2026-09-21 14:13:20,"
            " TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768, resumed,"
            " not verified: level may does not demand it\n"
            "mx2.example\t26\t2026-09-21 14:13:20\t2026-09-21 14:13:20\t2026-09-21 14:14:20\t\n",
        )

    def test_a_domain_has_its_hosts_with_level_source_and_last_handshake(self) -> None:
        result, request = self.asked(DOMAIN, "tls", "away.example")
        self.assertEqual(request, "GET /v1/tls/away.example HTTP/1.1")
        self.assertEqual(
            result.output.split("\n\n   ")[0].split("\n\n Host")[0].splitlines()[:12],
            [
                "away.example: next hop smtp:away.example",
                "",
                "mx1.example[192.0.2.1]:25",
                "  Level:     dane, by DANE: _25._tcp.mx1.example, since 2026-09-21 14:13:20",
                "  Had TLS:   since 2026-09-21 14:13:20, MISSING since 2026-09-21 14:14:20",
                "  Last:      2026-09-21 14:13:20, TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768,"
                " verified by DANE, TLSA 3 1 1 ab12",
                "",
                "mx2.example[192.0.2.2]:25",
                "  Level:     encrypt, by [delivery]",
                "  Not now:   it is \\x1b[2Jdown",
                "  Last:      2026-09-21 14:13:20, failed: STARTTLS is not offered",
                "",
            ],
        )

    def test_hosts_that_mail_for_the_domain_does_not_go_to_follow(self) -> None:
        result, _ = self.asked(DOMAIN, "tls", "away.example")
        hosts = re.findall(r"^ *(mx\d\.example\S*)", result.output, re.MULTILINE)
        self.assertEqual(
            hosts, ["mx1.example[192.0.2.1]:25", "mx2.example[192.0.2.2]:25", "mx2.example"]
        )

    def test_a_probe_shows_the_conversation_and_fails_where_mail_would_not_go(self) -> None:
        for usable, status in ((True, 0), (False, 1)):
            answer = json.loads(json.dumps(DOMAIN))
            answer["domain"]["targets"][0]["probe"] = {
                "usable": usable,
                "verdict": "mail would \x1b[2J",
                "tls": None,
                "conversation": ["S: 220 mx1.example", "C: QUIT"],
            }
            result, request = self.asked(answer, "tls", "away.example", "--probe")
            os.unlink(os.path.join(self.state, "control.sock"))
            self.assertEqual(request, "POST /v1/tls/away.example/probe HTTP/1.1")
            self.assertEqual(result.exit_code, status)
            self.assertIn(
                "  Probe:     mail would \\x1b[2J\n    S: 220 mx1.example\n    C: QUIT\n",
                result.output,
            )
        result = self.run_tool("tls", "--probe", "--state-dir", self.state)
        self.assertEqual(result.exit_code, 2)
        self.assertIn("--probe needs DOMAIN", result.output)

    def test_a_host_is_forgotten(self) -> None:
        answer = {"version": 1, "host": "mx1.example", "ports": [25, 26]}
        result, request = self.asked(answer, "tls", "forget", "MX1.example")
        self.assertEqual(request, "POST /v1/tls/mx1.example/forget HTTP/1.1")
        self.assertEqual(
            result.output,
            "Forgotten: mx1.example, port 25.\nForgotten: mx1.example, port 26.\n",
        )

    def test_a_domain_is_asked_for_in_canonical_form(self) -> None:
        for written, asked in (
            ("Example.", "example"),
            (".example", "example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
        ):
            _, request = self.asked(HOSTS, "tls", written)
            self.assertEqual(request, f"GET /v1/tls/{asked} HTTP/1.1")
            os.unlink(os.path.join(self.state, "control.sock"))

    def test_an_invalid_domain_is_a_usage_error(self) -> None:
        result = self.run_tool("tls", "../reload\n", "--state-dir", self.state)
        self.assertEqual(result.exit_code, 2)
        self.assertIn("not a domain name", result.output)

    def test_json_is_the_answer_of_the_mta(self) -> None:
        result, _ = self.asked(HOSTS, "tls", "--json")
        self.assertEqual(json.loads(result.output), HOSTS)

    def test_reports_are_sent_or_printed(self) -> None:
        for done, status in ((True, 0), (False, 1)):
            attempt = {"domain": "there.example", "done": done, "what": "sent to a@b.example\x1b"}
            answers = {"version": 1, "attempts": [attempt]}
            result, request = self.asked(answers, "tls", "report", "There.example")
            self.assertEqual(request, "POST /v1/tls-reports?domain=there.example HTTP/1.1")
            self.assertEqual(result.output, "there.example: sent to a@b.example\\x1b\n")
            self.assertEqual(result.exit_code, status)
            os.unlink(os.path.join(self.state, "control.sock"))
        report = {"organization-name": "\x1b", "policies": []}
        answer = {
            "version": 1,
            "reports": [
                {
                    "domain": "there.example",
                    "to": ["mailto:a@there.example", "https://there.example/"],
                    "faults": ["found x\x1b"],
                    "report": report,
                }
            ],
        }
        result, request = self.asked(answer, "tls", "report", "--dry-run")
        self.assertEqual(request, "GET /v1/tls-reports HTTP/1.1")
        self.assertEqual(json.loads(result.stdout), report)
        self.assertEqual(
            result.stderr,
            "there.example: to mailto:a@there.example, https://there.example/; found x\\x1b\n",
        )
        self.assertNotIn("\x1b", result.output)

    def test_without_anything_to_report_the_status_is_1(self) -> None:
        for answer, words in (
            ({"version": 1, "attempts": []}, ("report", "there.example")),
            ({"version": 1, "reports": []}, ("report", "there.example", "--dry-run")),
        ):
            result, _ = self.asked(answer, "tls", *words)
            self.assertEqual(result.exit_code, 1)
            self.assertIn("there is nothing to report to there.example", result.output)
            os.unlink(os.path.join(self.state, "control.sock"))

    def test_records_are_printed_as_they_are_to_be_pasted(self) -> None:
        answer = {
            "version": 1,
            "records": ["; there.example", '_smtp._tls.there.example. IN TXT "x"'],
            "policy": "version: STSv1\r\nmode: none\r\n",
            "urls": ["https://mta-sts.there.example/.well-known/mta-sts.txt"],
        }
        result, request = self.asked(answer, "tls", "records")
        self.assertEqual(request, "GET /v1/tls-records HTTP/1.1")
        self.assertEqual(
            result.output,
            '; there.example\n_smtp._tls.there.example. IN TXT "x"\n\n'
            "; https://mta-sts.there.example/.well-known/mta-sts.txt\n"
            "version: STSv1\nmode: none\n",
        )

    def test_records_of_a_file_need_no_running_mta(self) -> None:
        file = os.path.join(self.state, "mta.toml")
        self_signed("mx.ours.example", names=["mx.ours.example"]).save(self.state, "c.pem")
        with open(file, "w") as written:
            written.write(
                '[mta]\nhostname = "mx.ours.example"\nlocal_domains = ["ours.example"]\n'
                f'tls_certificate = "{self.state}/c.pem"\ntls_key = "{self.state}/c.pem"\n'
                '[[listener]]\nendpoint = "tcp:25"\n'
            )
        result = self.run_tool("tls", "records", "--config", file)
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertRegex(
            result.output, r"(?m)^_25\._tcp\.mx\.ours\.example\. IN TLSA 3 1 1 [0-9A-F]{64}$"
        )
        os.unlink(os.path.join(self.state, "c.pem"))
        result = self.run_tool("tls", "records", "--config", file)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("c.pem", result.output)


class Exits(RunningTestCase):
    def test_a_command_without_an_mta_exits_with_3_and_names_socket_and_remedy(self) -> None:
        for command in ("status", "reload", "reopen-logs"):
            result = self.run_tool(command, "--state-dir", self.state)
            self.assertEqual(result.exit_code, 3)
            self.assertIn(os.path.join(self.state, "control.sock"), result.output)
            self.assertIn("start one with twistd mta", result.output)

    def test_a_refusal_of_the_mta_exits_with_1(self) -> None:
        result, request = self.asked({"error": "aliases: line 3"}, "reload", code=409)
        self.assertEqual((result.exit_code, request), (1, "POST /v1/reload HTTP/1.1"))
        self.assertEqual(result.output, "twisted-mta: aliases: line 3\n")

    def test_an_action_that_was_done_exits_with_0(self) -> None:
        result, _ = self.asked({"version": 1, "lines": ["a.pem: \x1bnew"]}, "reload")
        self.assertEqual((result.exit_code, result.output), (0, "a.pem: \\x1bnew\n"))
        os.unlink(os.path.join(self.state, "control.sock"))
        result, request = self.asked({"version": 1, "lines": []}, "reopen-logs")
        self.assertEqual((result.exit_code, result.output), (0, "done\n"))
        self.assertEqual(request, "POST /v1/reopen-logs HTTP/1.1")

    def test_a_state_directory_that_begins_with_a_tilde_exits_with_2(self) -> None:
        result = self.run_tool("status", "--state-dir=~/mta")
        self.assertEqual(result.exit_code, 2)
        self.assertIn(f"such as {os.path.expanduser('~/mta')}", result.output)

    def test_an_unknown_option_exits_with_2(self) -> None:
        self.assertEqual(self.run_tool("status", "--colour").exit_code, 2)

    def test_the_first_state_directory_of_the_environment_is_the_default(self) -> None:
        named = {"STATE_DIRECTORY": f"{self.state}:/elsewhere"}
        result = self.run_tool("status", environment=named)
        self.assertIn(f"{self.state}/control.sock", result.output)
        result = self.run_tool("status", "--state-dir", "/other", environment=named)
        self.assertIn("/other/control.sock", result.output)
        result = self.run_tool("--state-dir", "/other", "status", environment=named)
        self.assertIn("/other/control.sock", result.output)
