"""Accounts: their file, their passwords, and the addresses that they may send as."""

import fcntl
import json
import os
import stat
from base64 import b64encode

from argon2 import extract_parameters
from twisted.trial.unittest import TestCase

from twisted_mta.auth.account_addresses import AccountAddresses
from twisted_mta.auth.accounts import (
    NO_PASSWORD,
    Account,
    Accounts,
    AccountsError,
    ScramVerifier,
    verify,
)
from twisted_mta.auth.accounts_file import changing, read_accounts
from twisted_mta.mail.address import Mailbox
from twisted_mta.smtp.sasl.scram import scram_keys

KEY = b64encode(bytes(20)).decode()  # as long as SHA-1


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
        error = self.assertRaises(AccountsError, read_accounts, self.path)
        return str(error).replace(self.path, "FILE")


class AccountsFile(AccountsTestCase):
    def test_accounts_are_read_as_they_were_written(self) -> None:
        ann = account("Ann@example.net", "opensesame", "sales@example.net", "@example.org", "*")
        self.put(ann, account("bob"))
        accounts = read_accounts(self.path)
        self.assertEqual(accounts.get("ANN@example.net"), ann)
        self.assertEqual(list(accounts.by_name), ["ann@example.net", "bob"])
        self.assertIsNone(accounts.get("carol"))

    def test_the_file_is_for_its_owner_alone_and_holds_no_password(self) -> None:
        self.put(account("ann"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        with open(self.path, encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(text.count("\n"), 1)
        self.assertNotIn("opensesame", text)
        self.assertNotIn("opensesame", repr(account("ann")))
        self.assertTrue(json.loads(text)["argon2"].startswith("$argon2id$v=19$m=19456,t=2,p=1$"))
        self.assertTrue(json.loads(text)["scram-sha-256"].startswith("10000$"))

    def test_a_change_leaves_comments_and_other_accounts_as_they_are(self) -> None:
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

    def test_a_change_that_fails_leaves_the_old_file_and_no_other(self) -> None:
        self.put(account("ann"))
        before = read_accounts(self.path)
        os.mkdir(f"{self.path}.new")  # where the new file would be written
        self.assertRaises(OSError, self.put, account("bob"))
        os.rmdir(f"{self.path}.new")
        self.assertRaises(ZeroDivisionError, self.put_and_fail)
        self.assertEqual(read_accounts(self.path), before)
        directory = os.path.dirname(self.path)
        name = os.path.basename(self.path)
        self.assertEqual([each for each in os.listdir(directory) if each.startswith(name)], [name])

    def put_and_fail(self) -> None:
        with changing(self.path) as held:
            held.clear()
            raise ZeroDivisionError

    def test_a_change_is_synced_before_it_replaces_the_file_and_the_directory_after(self) -> None:
        self.put(account("ann"))
        done: list[str] = []
        fsync, rename = os.fsync, os.rename

        def noted_fsync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            what = "directory" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} octets"
            done.append(f"fsync {what}")
            fsync(descriptor)

        def noted_rename(old: str, new: str) -> None:
            done.append("rename")
            rename(old, new)

        self.patch(os, "fsync", noted_fsync)
        self.patch(os, "rename", noted_rename)
        self.put(account("bob"))
        size = os.stat(self.path).st_size
        self.assertEqual(done, [f"fsync {size} octets", "rename", "fsync directory"])

    def test_a_change_leaves_no_file_open(self) -> None:
        self.put(account("ann"))
        before = os.listdir("/proc/self/fd")
        for number in range(5):
            self.put(account(f"ann{number}"))
            read_accounts(self.path)
        self.assertRaises(ZeroDivisionError, self.put_and_fail)
        self.write("wrong")
        self.refusal()
        self.assertRaises(AccountsError, self.put, account("eve"))
        self.write("", 0o644)
        self.refusal()
        self.assertEqual(os.listdir("/proc/self/fd"), before)

    def test_what_a_crash_left_of_a_change_is_replaced(self) -> None:
        self.put(account("ann"))
        with open(f"{self.path}.new", "w", encoding="utf-8") as file:
            file.write("half a li")
        self.put(account("bob"))
        self.assertEqual(list(read_accounts(self.path).by_name), ["ann", "bob"])
        self.assertFalse(os.path.exists(f"{self.path}.new"))

    def test_a_symbolic_link_to_the_file_stays_one(self) -> None:
        self.put(account("ann"))
        link = f"{self.path}.link"
        os.symlink(self.path, link)
        with changing(link) as held:
            held["bob"] = account("bob")
        self.assertTrue(os.path.islink(link))
        self.assertEqual(list(read_accounts(self.path).by_name), ["ann", "bob"])

    def test_a_change_begins_anew_where_another_process_replaced_the_file(self) -> None:
        self.put(account("ann"))
        other = f"{self.path}.other"
        flock, replaced = fcntl.flock, []

        def replaced_meanwhile(descriptor: int, operation: int) -> None:
            flock(descriptor, operation)
            if not replaced:
                replaced.append(True)
                with changing(other) as held:
                    held["eve"] = account("eve")
                os.rename(other, self.path)

        self.patch(fcntl, "flock", replaced_meanwhile)
        self.put(account("bob"))
        self.assertEqual(list(read_accounts(self.path).by_name), ["eve", "bob"])

    def test_two_changes_at_once_wait_for_each_other(self) -> None:
        with changing(self.path), open(self.path, "rb") as file:
            self.assertRaises(BlockingIOError, fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open(self.path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def test_a_change_keeps_the_owner_of_the_file_where_that_is_permitted(self) -> None:
        self.put(account("ann"))
        owners: list[tuple[int, int]] = []

        def noted(descriptor: int, user: int, group: int) -> None:
            owners.append((user, group))
            raise PermissionError

        self.patch(os, "fchown", noted)
        self.put(account("bob"))
        status = os.stat(self.path)
        self.assertEqual(owners, [(status.st_uid, status.st_gid)])
        self.assertEqual(list(read_accounts(self.path).by_name), ["ann", "bob"])

    def test_a_change_of_a_file_that_others_can_read_is_refused(self) -> None:
        for mode in (0o604, 0o602, 0o660, 0o601):
            self.write("", mode)
            self.assertRaises(AccountsError, self.put, account("ann"))
            self.assertIn(f"found mode {mode:04o}", self.refusal())
        for mode in (0o400, 0o600, 0o640):
            self.write("", mode)
            self.assertEqual(len(read_accounts(self.path).by_name), 0)

    def test_text_in_another_encoding_is_an_error(self) -> None:
        with open(self.path, "wb") as file:
            file.write('{"name": "r\xe9my"}\n'.encode("latin-1"))
        os.chmod(self.path, 0o600)
        self.assertEqual(self.refusal(), "FILE: not UTF-8")

    def test_a_change_keeps_the_mode_of_the_file(self) -> None:
        self.put(account("ann"))
        os.chmod(self.path, 0o640)
        self.put(account("bob"))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_an_error_names_the_line_the_field_and_what_was_expected_but_no_secret(self) -> None:
        line = account("ann").line()
        for text, problem in (
            ("ann:secret", "not an object of JSON, as twisted-mta users add writes"),
            ("[" * 100_000, "not an object of JSON"),
            (
                '{"name": "ann", "pasword": "x"}',
                "found field pasword, expected one of name, argon2",
            ),
            ('{"name": ""}', "name: expected 1 to 255"),
            ('{"name": "a\\u0000b"}', "name: "),
            (_entry("argon2", "opensesame"), "argon2: expected a hash of argon2id"),
            (_entry("argon2", "$argon2id$opensesame"), "argon2: expected a hash of argon2id"),
            (_entry("scram-sha-1", "opensesame"), "scram-sha-1: expected iterations$salt$"),
            (_entry("scram-sha-256", "10000$$$"), "scram-sha-256: expected iterations$"),
            (_entry("scram-sha-256", "-1$AA==$AA==$AA=="), "scram-sha-256: expected iterations$"),
            (_entry("scram-sha-256", "9$AA==$AA==$AA=="), "scram-sha-256: expected iterations$"),
            (_entry("addresses", "x"), "addresses: expected a list"),
            (_entry("addresses", [1]), "addresses: expected an address such as"),
            (_entry("addresses", ["x"]), "addresses: found x, expected"),
            (_entry("certificates", ["x"]), "certificates: expected SHA-256"),
            (_entry("certificates", ["g" * 64]), "certificates: expected SHA-256"),
            (_entry("certificates", ["a" * 63]), "certificates: expected SHA-256"),
            (_entry("certificates", [1]), "certificates: expected SHA-256"),
            (_entry("scram-sha-1", f"9$AA==${KEY}${KEY}!"), "scram-sha-1: expected iterations$"),
            (_entry("scram-sha-1", f"0$AA==${KEY}${KEY}"), "scram-sha-1: expected iterations$"),
            (_entry("scram-sha-1", f"9$${KEY}${KEY}"), "scram-sha-1: expected iterations$"),
            (_entry("scram-sha-256", f"9$AA==${KEY}${KEY}"), "scram-sha-256: expected iterations$"),
        ):
            self.write(f"{text}\n")
            self.assertIn(f"FILE: line 1: {problem}", self.refusal())
            self.assertNotIn("opensesame", self.refusal())
        self.write(f"{line}\n{line}\n")
        self.assertEqual(
            self.refusal(), "FILE: line 2: found ann again, which is in line 1 already"
        )

    def test_the_shortest_salt_and_hash_of_argon2_are_taken(self) -> None:
        hashed = "$argon2id$v=19$m=8,t=1,p=1${salt}${hash}"
        for salt, octets, taken in ((8, 4, True), (7, 4, False), (8, 3, False)):
            text = hashed.format(salt=_unpadded(salt), hash=_unpadded(octets))
            self.write(json.dumps({"name": "ann", "argon2": text}) + "\n")
            if taken:
                self.assertEqual(list(read_accounts(self.path).by_name), ["ann"])
            else:
                self.assertIn("argon2: expected a hash of argon2id", self.refusal())

    def test_a_file_that_others_can_read_is_refused(self) -> None:
        self.write("", 0o644)
        self.assertEqual(
            self.refusal(),
            "FILE: found mode 0644, expected 0600 or 0640: others can read or write it",
        )

    def test_a_pipe_is_refused_without_waiting_for_a_writer(self) -> None:
        os.mkfifo(self.path, 0o600)
        self.assertEqual(self.refusal(), "FILE: not a regular file")

    def test_a_missing_file_is_an_error_that_names_the_command_to_make_one(self) -> None:
        self.assertEqual(
            self.refusal(),
            "FILE: cannot be read: No such file or directory;"
            " expected a file made by twisted-mta users add",
        )


def _unpadded(octets: int) -> str:
    return b64encode(bytes(octets)).decode().rstrip("=")


def _entry(key: str, value: object) -> str:
    return json.dumps({"name": "ann", key: value})


class Passwords(TestCase):
    def test_no_other_password_verifies(self) -> None:
        hashed = account("ann").argon2
        self.assertTrue(verify(hashed, "opensesame"))
        self.assertFalse(verify(hashed, "opensesam"))
        self.assertFalse(verify("$argon2id$broken", "opensesame"))

    def test_without_an_account_no_password_verifies_and_the_work_is_the_same(self) -> None:
        self.assertFalse(verify(None, "opensesame"))
        hashed = account("ann").argon2
        assert hashed is not None
        self.assertEqual(extract_parameters(NO_PASSWORD), extract_parameters(hashed))

    def test_a_name_has_255_characters_at_most(self) -> None:
        self.assertEqual(account("a" * 255, None).name, "a" * 255)
        self.assertRaises(AccountsError, account, "a" * 256, None)

    def test_two_spellings_of_a_password_are_equal_by_saslprep(self) -> None:
        self.assertTrue(verify(account("ann", "\u2168").argon2, "IX"))

    def test_invalid_names_and_passwords_are_refused(self) -> None:
        for name, password in (("", "x"), ("ann", ""), ("ann", "\x07"), (" ann", "x")):
            self.assertRaises(AccountsError, account, name, password)

    def test_no_secret_is_in_the_text_of_an_object(self) -> None:
        ann = account("ann")
        keys = ann.scram["sha256"]
        texts = "".join((repr(ann), repr(keys), repr(Accounts({"ann": ann}))))
        self.assertNotIn("argon2id", texts)
        for secret_octets in (keys.stored_key, keys.server_key):
            self.assertNotIn(repr(secret_octets)[2:-1], texts)

    def test_scram_keys_are_read_as_they_were_written(self) -> None:
        keys = ScramVerifier.of("sha256", "pencil", b"0123456789abcdef")
        self.assertEqual(ScramVerifier.read("sha256", str(keys)), keys)
        derived = scram_keys("sha256", "pencil", b"0123456789abcdef", 10_000)
        self.assertEqual((keys.stored_key, keys.server_key), (derived.stored, derived.server))


class Addresses(TestCase):
    def addresses(self, *accounts: Account) -> AccountAddresses:
        held = {each.name.lower(): each for each in accounts}
        return AccountAddresses(Accounts(held), ("example.net", "example.org"))

    def test_an_account_may_send_as_its_name_and_its_addresses(self) -> None:
        addresses = self.addresses(
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
            allows = addresses.may_send_as(name, Mailbox.parse(address))
            self.assertEqual(allows, allowed, (name, address))

    def test_a_login_with_a_local_domain_means_the_account_of_its_local_part(self) -> None:
        addresses = self.addresses(account("Ann", None), account("bob@example.net", None))
        for login, name, found in (
            ("ann", "ann", "Ann"),
            ("ANN@Example.NET", "ANN", "Ann"),
            ("ann@example.org", "ann", "Ann"),
            ("ann@example.com", "ann@example.com", None),
            ("bob@example.net", "bob@example.net", "bob@example.net"),
            ("Bob@Example.net", "Bob@Example.net", "bob@example.net"),
            ("bob@example.org", "bob", None),
            ("eve@example.net", "eve", None),
            ("@example.net", "@example.net", None),
            ("ann@", "ann@", None),
            ("ann@..", "ann@..", None),
        ):
            self.assertEqual(addresses.name_of(login), name, login)
            account_found = addresses.find(login)
            self.assertEqual(account_found and account_found.name, found, login)

    def test_an_account_may_act_as_its_logins_and_its_own_addresses(self) -> None:
        addresses = self.addresses(
            account("ann", None, "sales@example.com", "@example.edu", "*"),
            account("bob@example.net", None),
        )
        for name, authzid, allowed in (
            ("ann", "ANN", True),
            ("ann", "Ann@example.org", True),
            ("ann", "Sales@example.com", True),
            ("ann", "x@example.edu", False),
            ("ann", "@example.edu", False),
            ("ann", "*", False),
            ("ann", "bob@example.net", False),
            ("ann", "", False),
            ("bob@example.net", "Bob@example.net", True),
            ("bob@example.net", "bob", False),
        ):
            self.assertEqual(addresses.may_act_as(name, authzid), allowed, (name, authzid))

    def test_a_login_that_a_proxy_names_has_the_addresses_of_its_account(self) -> None:
        addresses = self.addresses(account("ann", None, "sales@example.com"))
        for address, allowed in (
            ("sales@example.com", True),
            ("ann@example.net", True),
            ("bob@example.net", False),
        ):
            allows = addresses.may_send_as("ann@example.org", Mailbox.parse(address))
            self.assertEqual(allows, allowed, address)

    def test_the_mailboxes_of_accounts_exist(self) -> None:
        addresses = self.addresses(account("ann", None, "sales@example.net", "@example.edu"))
        for address, exists in (
            ("ann@example.org", True),
            ("Sales+a@example.net", True),
            ("sales@example.org", False),
            ("who@example.edu", False),
        ):
            self.assertEqual(addresses.is_mailbox(Mailbox.parse(address)), exists, address)

    def test_the_address_of_an_account_is_its_first_mailbox(self) -> None:
        addresses = self.addresses(
            account("ann", None), account("the boss", None, "*", "b@example.com")
        )
        self.assertEqual(str(addresses.address_of("ann")), "ann@example.net")
        self.assertEqual(str(addresses.address_of("the boss")), "b@example.com")
