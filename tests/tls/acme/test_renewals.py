"""When certificates are renewed: months pass on a clock, at an authority with the RFC's rules."""

from __future__ import annotations

import os
import stat
from itertools import pairwise

from tests.logs import logged_lines
from tests.tls.acme.renewing import MX, RenewerTestCase, key_of
from tests.tls.acme_server import DAY, Response, problem
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.tls.acme.renewer import State
from twisted_mta.tls.acme.store import read_status
from twisted_mta.tls.certificate_files import certificate_file


class Renewals(RenewerTestCase):
    def test_a_year_of_certificates_of_ninety_days(self) -> None:
        renewer = self.start()
        self.advance(seconds=60)
        for _ in range(365):
            self.advance(days=1)
            left = self.installed[-1].not_valid_after_utc.timestamp() - self.true_time()
            self.assertGreater(left, 27 * DAY)
        self.assertEqual(self.ca.refusals, [])
        self.assertEqual(self.installed, self.ca.issued)
        for days in self.days_between(self.ca.issued):
            self.assertTrue(59.9 < days < 62, days)  # in the window of the authority
        self.assertEqual(len(self.ca.accounts), 1)
        self.assertEqual(len({key_of(each) for each in self.ca.issued}), 1)
        self.assertEqual(renewer.problem, "")

    def test_without_a_word_of_the_authority_a_third_of_the_life_is_left(self) -> None:
        self.ca.has_renewal_info = False
        self.start()
        self.advance(days=190)
        self.assertEqual([round(days, 1) for days in self.days_between(self.ca.issued)], [60.0] * 3)
        self.assertEqual(self.ca.refusals, [])

    def test_a_certificate_of_six_days(self) -> None:
        self.ca.has_renewal_info = False
        self.ca.life = 160 * 3600.0
        self.ca.profiles = {"shortlived": "six days"}
        self.start(self.settings(profile="shortlived"))
        self.advance(days=4)
        current = self.store.certificate()
        assert current is not None
        self.assertEqual(current.warnings(self.true_time()), [])  # it is renewed in time
        self.advance(days=26)
        for days in self.days_between(self.ca.issued):
            self.assertTrue(4.4 < days < 4.5, days)
        self.assertEqual(len(self.ca.issued), 7)

    def test_a_certificate_that_the_authority_revokes_is_replaced_at_once(self) -> None:
        self.start()
        self.advance(days=20)
        first = self.ca.issued[0]
        start = first.not_valid_before_utc.timestamp()
        self.ca.window = lambda found: (
            (start, start + 60) if found is first else (start + 70 * DAY, start + 71 * DAY)
        )
        self.advance(hours=7)  # it is asked four times a day
        self.assertEqual(len(self.ca.issued), 2)
        self.advance(days=20)
        self.assertEqual(len(self.ca.issued), 2)

    def test_an_authority_that_always_says_now_gets_no_endless_orders(self) -> None:
        self.ca.window = lambda found: (0.0, 1.0)
        self.start()
        self.advance(days=30)
        self.assertLess(len(self.ca.issued), 6)

    def test_an_authority_that_says_never_does_not_let_the_certificate_expire(self) -> None:
        self.ca.window = lambda found: (EONS, EONS + 1)
        self.start()
        self.advance(days=80)
        self.assertEqual(len(self.ca.issued), 2)

    def test_renewals_are_spread_over_the_window(self) -> None:
        moments = set()
        for seed in range(4):
            self.start(seed=seed)
            self.advance(seconds=60)
            assert self.renewer is not None
            moments.add(self.renewer.renewal_time())
            self.stop()
            os.remove(certificate_file(self.directory))
        self.assertEqual(len(moments), 4)

    def test_the_new_certificate_replaces_the_old_one_at_the_authority(self) -> None:
        self.start()
        self.advance(days=65)
        self.assertEqual(len(self.ca.replaced), 1)

    def test_an_order_that_cannot_replace_is_made_without_that(self) -> None:
        self.start()
        self.advance(seconds=60)
        self.ca.plan["newOrder"] += [problem(409, "alreadyReplaced", "another order does")]
        self.advance(days=65)
        self.assertEqual(len(self.ca.issued), 2)

    def test_a_new_key_for_each_certificate(self) -> None:
        self.start(self.settings(new_key=True))
        self.advance(days=130)
        self.assertEqual(len({key_of(each) for each in self.ca.issued}), 3)

    def test_a_key_of_another_kind_is_a_new_one(self) -> None:
        renewer = self.start()
        self.advance(seconds=60)
        renewer.use(self.settings(key_type="rsa"), self.names)
        self.advance(seconds=60)
        self.assertEqual(len(self.ca.issued), 2)
        self.advance(days=70)
        self.assertEqual(len({key_of(each) for each in self.ca.issued}), 2)

    def test_several_names_share_a_certificate(self) -> None:
        self.names.append("mail.example.test")
        self.addresses["mail.example.test"] = self.addresses[MX]
        self.start()
        self.advance(seconds=60)
        self.assertEqual(len(self.installed), 1)

    def test_account_and_certificate_are_for_their_owner_alone(self) -> None:
        self.start()
        self.advance(seconds=60)
        folder = os.path.join(self.directory, "acme")
        self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700)
        names = os.listdir(folder)
        self.assertEqual(len(names), 3, names)
        for name in names:
            self.assertEqual(stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode), 0o600, name)

    def test_the_contact_of_the_account_follows_the_settings(self) -> None:
        renewer = self.start(self.settings(contact="mailto:ann@example.test"))
        self.advance(seconds=60)
        renewer.use(self.settings(contact="mailto:bob@example.test"), self.names)
        self.advance(days=65)
        [account] = self.ca.accounts
        self.assertEqual(account.contact, ["mailto:bob@example.test"])
        self.assertEqual(self.ca.refusals, [])

    def test_an_account_that_the_authority_has_forgotten_is_made_again(self) -> None:
        self.start()
        self.advance(seconds=60)
        self.ca.accounts.clear()
        self.advance(days=65)
        self.assertEqual(len(self.ca.accounts), 1)
        self.assertEqual(len(self.ca.issued), 2)

    def test_external_account_binding(self) -> None:
        self.ca.bindings = {"customer-1": b"\x01\xff" * 16}
        path = os.path.join(self.directory, "eab")
        with open(path, "w", encoding="ascii") as file:
            file.write("Af8B_wH_Af8B_wH_Af8B_wH_Af8B_wH_Af8B_wH_Af8\n")
        renewer = self.start()
        self.advance(seconds=60)
        self.assertIn("expected eab_key_id and eab_key_file", renewer.problem)
        renewer.use(self.settings(eab_key_id="customer-1", eab_key_file=path), self.names)
        self.advance(seconds=60)
        self.assertEqual(self.ca.refusals, [])
        self.assertEqual(len(self.installed), 1)


EONS = 4_000_000_000.0


class Failures(RenewerTestCase):
    """The certificate in force stays; the reason is one line; the next attempt is later."""

    def started(self) -> None:
        """Have a certificate, and come to the day before its renewal."""
        self.start()
        self.advance(seconds=60)
        self.assertEqual(len(self.installed), 1)
        self.advance(days=59.5)

    def problem(self) -> str:
        assert self.renewer is not None
        text = self.renewer.problem
        self.assertTrue(text.isprintable() and text.isascii(), text)
        self.assertEqual(read_status(self.directory).problem in text, True)
        return text

    def refused(self, expected: str, issued: int = 1) -> None:
        """Come to the failure; the old certificate stays, and a later attempt succeeds."""
        self.until(self.problem, days=4)
        self.assertIn(expected, self.problem())
        self.assertEqual(len(self.installed), 1)
        self.assertIn("the one in force is valid until", self.problem())
        self.until(lambda: len(self.installed) == 2, days=4)
        self.assertEqual(self.problem(), "")

    def test_an_authority_that_is_away(self) -> None:
        self.started()
        lines = logged_lines(self, "no new certificate of")
        self.down = "ca.example has no address"
        self.until(self.problem, days=4)
        self.assertIn("ca.example has no address", self.problem())
        moments = []
        for _ in range(8):
            before = len(lines)
            self.until(lambda count=before: len(lines) > count)  # type: ignore[misc]
            moments.append(self.true_time())
        waits = [b - a for a, b in pairwise(moments)]
        self.assertTrue(all(450 < wait < 7 * 3600 for wait in waits), waits)
        self.assertGreater(waits[-1], 4 * 3600)
        self.down = ""
        self.until(lambda: len(self.installed) == 2)
        self.assertEqual(self.problem(), "")

    def test_a_rate_limit_is_obeyed(self) -> None:
        self.started()
        self.ca.plan["newOrder"] += [
            problem(429, "rateLimited", "too many certificates", Retry_After="200000")
        ]
        self.until(self.problem, days=4)
        self.assertIn("429 rateLimited: too many certificates", self.problem())
        before = self.true_time()
        self.until(lambda: len(self.installed) == 2)
        self.assertTrue(200_000 <= self.true_time() - before < 210_000)

    def test_a_rate_limit_of_years_is_not_obeyed_for_more_than_a_week(self) -> None:
        self.started()
        self.ca.plan["newOrder"] += [
            problem(503, "serverInternal", "later", Retry_After="999999999")
        ]
        self.until(self.problem, days=4)
        self.advance(days=8)
        self.assertEqual(len(self.installed), 2)

    def test_a_restart_does_not_forget_when_the_next_attempt_is(self) -> None:
        self.started()
        self.ca.plan["newOrder"] += [problem(429, "rateLimited", "too many", Retry_After="200000")]
        self.until(self.problem, days=4)
        self.stop()
        count = self.ca.requests.count("newOrder")
        self.start(seed=2)
        self.advance(days=2)
        self.assertEqual(self.ca.requests.count("newOrder"), count)

    def test_a_challenge_that_cannot_be_fetched(self) -> None:
        self.started()
        there = self.addresses.pop(MX)
        self.until(self.problem, days=4)
        self.assertIn(f"{MX}: the authority cannot validate it: connection:", self.problem())
        self.addresses[MX] = there
        self.until(lambda: len(self.installed) == 2)

    def test_a_nonce_that_is_refused_is_replaced(self) -> None:
        self.started()
        self.ca.plan["newOrder"] += [problem(400, "badNonce", "old")] * 3
        self.advance(days=3)
        self.assertEqual(len(self.installed), 2)

    def test_nonces_that_are_all_refused(self) -> None:
        self.started()
        self.ca.plan["newOrder"] += [problem(400, "badNonce", "old")] * 10
        self.refused("has refused 6 nonces in a row")

    def test_an_order_that_becomes_invalid(self) -> None:
        self.started()
        order = {
            "status": "invalid",
            "authorizations": [f"{self.ca.base}/authorization/1"],
            "finalize": f"{self.ca.base}/finalize/1",
            "error": {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"},
        }
        self.ca.plan["order"] += [Response(value=order)]
        self.refused("the authority has ended the order: caa: CAA forbids it")

    def test_an_order_that_is_never_decided(self) -> None:
        self.started()
        order = {
            "status": "processing",
            "authorizations": [f"{self.ca.base}/authorization/1"],
            "finalize": f"{self.ca.base}/finalize/1",
        }
        self.ca.plan["order"] += [Response(value=order)] * 400
        self.until(self.problem, days=4)
        self.assertIn("has decided nothing within 15 min", self.problem())

    def test_answers_of_other_kinds(self) -> None:
        self.started()
        for answer, expected in (
            (
                Response(body=b"<html>", type="text/html"),
                "has text/html, expected application/json",
            ),
            (Response(body=b"{"), "is not JSON"),
            (Response(body=b"[" * 60_000), "is not JSON"),
            (Response(value=[1]), "a list of JSON, expected an object"),
            (Response(value={}), "no URL of HTTPS"),
            (
                Response(301, headers={"Location": "https://a.example/"}),
                "redirects are not followed",
            ),
            (Response(500, body=b"\x1b[2Jx", type="text/plain"), "500"),
            (problem(403, "unauthorized", "evil\r\n\x1b[31m" + "x" * 5000), r"evil\r\n\x1b[31m"),
        ):
            self.ca.plan["directory"] += [answer]
            assert self.renewer is not None
            self.renewer.use(self.settings(profile=None), [MX, "other.example.test"])
            self.advance(seconds=1)
            self.assertIn(expected, self.problem())
            self.assertLess(len(self.problem()), 700)
        self.assertEqual(len(self.installed), 1)

    def test_urls_that_are_not_of_https(self) -> None:
        self.started()
        for url in ("http://ca.example/x", "file:///etc/passwd", "https://", "https://a b/", 7):
            self.ca.plan["directory"] += [
                Response(value={"newNonce": url, "newAccount": url, "newOrder": url})
            ]
            assert self.renewer is not None
            self.renewer.use(self.settings(), [MX, "other.example.test"])
            self.advance(seconds=1)
            self.assertIn("no URL of HTTPS", self.problem())

    # Certificates that cannot be used: issued all the same, so the next is asked for a day later.

    def spoilt(self, expected: str) -> None:
        self.until(self.problem, days=4)
        self.assertIn(f"the certificate that was issued: {expected}", self.problem())
        self.assertEqual(len(self.installed), 1)
        issued, before = len(self.ca.issued), self.true_time()
        self.ca.spoil = lambda chain: chain
        self.until(lambda: len(self.installed) == 2)
        self.assertGreater(self.true_time() - before, 0.7 * DAY)
        self.assertEqual(len(self.ca.issued), issued + 1)

    def test_a_certificate_of_another_key(self) -> None:
        self.started()
        other = self.ca._key.public_key()
        self.ca.spoil = lambda chain: self.ca.issue([MX], other)
        self.until(self.problem, days=4)
        self.assertIn("it is for another key than ours", self.problem())
        self.assertEqual(len(self.installed), 1)

    def test_a_certificate_of_other_names(self) -> None:
        self.started()
        key = self.installed[0].public_key()
        self.ca.spoil = lambda chain: self.ca.issue(["other.example.test"], key)
        self.until(self.problem, days=4)
        self.assertIn(f"it is not for {MX}", self.problem())

    def test_a_chain_with_something_else_in_it(self) -> None:
        self.started()
        self.ca.spoil = lambda chain: chain + b"-----BEGIN PRIVATE KEY-----\nAA==\n"
        self.spoilt("the chain has something else than certificates in it")

    def test_a_chain_that_cannot_be_read(self) -> None:
        self.started()
        self.ca.spoil = lambda chain: chain[: len(chain) // 4]
        self.spoilt("the chain is no PEM that can be read")

    def test_an_empty_chain(self) -> None:
        self.started()
        self.ca.spoil = lambda chain: b""
        self.spoilt("the chain has 0 certificates, expected 1 to 10")

    def test_a_chain_of_thousands(self) -> None:
        self.started()
        self.ca.spoil = lambda chain: chain * 20
        self.spoilt("the chain has 40 certificates, expected 1 to 10")

    def test_a_chain_in_the_wrong_order(self) -> None:
        self.started()
        self.ca.spoil = lambda chain: chain + chain
        self.spoilt("certificate 2 of the chain is not signed by the next one")

    def test_a_clock_that_is_late(self) -> None:
        self.offset = -3 * DAY
        renewer = self.start()
        self.advance(seconds=60)
        self.assertIn("it is not valid before", renewer.problem)
        self.assertIn("and the clock of this machine says", renewer.problem)
        self.assertEqual(self.installed, [])
        self.advance(hours=12)
        self.assertEqual(len(self.ca.issued), 1)  # no second one within the day
        self.offset = 0.0
        self.until(lambda: self.installed)

    def test_a_clock_that_was_set_back_does_not_put_the_next_attempt_off(self) -> None:
        self.down = "away"
        self.start()
        self.offset = -300 * DAY
        self.down = ""
        self.ca.backdated = 400 * DAY
        self.advance(hours=2)
        self.assertEqual(len(self.installed), 1)

    # Our own disk, and our own processes.

    def test_a_disk_that_is_full_leaves_the_old_certificate(self) -> None:
        self.started()
        with open(certificate_file(self.directory), "rb") as file:
            before = file.read()
        os.chmod(os.path.join(self.directory, "acme"), 0o700)
        self.files.create = _raises(OSError(28, "No space left on device"))  # type: ignore[method-assign]
        assert self.renewer is not None
        self.until(lambda: self.renewer.problem, days=4)  # type: ignore[union-attr]
        self.assertIn("No space left on device", self.renewer.problem)
        with open(certificate_file(self.directory), "rb") as file:
            self.assertEqual(file.read(), before)
        del self.files.create
        self.until(lambda: len(self.installed) == 2)

    def test_a_certificate_that_cannot_be_put_in_force_is_tried_again(self) -> None:
        self.started()
        self.cannot_install = "worker 1: it does not answer"
        assert self.renewer is not None
        self.until(lambda: self.renewer.problem, days=4)  # type: ignore[union-attr]
        self.assertIn("is not in force: worker 1: it does not answer", self.renewer.problem)
        self.assertEqual(len(self.ca.issued), 2)
        self.cannot_install = ""
        self.advance(seconds=90)
        self.assertEqual(self.installed[-1], self.ca.issued[-1])
        self.assertEqual(self.renewer.problem, "")

    def test_an_account_that_cannot_be_read_is_not_replaced(self) -> None:
        self.start()
        self.advance(seconds=60)
        self.stop()
        folder = os.path.join(self.directory, "acme")
        [account] = [name for name in os.listdir(folder) if name.startswith("account-")]
        with open(os.path.join(folder, account), "wb") as file:
            file.write(b'{"key": "half')
        self.start(seed=2)
        self.advance(days=63)
        self.assertIn("if the file is removed, a new account is made", self.problem())
        with open(os.path.join(folder, account), "rb") as file:
            self.assertEqual(file.read(), b'{"key": "half')

    def test_a_stop_ends_an_attempt(self) -> None:
        renewer = self.start()
        self.assertEqual(renewer.state, State.ISSUING)
        self.stop()
        self.assertEqual(renewer.state, State.STOPPED)
        self.reactor.advance(10 * DAY)
        self.assertEqual(self.ca.issued, [])

    def test_no_secret_reaches_the_log(self) -> None:
        lines = logged_lines(self)
        self.ca.bindings = {"customer-1": b"k" * 32}
        path = os.path.join(self.directory, "eab")
        with open(path, "w", encoding="ascii") as file:
            file.write("bad" + "secret" * 8)
        self.start(self.settings(eab_key_id="customer-1", eab_key_file=path))
        self.advance(seconds=60)
        self.assertTrue(lines)
        for line in lines:
            self.assertNotIn("secretsecret", line)
            self.assertNotIn("PRIVATE", line)


class PowerCuts(RenewerTestCase):
    def test_at_each_operation_the_old_file_or_the_new_one_is_there(self) -> None:
        for operations in range(20):
            files = UnsyncedFiles()
            files.make_directories(self.directory)
            from twisted_mta.tls.acme.store import Store

            store = Store(self.directory, files)
            store.save_certificate(b"old")
            files.cut_power_in(operations)
            try:
                store.save_certificate(b"new")
                whole = True
            except OSError:
                whole = False
            files.crash()
            content = files.content(certificate_file(self.directory))
            self.assertIn(content, (b"new",) if whole else (b"old", b"new"))


def _raises(error: Exception) -> object:
    def raising(*_: object) -> None:
        raise error

    return raising
