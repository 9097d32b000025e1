"""Findings about directories, files, free disk space, and running as root."""

import os
import unittest

from tests.cli.check.checking import CheckTestCase
from twisted_mta.config.destination import Destination
from twisted_mta.config.listener import Listener
from twisted_mta.config.policy import PolicySettings
from twisted_mta.queue.store.lock import StateLock


class Directories(CheckTestCase):
    def test_a_missing_directory_is_not_created(self) -> None:
        self.assertEqual(self.found(self.config()), [])
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_file_in_the_place_of_a_directory_is_an_error(self) -> None:
        file = self.write("file")
        config = self.config(state_dir=file, maildir=os.path.join(file, "mail"))
        self.assertEqual(
            self.found(config),
            [
                "error: [mta] state_dir: DIR/file is not a directory; move it away, or name"
                " another",
                "error: [mta] maildir: DIR/file is not a directory; move it away",
            ],
        )

    def test_a_state_directory_that_others_could_replace_is_an_error_before_it_exists(self) -> None:
        os.chmod(self.directory, 0o777)
        [fault] = self.found(self.config())
        self.assertTrue(fault.startswith("error: [mta] state_dir: "), fault)
        self.assertIn("DIR", fault)
        os.chmod(self.directory, 0o700)
        self.assertEqual(self.found(self.config()), [])

    def test_a_state_directory_that_other_users_can_read_is_a_warning(self) -> None:
        os.mkdir(self.state)
        os.chmod(self.state, 0o750)
        self.assertEqual(
            self.found(self.config()),
            ["warning: [mta] state_dir: other users can read DIR/state (mode 0750); chmod 0700"],
        )
        os.chmod(self.state, 0o700)
        self.assertEqual(self.found(self.config()), [])

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_a_directory_that_is_not_writable_is_an_error(self) -> None:
        os.mkdir(self.state)
        os.chmod(self.state, 0o500)
        (state, maildir) = self.found(self.config())
        self.assertIn("error: [mta] state_dir: DIR/state is not writable", state)
        self.assertIn("DIR/state/maildir cannot be created: DIR/state is not writable", maildir)


class WaitingMail(CheckTestCase):
    def test_mail_that_waits_is_told_and_what_is_none_is_a_warning(self) -> None:
        drop = os.path.join(self.directory, "drop")
        config = self.config(local_submission_directory=drop)
        self.assertEqual(self.found(config), [])
        os.mkdir(drop)
        self.assertEqual(self.found(config), [])
        for name in ("mail-1", "mail-2", "part-3", "refused-mail-4"):
            self.write(os.path.join("drop", name))
        self.assertEqual(
            [each for each in self.found(config, notes=True) if "DIR/drop" in each],
            [
                "note: [mta] local_submission_directory: 2 messages of twisted-mta-sendmail wait"
                " in DIR/drop: the MTA takes mail in while it runs",
                "warning: [mta] local_submission_directory: 1 file in DIR/drop was no message,"
                " and is set aside as refused-… for a week; the log says why, and ls -l whose"
                " they are",
            ],
        )


class Files(CheckTestCase):
    def test_errors_of_lists_and_senders_that_cannot_count_are_reported(self) -> None:
        allow, deny = self.write("allow", "ann@a.example\n"), self.write("deny", "192.0.2.300\n")
        (error,) = self.found(self.config(policy=PolicySettings(allow=allow, deny=deny)))
        self.assertIn('error: DIR/deny:1: "192.0.2.300": not a network; expected', error)
        off = PolicySettings(allow=allow, spf="off", dkim="off", dmarc="off")
        (warning,) = self.found(self.config(policy=off))
        self.assertIn("warning: [policy] allow: DIR/allow has senders, which count only", warning)

    def test_errors_and_gaps_of_the_list_of_relay_recipients_are_reported(self) -> None:
        config = self.config(
            relay_domains=("a.example", "b.example"),
            relay_recipients=self.write("recipients", "ann@a.example\nann@b.example\n"),
        )
        self.assertEqual(self.found(config), [])
        self.write("recipients", "ann@a.example\n")
        (gap,) = self.found(config)
        self.assertIn("warning: [mta] relay_recipients: DIR/recipients has no address of b.", gap)
        self.write("recipients", "ann@a.example\nann@c.example\n")
        (error,) = self.found(config)
        self.assertIn('error: DIR/recipients:2: "ann@c.example": c.example is none of', error)

    def test_errors_of_the_file_of_aliases_are_reported(self) -> None:
        config = self.config(aliases=self.write("aliases", "root: you\n"))
        self.assertEqual(self.found(config), [])
        self.write("aliases", "root: you\nroot: me\n")
        (text,) = self.found(config)
        self.assertTrue(text.startswith("error: DIR/aliases:2: "), text)

    def test_members_of_aliases_without_a_mailbox_are_named(self) -> None:
        for name in ("eve", "carol"):
            os.makedirs(self.path("mail", "mail.example.net", name, "new"))
        lines = (
            "carol: carol, carol@remote.test",
            "bob: bob+x, bob@remote.test",
            "all: eve+news, ghost, list, Postmaster, x@refused.example, y@waits.example, owner",
            "list: eve, ghost, all",
            "sales@virtual.example: eve@mail.example.net, nobody@virtual.example",
            "@virtual2.example: @mail.example.net",
            "rest: @virtual2.example",
        )
        config = self.config(
            aliases=self.write("aliases", "\n".join(lines)),
            users=self.write("users", '{"name": "owner"}\n', mode=0o600),
            maildir=self.path("mail"),
            recipients="existing",
            local_domains=("mail.example.net",),
            virtual_domains=("virtual.example", "virtual2.example"),
            routes=(
                ("refused.example", "error:5.1.6 Moved"),
                ("waits.example", "error:4.3.2 Later"),
            ),
        )
        nothing = "which receives nothing: 550 5.1.1 No such mailbox here"
        do = "make the mailbox, or remove the member"
        self.assertEqual(
            [each for each in self.found(config) if "aliases" in each],
            [
                f"warning: DIR/aliases:2: bob leads to <bob+x@mail.example.net>, {nothing}; {do}",
                f"warning: DIR/aliases:3: all leads to <ghost@mail.example.net>, {nothing}; {do}",
                "warning: DIR/aliases:3: all leads to <x@refused.example>, which receives nothing:"
                f" 550 5.1.6 Moved; {do}",
                f"warning: DIR/aliases:4: list leads to <ghost@mail.example.net>, {nothing}; {do}",
                "warning: DIR/aliases:5: sales@virtual.example leads to"
                f" <nobody@virtual.example>, {nothing}; {do}",
            ],
        )

    def test_of_many_missing_members_twenty_are_named(self) -> None:
        config = self.config(
            aliases=self.write(
                "aliases", "all: " + ", ".join(f"u{number}" for number in range(50))
            ),
            recipients="existing",
        )
        found = [each for each in self.found(config) if "aliases" in each]
        self.assertEqual(len(found), 21)
        self.assertEqual(
            found[-1], "warning: DIR/aliases: 30 more members of aliases receive nothing"
        )

    def test_errors_of_the_file_of_accounts_are_reported(self) -> None:
        config = self.config(users=self.write("users", '{"name": "ann"}\n', mode=0o600))
        self.assertEqual(self.found(config), [])
        self.write("users", "", mode=0o600)
        self.assertEqual(
            self.found(config),
            [
                "warning: [mta] users: DIR/users has no accounts: no user can authenticate;"
                " twisted-mta users add NAME"
            ],
        )
        self.write("users", "ann:secret\n", mode=0o600)
        (text,) = self.found(config)
        self.assertTrue(text.startswith("error: DIR/users: line 1: not an object of JSON"), text)

    def test_a_listener_without_accounts_is_a_warning(self) -> None:
        listener = Listener(kind="submission", endpoint="tcp:0:interface=127.0.0.1")
        (text,) = self.found(self.config(listeners=[listener]))
        self.assertIn(
            "no user can authenticate: there are no accounts; name them by --users FILE", text
        )

    def test_a_password_that_other_users_can_read_is_a_warning(self) -> None:
        file = self.write("password", "secret\n", mode=0o644)
        destination = Destination(domain="hub.example", username="me", password_file=file)
        text = self.found(self.config(destinations=[destination]))[-1]
        self.assertIn("warning: DIR/password: others than its owner can read", text)

    def test_an_account_with_tokens_is_checked(self) -> None:
        token = self.write("token", "t0ken\n")
        kept = Destination(domain="hub.example", username="me", token_file=token)
        away = Destination(domain="other.example", username="me", token_file=self.path("away"))
        granted = Destination(
            domain="third.example",
            username="me",
            oauth_token_url="https://login.example/token",
            oauth_client_id="us",
            oauth_client_secret_file=self.path("secret"),
        )
        missing = Destination(
            domain="fourth.example", username="me", token_command=self.path("program") + " us"
        )
        found = self.found(self.config(destinations=[kept, away, granted, missing]))
        self.assertIn(
            "error: [[destination]] fourth.example, token_command: DIR/program cannot be run;"
            " expected the path of a program, and its arguments",
            found,
        )
        self.assertEqual([each for each in found if "hub.example" in each], [])
        self.assertEqual(len([each for each in found if "DIR/away" in each]), 1, found)
        self.assertEqual(len([each for each in found if "DIR/secret" in each]), 1, found)


class Folders(CheckTestCase):
    def warnings(self, *folders: str) -> list[str]:
        for folder in folders:
            os.makedirs(self.path("mail", folder, "new"))
        config = self.config(maildir=self.path("mail"), local_domains=("example.net", "b.example"))
        start = "warning: DIR/mail/"
        return [each.removeprefix(start) for each in self.found(config) if each.startswith(start)]

    def test_folders_that_mail_finds_and_foreign_ones_are_no_problem(self) -> None:
        self.assertEqual(self.warnings("example.net/carl", "other.example/Carl"), [])

    def test_a_folder_in_upper_case_or_with_the_domain_or_a_tag_is_never_found(self) -> None:
        never = "mail never finds this folder:"
        self.assertEqual(
            self.warnings(
                *("example.net/Carl", "example.net/dave@example.net", "example.net/eve+news"),
                "example.net/.trash",
            ),
            [
                "example.net/.trash: mail never finds this folder: no address has a mailbox of that"
                " name; rename it",
                f"example.net/Carl: {never} mail for Carl goes to DIR/mail/example.net/carl;"
                " rename it to DIR/mail/example.net/carl",
                f"example.net/dave@example.net: {never} a folder has the name of a local part,"
                " without the domain; rename it to DIR/mail/example.net/dave",
                f"example.net/eve+news: {never} mail for eve+news goes to"
                " DIR/mail/example.net/eve; rename it to DIR/mail/example.net/eve",
            ],
        )

    def test_a_misspelled_domain_or_a_missing_one_is_never_found(self) -> None:
        never = "mail never finds this folder:"
        self.assertEqual(
            self.warnings("B.Example/ann", "Carl", "dave@B.example"),
            [
                f"B.Example: {never} the domain is spelled b.example;"
                " rename it to DIR/mail/b.example",
                f"Carl: {never} a mailbox is in the folder of its domain;"
                " move it to DIR/mail/example.net/carl",
                f"dave@B.example: {never} a mailbox is in the folder of its domain;"
                " move it to DIR/mail/b.example/dave",
            ],
        )

    def test_a_directory_that_is_a_maildir_itself_is_a_warning(self) -> None:
        for name in ("cur", "new", "tmp"):
            os.makedirs(self.path("mail", name))
        texts = self.found(self.config(maildir=self.path("mail")))
        self.assertIn(
            "warning: DIR/mail: mail never finds this folder: a Maildir, and expected to contain"
            " one for each mailbox; move its content to DIR/mail/localhost/NAME",
            texts,
        )

    def test_of_many_folders_twenty_are_named(self) -> None:
        self.warnings(*(f"example.net/User{number}" for number in range(30)))
        config = self.config(maildir=self.path("mail"), local_domains=("example.net",))
        found = [each for each in self.found(config) if "never" in each]
        self.assertEqual(
            (len(found), found[-1]),
            (21, "warning: DIR/mail: 10 more folders are never found by mail"),
        )


class Disk(CheckTestCase):
    def test_too_little_free_disk_space_is_an_error(self) -> None:
        config = self.config(minimum_free_disk=10 << 20)
        (text,) = self.found(
            config, free=lambda path: 9 << 20 if path == self.directory else 1 << 40
        )[:1]
        self.assertEqual(
            text,
            "error: [mta] state_dir: 9.0 MiB are free for DIR/state; below minimum_free_disk"
            " (10 MiB) all mail is deferred (452); free disk space, or lower [mta]"
            " minimum_free_disk",
        )
        self.assertEqual(self.found(config, free=lambda path: 10 << 20), [])

    def test_the_file_system_of_the_maildir_is_checked(self) -> None:
        os.mkdir(self.path("mail"))
        config = self.config(maildir=self.path("mail"))
        full = {self.path("mail"): 0}
        (text,) = self.found(config, free=lambda path: full.get(path, 1 << 40))
        self.assertIn("warning: [mta] maildir: 0.0 MiB are free for DIR/mail", text)


class Root(CheckTestCase):
    def test_a_check_as_root_is_a_warning(self) -> None:
        (text,) = self.found(self.config(), user=lambda: 0)
        self.assertIn("warning: user: this runs as root", text)
        self.assertIn("twistd --uid USER --gid GROUP", text)


class Running(CheckTestCase):
    def test_an_mta_that_runs_on_the_state_directory_is_named(self) -> None:
        os.mkdir(self.state, 0o700)
        lock = StateLock(os.path.join(self.state, "lock"))
        lock.acquire()
        self.addCleanup(lock.release)
        text = self.found(self.config(), notes=True)[0]
        self.assertEqual(
            text,
            f"note: [mta] state_dir: an MTA runs on DIR/state (process {os.getpid()}): a second"
            " one would be refused; its ports count as free",
        )
        lock.release()
        self.assertNotIn("an MTA runs", "".join(self.found(self.config(), notes=True)))
