"""The file of accounts: what is in it, who changes it, and what is not in it."""

import json
import os
import stat

from argon2 import extract_parameters
from twisted.trial.unittest import TestCase

from twisted_mta.auth.accounts import (
    NOBODY,
    Account,
    Accounts,
    AccountsError,
    ScramVerifier,
    Senders,
    changing,
    verify,
)
from twisted_mta.mail.address import Mailbox
from twisted_mta.smtp.sasl.scram import scram_keys


def secret(octets: int) -> bytes:
    return bytes(range(octets))


def account(name: str, password: str | None = "opensesame", *addresses: str) -> Account:
    return Account.of(name, password, addresses=addresses, secret=secret)


class AccountsTestCase(TestCase):
    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())

    def put(self, *accounts: Account) -> None:
        with changing(self.path) as held:
            held.update({each.name.lower(): each for each in accounts})

    def write(self, text: str, mode: int = 0o600) -> None:
        with open(self.path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(self.path, mode)

    def refusal(self) -> str:
        error = self.assertRaises(AccountsError, Accounts.read, self.path)
        return str(error).replace(self.path, "FILE")


class TheFile(AccountsTestCase):
    def test_what_was_put_into_it_is_read(self) -> None:
        ann = account("Ann@example.net", "opensesame", "sales@example.net", "@example.org", "*")
        self.put(ann, account("bob"))
        accounts = Accounts.read(self.path)
        self.assertEqual(accounts.get("ANN@example.net"), ann)
        self.assertEqual(list(accounts.by_name), ["ann@example.net", "bob"])
        self.assertIsNone(accounts.get("carol"))

    def test_it_is_for_its_owner_alone_and_holds_no_password(self) -> None:
        self.put(account("ann"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        with open(self.path, encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(text.count("\n"), 1)
        self.assertNotIn("opensesame", text)
        self.assertNotIn("opensesame", repr(account("ann")))
        self.assertTrue(json.loads(text)["argon2"].startswith("$argon2id$v=19$m=19456,t=2,p=1$"))
        self.assertTrue(json.loads(text)["scram-sha-256"].startswith("10000$"))

    def test_other_lines_stay_as_they_are(self) -> None:
        self.put(account("ann"), account("bob"))
        with open(self.path, encoding="utf-8") as file:
            ann, bob = file.read().splitlines()
        spaced = f"  {bob.replace(', ', ' , ')}"
        self.write(f"# ours\n\n{ann}\n{spaced}\n")
        with changing(self.path) as held:
            del held["ann"]
            held["carol"] = carol = account("carol", None)
        with open(self.path, encoding="utf-8") as file:
            self.assertEqual(file.read(), f"# ours\n\n{spaced}\n{carol.line()}\n")

    def test_a_change_that_fails_changes_nothing_and_leaves_nothing(self) -> None:
        self.put(account("ann"))
        before = Accounts.read(self.path)
        os.mkdir(f"{self.path}.new")  # where the new file would be written
        self.assertRaises(OSError, self.put, account("bob"))
        os.rmdir(f"{self.path}.new")
        self.assertRaises(ZeroDivisionError, self.put_and_fail)
        self.assertEqual(Accounts.read(self.path), before)
        directory = os.path.dirname(self.path)
        name = os.path.basename(self.path)
        self.assertEqual([each for each in os.listdir(directory) if each.startswith(name)], [name])

    def put_and_fail(self) -> None:
        with changing(self.path) as held:
            held.clear()
            raise ZeroDivisionError

    def test_the_new_file_has_the_mode_of_the_old_one(self) -> None:
        self.put(account("ann"))
        os.chmod(self.path, 0o640)
        self.put(account("bob"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_errors_name_the_line_and_what_would_do_and_no_secret(self) -> None:
        line = account("ann").line()
        for text, problem in (
            ("ann:secret\n", "line 1: no object of JSON; twisted-mta users add writes them"),
            (f"{line}\n{line}\n", "line 2: ann is in line 1 already; one of the two would do"),
            (
                '{"name": "ann", "pasword": "x"}\n',
                "line 1: pasword is no such field; name, argon2,",
            ),
            ('{"name": "ann", "argon2": "opensesame"}\n', "line 1: argon2: no hash of argon2id"),
            ('{"name": "ann", "scram-sha-1": "opensesame"}\n', "line 1: scram-sha-1: iterations$"),
            (
                '{"name": "ann", "argon2": "$argon2id$opensesame"}\n',
                "line 1: argon2: no hash of argon2id",
            ),
            *(
                (f'{{"name": "ann", "scram-sha-256": "{keys}"}}\n', "line 1: scram-sha-256: iterat")
                for keys in ("10000$$$", "-1$AA==$AA==$AA==", "10000$AA==$AA==$AA==")
            ),
            ("[" * 100_000 + "\n", "line 1: no object of JSON"),
            ('{"name": "ann", "addresses": [1]}\n', "line 1: addresses: ann@example.net, @"),
            ('{"name": ""}\n', "line 1: name: 1 to 255 characters"),
            ('{"name": "a\\u0000b"}\n', "line 1: name: "),
            ('{"name": "ann", "addresses": "x"}\n', "line 1: addresses: a list would do"),
            ('{"name": "ann", "addresses": ["x"]}\n', "line 1: addresses: no address: x; ann@"),
            ('{"name": "ann", "certificates": ["x"]}\n', "line 1: certificates: SHA-256"),
        ):
            self.write(text)
            self.assertIn(f"FILE: {problem}", self.refusal())
            self.assertNotIn("opensesame", self.refusal())

    def test_a_file_that_others_can_read_is_refused(self) -> None:
        self.write("", 0o644)
        self.assertEqual(
            self.refusal(), "FILE: others may read or write it (mode 0644); chmod 0600 would do"
        )
        os.unlink(self.path)
        os.mkfifo(self.path, 0o600)
        self.assertEqual(self.refusal(), "FILE: no file")  # and does not wait for a writer
        os.unlink(self.path)
        self.assertIn("FILE: No such file or directory; a file made by", self.refusal())


class Passwords(TestCase):
    def test_only_the_password_itself_verifies(self) -> None:
        hashed = account("ann").argon2
        self.assertTrue(verify(hashed, "opensesame"))
        self.assertFalse(verify(hashed, "opensesam"))
        self.assertFalse(verify("$argon2id$broken", "opensesame"))

    def test_nobody_verifies_and_is_hashed_for_all_the_same(self) -> None:
        self.assertFalse(verify(None, "opensesame"))
        hashed = account("ann").argon2
        assert hashed is not None
        self.assertEqual(extract_parameters(NOBODY), extract_parameters(hashed))

    def test_spellings_meet(self) -> None:
        self.assertTrue(verify(account("ann", "\u2168").argon2, "IX"))

    def test_what_cannot_be_is_refused(self) -> None:
        for name, password in (("", "x"), ("ann", ""), ("ann", "\x07"), (" ann", "x")):
            self.assertRaises(AccountsError, account, name, password)

    def test_keys_of_scram_are_read_as_they_were_written(self) -> None:
        keys = ScramVerifier.of("sha256", "pencil", b"0123456789abcdef")
        self.assertEqual(ScramVerifier.read("sha256", str(keys)), keys)
        derived = scram_keys("sha256", "pencil", b"0123456789abcdef", 10_000)
        self.assertEqual((keys.stored_key, keys.server_key), (derived.stored, derived.server))


class AsWhom(TestCase):
    def senders(self, *accounts: Account) -> Senders:
        held = {each.name.lower(): each for each in accounts}
        return Senders(Accounts(held), ("example.net", "example.org"))

    def test_an_account_sends_as_its_name_and_its_addresses(self) -> None:
        senders = self.senders(
            account("ann", None, "sales@example.com", "@example.edu"),
            account("bob@example.com", None),
            account("root", None, "*"),
            account("shop", None, "shop+orders@example.com"),
            account("r\u00e9my", None),
            account("cafe", None, "cafe\u0301@example.com"),
        )
        for name, address, allowed in (
            ("ann", "ann@example.net", True),
            ("ann", "Ann+news@example.org", True),
            ("ann", "sales@example.com", True),
            ("ann", "SALES+x@example.com", True),
            ("ann", "any.body@example.edu", True),
            ("ann", "ann@example.com", False),
            ("ann", "bob@example.net", False),
            ("ann", "x@sub.example.edu", False),
            ("bob@example.com", "bob@example.com", True),
            ("bob@example.com", "bob@example.net", False),
            ("root", "who@ever.example", True),
            ("shop", "Shop+Orders@example.com", True),
            ("shop", "shop+news@example.com", False),
            ("shop", "shop@example.com", False),
            # Two ways to write one character are one mailbox.
            ("r\u00e9my", "re\u0301my@example.net", True),
            ("r\u00e9my", "R\u00c9MY+x@example.net", True),
            ("cafe", "caf\u00e9@example.com", True),
            ("cafe", "cafe\u0301@example.com", True),
            ("cafe", "cafe@example.com", False),
            ("of-a-checker", "of-a-checker@example.net", True),
            ("of-a-checker", "ann@example.net", False),
        ):
            allows = senders.may_send_as(name, Mailbox.parse(address))
            self.assertEqual(allows, allowed, (name, address))

    def test_its_addresses_are_mailboxes_that_exist(self) -> None:
        senders = self.senders(account("ann", None, "sales@example.net", "@example.edu"))
        for address, exists in (
            ("ann@example.org", True),
            ("Sales+a@example.net", True),
            ("sales@example.org", False),
            ("who@example.edu", False),
        ):
            self.assertEqual(senders.is_mailbox(Mailbox.parse(address)), exists, address)

    def test_it_is_called_by_its_first_address(self) -> None:
        senders = self.senders(
            account("ann", None), account("the boss", None, "*", "b@example.com")
        )
        self.assertEqual(str(senders.address_of("ann")), "ann@example.net")
        self.assertEqual(str(senders.address_of("the boss")), "b@example.com")
