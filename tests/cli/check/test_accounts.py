"""Findings about AUTH that no user can pass."""

from tests.cli.check.checking import CheckTestCase
from twisted_mta.config import Listener
from twisted_mta.config.checker import checker_spec
from twisted_mta.config.tables import WebSettings

PLAIN_ONLY = checker_spec("unix:")  # it takes plain passwords alone
ENDPOINT = "tcp:0:interface=127.0.0.1"
AUTHORITIES = {"client_certificate_authorities": "/authorities.pem"}
WARNING = f"warning: listener {ENDPOINT}"


class Mechanisms(CheckTestCase):
    def of(self, *mechanisms: str, users: bool = False, **values: object) -> list[str]:
        settings = {"kind": "submission", "endpoint": ENDPOINT, **values}
        listener = Listener(**settings, auth_mechanisms=mechanisms)  # type: ignore[arg-type]
        account = f'{{"name": "ann", "certificates": ["{"ab" * 32}"]}}\n'
        accounts = self.write("users", account) if users else None
        checker = None if users else PLAIN_ONLY
        found = self.found(self.config(listeners=[listener], users=accounts, auth=checker))
        return [each for each in found if "no user can" in each]

    def test_mechanisms_that_the_checker_judges_are_no_problem(self) -> None:
        self.assertEqual(self.of(), [])
        self.assertEqual(self.of("PLAIN"), [])
        self.assertEqual(self.of("SCRAM-SHA-256", "LOGIN"), [])
        self.assertEqual(self.of("SCRAM-SHA-256", users=True), [])

    def test_a_list_that_the_checker_can_judge_nothing_of_is_a_warning(self) -> None:
        self.assertEqual(
            self.of("SCRAM-SHA-256", "SCRAM-SHA-1"),
            [
                f"{WARNING}, auth_mechanisms: no user can authenticate: none of SCRAM-SHA-256,"
                " SCRAM-SHA-1 can be used here; expected one of PLAIN, LOGIN"
            ],
        )
        (text,) = self.of("CRAM-MD5", "XOAUTH2", users=True)
        self.assertIn("none of CRAM-MD5, XOAUTH2 can be used here; expected one of SCRAM", text)

    def test_certificates_alone_are_a_warning_where_none_is_asked_for(self) -> None:
        asked = self.of("EXTERNAL", users=True, client_certificates="ask", **AUTHORITIES)
        self.assertEqual(asked, [])
        (text,) = self.of("EXTERNAL", users=True)
        self.assertIn("none of EXTERNAL can be used here", text)

    def test_channel_binding_alone_is_a_warning_on_a_listener_without_tls(self) -> None:
        self.assertEqual(self.of("SCRAM-SHA-256-PLUS", users=True), [])
        values = {"kind": "smtp", "auth": "any", "tls": "none"}
        (text,) = self.of("SCRAM-SHA-256-PLUS", users=True, **values)
        self.assertIn("none of SCRAM-SHA-256-PLUS can be used here", text)

    def test_a_listener_that_offers_no_auth_has_no_warning(self) -> None:
        self.assertEqual(self.of(kind="smtp"), [])

    def test_a_checker_of_other_credentials_is_a_warning(self) -> None:
        self.patch(type(PLAIN_ONLY.make()), "credentialInterfaces", ())
        self.assertEqual(
            self.of(),
            [
                f"{WARNING}: no user can authenticate: the checker takes no credentials that AUTH"
                " brings here; name accounts by --users FILE, or another checker by --auth"
            ],
        )


class Page(CheckTestCase):
    def test_files_of_logins_and_tokens_that_cannot_be_read_are_errors(self) -> None:
        page = WebSettings(users=self.write("users", "ann\n"), tokens=self.path("tokens"))
        users, tokens = self.found(self.config(web_page=page))
        self.assertTrue(users.startswith("error: DIR/users: line 1: not an object"), users)
        self.assertTrue(tokens.startswith("error: DIR/tokens: "), tokens)
