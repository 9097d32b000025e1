"""``twisted-mta dkim new``, ``list`` and ``check``: output, files and exit status."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Mapping

import dns.rdatatype
import dns.zone
from click.testing import CliRunner, Result

from tests.cli.check.nameserver import NameServer
from tests.policy.dkim.key_files import write_key
from tests.tidy import TidyTestCase
from twisted_mta.cli.command import main
from twisted_mta.cli.dkim.records import record_of
from twisted_mta.config import DKIMKey, load
from twisted_mta.policy.dkim.signing_keys import SigningKey
from twisted_mta.system.files import DiskFile

NAME = "s1._domainkey.example.net"


class DKIMTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.state = self.path("state")
        self.config = self.path("mta.toml")
        self.write()

    def path(self, *names: str) -> str:
        return os.path.join(self.directory, *names)

    def write(self, *tables: str, domains: str = '["localhost", "example.net"]') -> None:
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f'[mta]\nstate_dir = "{self.state}"\nlocal_domains = {domains}\n')
            file.writelines(tables)

    def run_tool(self, *words: str, environment: Mapping[str, str] | None = None) -> Result:
        result = CliRunner().invoke(main, ["dkim", *words], env=environment or {})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def table(
        self, selector: str = "s1", kind: str = "ed25519", domain: str = "example.net"
    ) -> str:
        """Write a key; return its table of the configuration."""
        file = write_key(self.path(f"{domain}-{selector}.pem"), kind)
        return f'[[dkim]]\ndomain = "{domain}"\nselector = "{selector}"\nkey = "{file}"\n'


class New(DKIMTestCase):
    def test_a_file_in_the_place_of_a_directory_is_named(self) -> None:
        output = self.refusal("--file", self.path("mta.toml", "key.pem"))
        self.assertIn("DIR/mta.toml: found a file, expected a directory", output)

    def new(self, *words: str) -> str:
        result = self.run_tool("new", "--config", self.config, *words)
        self.assertEqual(result.exit_code, 0, result.output)
        return result.output

    def refusal(self, *words: str, status: int = 1) -> str:
        result = self.run_tool("new", "--config", self.config, *words)
        self.assertEqual(result.exit_code, status, result.output)
        return result.output.replace(self.directory, "DIR")

    def printed(self, output: str) -> SigningKey:
        """Return the key of the table that was printed, read as a start reads it."""
        os.makedirs(self.state, exist_ok=True)
        _, header, rest = output.partition("[[dkim]]")
        self.write(header + rest)
        (table,) = load({}, self.config).dkim_keys
        return SigningKey.read(table)

    def test_the_table_that_is_printed_signs_with_the_new_key(self) -> None:
        os.makedirs(self.state)
        key = self.printed(self.new())
        self.assertEqual((key.domain, key.algorithm, key.bits), ("example.net", "rsa", 2048))
        self.assertRegex(key.selector, r"^s20[0-9]{4}$")
        self.assertEqual(key.file, f"{self.state}/dkim/example.net-{key.selector}.pem")
        self.assertEqual(key.warnings, ())

    def test_only_the_owner_may_read_the_file_and_its_directory(self) -> None:
        key = self.printed(self.new())
        for path, mode in ((key.file, 0o600), (os.path.dirname(key.file), 0o700)):
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode)

    def test_domain_selector_algorithm_and_file_may_be_given(self) -> None:
        file = self.path('key "1" \\ é.pem')
        words = ("--domain", "Bücher.example", "--selector", "K1", "--algorithm", "ed25519")
        output = self.new(*words, "--file", file)
        self.assertEqual("It belongs to root" in output, os.geteuid() == 0)
        key = self.printed(output)
        self.assertEqual((key.record_name, key.file), ("k1._domainkey.xn--bcher-kva.example", file))
        self.assertEqual(key.algorithm, "ed25519")

    def test_keys_of_both_kinds_have_different_selectors_by_default(self) -> None:
        key = self.printed(self.new("--algorithm", "ed25519"))
        self.assertRegex(key.selector, r"^e20[0-9]{4}$")

    def test_the_record_is_printed_as_lines_of_a_zone_and_as_one_text(self) -> None:
        for words in (("--algorithm", "rsa"), ("--algorithm", "ed25519")):
            output = self.new(*words)
            key = self.printed(output)
            lines = re.search(
                rf"^{re.escape(key.record_name)}\. IN TXT [^(\n]*(\([^)]*\))?", output, re.M
            )
            assert lines is not None
            zone = dns.zone.from_text(
                f"$TTL 60\n{lines[0]}", "example.net", relativize=False, check_origin=False
            )
            (record,) = zone.find_rdataset(f"{key.record_name}.", dns.rdatatype.TXT)
            self.assertEqual(b"".join(record.strings).decode(), record_of(key))
            self.assertLessEqual(max(map(len, record.strings)), 255)
            self.assertIn(f"\n{record_of(key)}\n", output)

    def test_the_check_that_is_printed_finds_the_record_that_is_printed(self) -> None:
        output = self.new("--file", self.path("a key.pem"))
        (line,) = re.findall("^twisted-mta dkim (check .*)$", output, re.M)
        key = self.printed(output)
        server = NameServer(self)
        text = json.dumps(record_of(key))
        server.records[f"{key.record_name}. TXT"] = [f'{text[:200]}" "{text[200:]}']
        self.write(f'[dns]\nnameservers = ["{server.host}"]\n')
        result = self.run_tool(*shlex.split(line))
        self.assertEqual(result.exit_code, 0, result.output)

    def test_a_file_that_exists_is_not_replaced(self) -> None:
        file = self.printed(self.new("--selector", "s1")).file
        with open(file, "rb") as before:
            content = before.read()
        self.write()
        self.assertEqual(
            self.refusal("--selector", "s1"),
            "twisted-mta: DIR/state/dkim/example.net-s1.pem exists;"
            " expected another --selector or --file\n",
        )
        with open(file, "rb") as after:
            self.assertEqual(after.read(), content)

    def test_a_link_to_nowhere_is_not_written_through(self) -> None:
        os.symlink(self.path("target"), self.path("key.pem"))
        self.assertIn("exists; expected another", self.refusal("--file", self.path("key.pem")))
        self.assertFalse(os.path.exists(self.path("target")))

    def test_a_selector_in_use_is_refused(self) -> None:
        self.write(self.table("s1"))
        self.assertEqual(
            self.refusal("--selector", "s1", "--file", self.path("other.pem")),
            f"twisted-mta: {NAME} is in use, by DIR/example.net-s1.pem;"
            " expected another --selector\n",
        )

    def test_without_a_domain_that_others_find_one_has_to_be_given(self) -> None:
        self.write(domains='["localhost"]')
        self.assertIn(
            "no local domain has a dot in it; expected --domain DOMAIN", self.refusal(status=2)
        )
        self.write('[policy]\nreport_from = "a@other.example"\n', domains='["localhost"]')
        self.refusal(status=2)
        self.assertEqual(self.printed(self.new("--domain", "a.example")).domain, "a.example")

    def test_words_that_mean_nothing_are_usage_errors(self) -> None:
        for words, problem in (
            (("--domain", "a b"), 'domain = "a b": not a domain name'),
            (("--selector", "_"), 'selector = "_": not a selector'),
            (("--algorithm", "dsa"), "'dsa' is not one of 'rsa', 'ed25519'"),
            (("--file", "~/key"), "only a shell replaces ~"),
        ):
            self.assertIn(problem, self.refusal(*words, status=2))

    def test_no_part_of_a_key_is_left_on_a_full_disk(self) -> None:
        def full(file: DiskFile, content: bytes) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch(DiskFile, "write", full)
        file = self.path("key.pem")
        self.assertEqual(
            self.refusal("--file", file), "twisted-mta: DIR/key.pem: No space left on device\n"
        )
        self.assertFalse(os.path.exists(file))

    def test_a_file_that_cannot_be_written_is_named(self) -> None:
        with open(self.path("plain"), "w", encoding="utf-8"):
            pass
        self.assertIn("DIR/plain", self.refusal("--file", self.path("plain", "key.pem")))

    def test_root_makes_the_file_as_the_owner_of_the_state_directory(self) -> None:
        if os.geteuid() != 0:
            self.assertEqual(self.new().count("root"), 0)
            return
        os.chmod(self.directory, 0o755)
        os.makedirs(self.state, 0o700)
        os.chown(self.state, 65534, 65534)
        file = self.printed(self.new()).file
        for path in (file, os.path.dirname(file)):
            self.assertEqual((os.stat(path).st_uid, os.stat(path).st_gid), (65534, 65534))
        self.assertEqual((os.geteuid(), os.getegid()), (0, 0))

    def test_root_writes_nothing_where_the_owner_of_the_state_directory_may_not(self) -> None:
        if os.geteuid() != 0:
            return
        os.chmod(self.directory, 0o755)
        os.makedirs(self.state, 0o700)
        os.mkdir(self.path("of root"), 0o755)
        os.symlink(self.path("of root"), os.path.join(self.state, "dkim"))
        os.chown(self.state, 65534, 65534)
        self.assertIn("Permission denied", self.refusal())
        self.assertEqual(os.listdir(self.path("of root")), [])


class List(DKIMTestCase):
    def test_each_key_has_a_line(self) -> None:
        self.write(self.table("s1"), self.table("s2", "rsa-2048"))
        old = os.stat(self.config).st_mtime - 40 * 86400
        os.utime(self.path("example.net-s2.pem"), (old, old))
        result = self.run_tool("list", "--config", self.config)
        self.assertEqual(result.exit_code, 0)
        self.assertEqual(
            result.output.replace(self.directory, "DIR").splitlines(),
            [
                "Domain\tSelector\tAlgorithm\tBits\tFile\tAge",
                "example.net\ts1\ted25519\t256\tDIR/example.net-s1.pem\t0 days",
                "example.net\ts2\trsa\t2048\tDIR/example.net-s2.pem\t40 days",
            ],
        )

    def test_domain_and_selector_choose(self) -> None:
        self.write(self.table("s1"), self.table("s2"), self.table("s1", domain="a.example"))
        for words, count in (
            (("--domain", "Example.NET"), 2),
            (("--selector", "s1"), 2),
            (("--domain", "a.example", "--selector", "s1"), 1),
        ):
            result = self.run_tool("list", "--config", self.config, *words)
            self.assertEqual(len(result.output.splitlines()), 1 + count, words)

    def test_a_key_that_cannot_be_used_is_an_error_and_the_others_are_listed(self) -> None:
        self.write(self.table("s1"), self.table("s2"))
        os.unlink(self.path("example.net-s1.pem"))
        result = self.run_tool("list", "--config", self.config)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("example.net-s1.pem: cannot be read: No such file", result.output)
        self.assertIn("example.net\ts2\t", result.output)

    def test_a_configuration_without_keys_is_an_error(self) -> None:
        result = self.run_tool("list", "--config", self.config)
        self.assertEqual(result.exit_code, 1)
        self.assertIn(f"{self.config} has no [[dkim]] table; twisted-mta dkim new", result.output)

    def test_no_configuration_is_an_error(self) -> None:
        result = self.run_tool("list")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("so no [[dkim]] table; expected --config FILE", result.output)

    def test_a_key_that_is_not_there_is_an_error_that_names_those_that_are(self) -> None:
        self.write(self.table("s1"), self.table("s2"))
        for words, wanted in (
            (("--domain", "a.example"), 'domain = "a.example"'),
            (("--selector", "s3"), 'selector = "s3"'),
        ):
            result = self.run_tool("list", "--config", self.config, *words)
            self.assertEqual(result.exit_code, 1)
            self.assertIn(
                f"has no [[dkim]] table with {wanted}; found s1._domainkey.example.net,"
                " s2._domainkey.example.net",
                result.output,
            )

    def test_a_configuration_that_cannot_be_read_is_a_usage_error(self) -> None:
        result = self.run_tool("list", "--config", self.path("nothing.toml"))
        self.assertEqual(result.exit_code, 2)


class Check(DKIMTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = NameServer(self)
        self.write(self.table(), f'[dns]\nnameservers = ["{self.server.host}"]\n')
        self.file = self.path("example.net-s1.pem")
        self.record = record_of(self.key())

    def key(self) -> SigningKey:
        return SigningKey.read(DKIMKey(domain="example.net", selector="s1", key=self.file))

    def publish(self, *records: str) -> None:
        self.server.records[f"{NAME}. TXT"] = [json.dumps(record) for record in records]

    def check(self, *words: str) -> tuple[int, list[str]]:
        result = self.run_tool("check", "--config", self.config, *words)
        return result.exit_code, result.output.replace(self.directory, "DIR").splitlines()

    def test_the_same_key_is_good(self) -> None:
        self.publish(self.record)
        self.assertEqual(self.check(), (0, [f"{NAME}: the same key (ed25519, 256 bits)"]))

    def test_a_record_in_another_form_with_the_same_key_is_good(self) -> None:
        self.publish(self.record.replace("v=DKIM1; ", "").replace("=", " = ", 1))
        self.assertEqual(self.check()[0], 0)

    def test_a_key_in_testing_is_good_and_said(self) -> None:
        self.publish(f"{self.record}; t=y")
        status, (line,) = self.check()
        self.assertEqual(status, 0)
        self.assertIn("its t=y says that the signatures do not count yet", line)

    def test_another_key_is_shown_beside_the_expected_one(self) -> None:
        other = self.record
        write_key(self.file, "rsa-2048")
        self.publish(other)
        self.assertEqual(
            self.check(),
            (
                1,
                [
                    f"{NAME}: found another key (ed25519, 256 bits)",
                    f"  found:    {other}",
                    f"  expected: {record_of(self.key())}",
                ],
            ),
        )

    def test_a_missing_name_or_record_is_said(self) -> None:
        expected = f"  expected: {self.record}"
        self.assertEqual(self.check(), (1, [f"{NAME}: there is no such name", expected]))
        self.server.records[f"{NAME}. A"] = ["192.0.2.1"]
        self.assertEqual(self.check(), (1, [f"{NAME}: there is no TXT record", expected]))

    def test_two_records_are_not_good(self) -> None:
        self.publish(self.record, "v=spf1 -all")
        status, (line, *shown) = self.check()
        self.assertEqual(status, 1)
        self.assertEqual(line, f"{NAME}: found 2 TXT records, expected one")
        self.assertEqual(len(shown), 3)

    def test_a_record_that_cannot_be_read_is_said_in_printable_text(self) -> None:
        for record, problem in (
            ("v=DKIM1; p=", "the key was revoked"),
            ("v=DKIM1; k=rsa; p=AAAA", "expected an RSA key"),
            ("v=spf1 -all", ""),
            ("\x1b[2J", ""),
        ):
            self.publish(record)
            status, lines = self.check()
            self.assertEqual(status, 1, record)
            self.assertIn(problem, lines[0])
            self.assertTrue(all(line.isprintable() for line in lines), lines)

    def test_name_servers_that_do_not_answer_are_no_result(self) -> None:
        self.server.failing = [f"{NAME}. TXT"]
        self.assertEqual(self.check(), (1, [f"{NAME}: the name servers do not answer: SERVFAIL"]))

    def test_all_keys_are_looked_up(self) -> None:
        self.publish(self.record)
        self.write(self.table(), self.table("s2"), f'[dns]\nnameservers = ["{self.server.host}"]\n')
        status, lines = self.check()
        self.assertEqual(status, 1)
        self.assertEqual(lines[0], f"{NAME}: the same key (ed25519, 256 bits)")
        self.assertEqual(lines[1], "s2._domainkey.example.net: there is no such name")
        self.assertEqual(self.check("--selector", "s1")[0], 0)

    def test_a_key_that_cannot_be_used_is_said(self) -> None:
        os.unlink(self.file)
        status, (line,) = self.check()
        self.assertEqual(status, 1)
        self.assertIn("DIR/example.net-s1.pem: cannot be read", line)

    def test_a_key_that_is_not_in_the_configuration_is_named_by_file_and_selector(self) -> None:
        self.publish(self.record)
        self.write(f'[dns]\nnameservers = ["{self.server.host}"]\n')
        self.assertEqual(self.check("--file", self.file, "--selector", "s1")[0], 0)
        status, lines = self.check("--file", self.file)
        self.assertEqual(status, 2)
        self.assertIn("--file without --selector; expected both", lines[-1])
