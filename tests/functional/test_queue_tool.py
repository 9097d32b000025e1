"""``twisted-mta queue`` with a real MTA, of one process and with workers."""

import json
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from twisted_mta.cli.command import main

from .hop import Hop, flood
from .machine import LOOPBACK, eventually, free_port
from .mail import MIB, ProgramTestCase, message, message_with_attachment, submit
from .mta import MTA

PATIENT = """
[queue]
retry_minimum = "1 h"
retry_maximum = "1 h"
"""


class QueueToolTestCase(ProgramTestCase):
    workers = 1

    def setUp(self) -> None:
        super().setUp()
        self.hop = Hop(free_port())
        self.addCleanup(self.hop.stop)
        self.mta = MTA(
            self.home,
            *("--route", f".far.example=smtp://{LOOPBACK}:{self.hop.port}"),
            *("--workers", str(self.workers)),
            toml=PATIENT,
        )
        self.addCleanup(self.mta.kill)
        self.mta.start()

    def tool(self, *words: str, status: int = 0) -> str:
        """Run the tool in this process; return its output."""
        ran = CliRunner().invoke(main, ["queue", *words, "--state-dir", str(self.mta.state)])
        self.assertEqual(ran.exit_code, status, ran.output)
        return ran.output

    def listed(self, *words: str) -> list[Any]:
        messages: list[Any] = json.loads(self.tool("list", "--json", *words))["messages"]
        return messages

    def states(self, *words: str) -> list[str]:
        return sorted(
            recipient["state"]
            for message in self.listed(*words)
            for recipient in message["recipients"]
        )

    def idle(self) -> bool:
        return not any(
            recipient["in_delivery"]
            for message in self.listed()
            for recipient in message["recipients"]
        )


class States(QueueToolTestCase if TYPE_CHECKING else object):  # type: ignore[misc]
    """Behavior of one process and of several."""

    def test_a_message_goes_through_every_state(self) -> None:
        self.hop.start()
        self.hop.replies["RCPT"] = "450 4.2.0 \x1b[2Jlater"
        submit(
            self.mta.smtp,
            message("The plan"),
            *("bob@a.far.example", "carol@b.far.example", "dan@b.far.example"),
        )
        eventually(
            lambda: self.states() == ["deferred"] * 3 and self.idle(), "three that are deferred"
        )
        (found,) = self.listed()
        id = found["id"]

        shown = self.tool("show", id)
        for line in (
            f"id: {id}",
            "from: ann@sender.example",
            "Subject\tThe plan",
        ):
            self.assertIn(line, shown.splitlines())
        self.assertIn("450 4.2.0 \\x1b[2Jlater", shown)
        self.assertNotIn("\x1b", shown)
        content = self.tool("show", id, "--body")
        self.assertTrue(content.startswith("Received: "), content)
        self.assertTrue(content.endswith("\n\nGood morning!\n"), content)

        self.assertEqual(
            self.tool("hold", "--domain", "b.far.example", "--dry-run"),
            "would be held: 2 recipients of 1 message\n",
        )
        self.assertEqual(self.states("--state", "held"), [])
        self.assertEqual(
            self.tool("hold", "--domain", "b.far.example"), "held: 2 recipients of 1 message\n"
        )
        self.assertEqual(self.states(), ["deferred", "held", "held"])

        del self.hop.replies["RCPT"]
        self.tool("retry", "--all")
        eventually(lambda: self.hop.recipients() == ["bob@a.far.example"], "the first of them")
        eventually(lambda: self.states() == ["held", "held"], "two that are held")

        # Holds are on the disk.
        self.assertEqual(self.mta.terminate(), 0)
        self.mta.start()
        self.assertEqual(self.states(), ["held", "held"])
        self.tool("release", "--to", "carol@*")
        eventually(lambda: self.states() == ["held"], "one that is held")
        self.assertEqual(self.tool("remove", id), "removed: 1 recipient of 1 message\n")
        self.assertEqual(self.listed(), [])
        self.assertIn(
            f"{id} is not in the queue",
            self.tool("show", id, status=1),
        )
        log = self.mta.output()
        self.assertRegex(
            log,
            rf"{id} removed by the operator: from=<ann@sender.example> to=<dan@b.far.example>"
            r" by=uid \d+",
        )
        self.assertEqual(self.hop.recipients(), ["bob@a.far.example", "carol@b.far.example"])
        self.assertEqual(self.mta.terminate(), 0)

    def test_a_queue_moves_to_another_machine_and_nothing_is_sent_twice(self) -> None:
        self.mta.terminate()  # its next hop is not there
        self.mta.start()
        sent = message_with_attachment(2 * MIB)
        submit(self.mta.smtp, sent, "bob@a.far.example", "carol@b.far.example")
        flood(self.mta.smtp, [f"u{number}@a.far.example" for number in range(20)])
        self.tool("hold", "--all")
        eventually(lambda: self.states() == ["held"] * 22, "all on hold")
        file = self.home / "queue.jsonl"
        self.tool("export", "--all", "--file", str(file))
        running = file.read_bytes()
        (self.home / "new").mkdir()
        new = MTA(
            self.home / "new",
            *("--route", f".far.example=smtp://{LOOPBACK}:{self.hop.port}"),
            *("--workers", str(self.workers)),
            toml=PATIENT,
        )
        self.addCleanup(new.kill)
        new.start()
        words = ("import", "--file", str(file), "--state-dir", str(new.state))
        ran = CliRunner().invoke(main, ["queue", *words])
        self.assertEqual(ran.exit_code, 3, ran.output)
        self.assertEqual(new.terminate(), 0)
        for expected in ("imported: 22 recipients of 21 messages\n", "here before: 22 recipients"):
            ran = CliRunner().invoke(main, ["queue", *words])
            self.assertIn(expected, ran.output)
        self.assertEqual(self.tool("remove", "--all", "--yes").split(":")[0], "removed")
        self.hop.start()
        new.start()
        ran = CliRunner().invoke(main, ["queue", "release", "--all", "--state-dir", str(new.state)])
        self.assertEqual(ran.exit_code, 0, ran.output)
        self.hop.wait_for(21)
        self.mta.terminate()
        self.assertEqual(new.terminate(), 0)
        self.assertEqual(
            sorted(self.hop.recipients()),
            sorted(
                [
                    *("bob@a.far.example", "carol@b.far.example"),
                    *(f"u{number}@a.far.example" for number in range(20)),
                ]
            ),
        )
        # What was exported from the files is what the process gave.
        stopped = self.home / "stopped.jsonl"
        ran = CliRunner().invoke(main, ["queue", *words])
        self.assertIn("here before: 22 recipients", ran.output)
        self.tool("export", "--all", "--file", str(stopped))
        self.assertEqual(stopped.read_bytes(), b"")
        self.assertEqual(len(running.splitlines()), 21)

    def test_long_lists_and_actions_are_done_in_parts(self) -> None:
        flood(self.mta.smtp, [f"u{number}@a.far.example" for number in range(600)])
        self.assertIn(
            "held: 600 recipients of 600 messages",
            self.tool("hold", "--domain", ".far.example").splitlines()[0],
        )
        eventually(self.idle, "none in delivery")
        lines = self.tool("list", "--state", "held").splitlines()
        self.assertEqual(len(lines), 601)
        self.assertEqual(lines[0].split("\t")[0], "Id")
        ids = [line.split("\t")[0] for line in lines[1:]]
        self.assertEqual(ids, sorted(ids))
        self.assertEqual(len(self.tool("list", "--limit", "7").splitlines()), 8)
        self.assertEqual(
            self.tool("remove", "--from", "ann@sender.example"),
            "removed: 600 recipients of 600 messages\n",
        )
        self.assertEqual(self.listed(), [])


class Alone(States, QueueToolTestCase):
    def test_retry_probes_a_suspended_next_hop_at_once(self) -> None:
        submit(self.mta.smtp, message(), "bob@a.far.example")
        submit(self.mta.smtp, message(), "bob@a.far.example")
        eventually(lambda: self.listed() and self.idle(), "a next hop that is left alone")
        self.hop.start()
        self.tool("retry", "--all")
        self.hop.wait_for(2)

    def test_a_backup_made_while_mail_comes_and_goes_is_restored_whole_and_sent_once(self) -> None:
        self.hop.replies["RCPT"] = "450 4.2.0 later"
        self.hop.start()
        large = message_with_attachment(2 * MIB)
        submit(self.mta.smtp, large, "bob@a.far.example")
        flood(self.mta.smtp, [f"early{number}@a.far.example" for number in range(50)])
        late = [f"late{number}@b.far.example" for number in range(300)]
        coming = threading.Thread(target=flood, args=(self.mta.smtp, late))
        coming.start()
        self.addCleanup(coming.join)
        file = self.home / "backup.jsonl"
        self.tool("export", "--all", "--file", str(file))
        coming.join()
        self.mta.kill()
        records = [json.loads(line) for line in file.read_bytes().splitlines()]
        expected = sorted(each["address"] for record in records for each in record["recipients"])
        self.assertGreaterEqual(len(expected), 51)
        self.assertIn("bob@a.far.example", expected)

        del self.hop.replies["RCPT"]
        (self.home / "new").mkdir()
        route = f".far.example=smtp://{LOOPBACK}:{self.hop.port}"
        new = MTA(self.home / "new", "--route", route, toml=PATIENT)
        self.addCleanup(new.kill)
        new.state.mkdir(mode=0o700)
        words = ["--state-dir", str(new.state)]
        ran = CliRunner().invoke(main, ["queue", "import", "--file", str(file), *words])
        self.assertEqual(ran.exit_code, 0, ran.output)
        new.start()
        CliRunner().invoke(main, ["queue", "retry", "--all", *words])

        def is_empty() -> bool:
            ran = CliRunner().invoke(main, ["queue", "list", "--json", *words])
            return not json.loads(ran.output)["messages"]

        eventually(is_empty, "all of it to be delivered")
        self.assertEqual(new.terminate(), 0)
        self.assertEqual(self.hop.recipients(), expected)
        sizes = [len(each.content) for each in self.hop.transactions]
        self.assertGreater(max(sizes), len(large))

    def test_a_large_content_is_shown_completely(self) -> None:
        sent = message_with_attachment(2 * MIB)
        submit(self.mta.smtp, sent, "bob@a.far.example")
        eventually(self.listed, "a message")
        words = ["queue", "show", self.listed()[0]["id"], "--body"]
        ran = CliRunner().invoke(main, [*words, "--state-dir", str(self.mta.state)])
        trace, content = ran.stdout_bytes[: -len(sent)], ran.stdout_bytes[-len(sent) :]
        self.assertTrue(content == sent)
        self.assertTrue(trace.startswith(b"Received: "))

    def test_a_delivery_under_way_ends_before_an_action(self) -> None:
        self.hop.greeting = None  # it hangs
        self.hop.start()
        submit(self.mta.smtp, message(), "bob@a.far.example")
        eventually(lambda: self.hop.connections, "a connection")
        (found,) = self.listed()
        self.assertTrue(found["recipients"][0]["in_delivery"])
        said = self.tool("remove", found["id"])
        self.assertIn("in delivery now: 1; removed when that ends", said)
        self.hop.stop()
        eventually(lambda: self.listed() == [], "the end of it")
        self.assertIn("removed by the operator: from=<ann@", self.mta.output())

    def test_the_status_page_shows_envelopes_and_no_content(self) -> None:
        submit(self.mta.smtp, message("Secret"), "bob@a.far.example")
        eventually(lambda: self.listed() and self.idle(), "a message")
        page = f"http://{LOOPBACK}:{self.mta.web}/v1/queue"

        def got(path: str, data: bytes | None = None) -> tuple[int, bytes]:
            try:
                with urllib.request.urlopen(page + path, data, timeout=30) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        status, content = got("")
        self.assertEqual(status, 200)
        id = json.loads(content)["messages"][0]["id"]
        status, content = got(f"/{id}")
        self.assertEqual(status, 200)
        self.assertIn(b"bob@a.far.example", content)
        self.assertNotIn(b"Secret", content)
        self.assertEqual(got(f"/{id}/body")[0], 403)
        self.assertEqual(got("/remove", b'{"all": true}')[0], 405)
        self.assertEqual(len(self.listed()), 1)

    def test_invalid_selections_are_refused(self) -> None:
        self.tool("remove", status=2)
        self.tool("remove", "--all", "--to", "x@y", status=2)
        self.tool("show", "nonsense", status=2)
        self.tool("list", "--older", "soon", status=2)
        self.tool("hold", "0000000000000", status=1)
        self.assertIn("domain: ", self.tool("list", "--domain", "a b", status=1))
        self.assertEqual(self.mta.terminate(), 0)
        self.assertEqual(self.listed(), [])  # of its files
        self.tool("hold", "--all", status=3)


class WithWorkers(States, QueueToolTestCase):
    workers = 2
