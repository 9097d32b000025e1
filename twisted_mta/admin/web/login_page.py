"""The page where an account logs in."""

from __future__ import annotations

from ..http import Response
from .markup import Flattenable, Tag, tags
from .page import STYLE_HASH, document

_POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)


def login_page(*, wrong: bool = False) -> Response:
    """Return the page.

    Args:
        wrong: whether a login has just failed.
    """
    problem: Flattenable = ""
    if wrong:
        problem = tags.p("The name or the password is wrong.", class_="failed", role="alert")
    page = document(
        "Log in",
        tags.header(tags.h1("Log in")),
        tags.main(
            problem,
            tags.form(
                _input("Name", "name", type="text", autocomplete="username"),
                _input("Password", "password", type="password", autocomplete="current-password"),
                tags.p(tags.button("Log in", type="submit")),
                method="post",
                action="/login",
            ),
        ),
    )
    return Response(
        body=page,
        content_type="text/html; charset=utf-8",
        code=403 if wrong else 200,
        headers={"Content-Security-Policy": _POLICY},
    )


def _input(label: str, name: str, **attributes: str) -> Tag:
    box = tags.input(id=name, name=name, required="required", **attributes)
    return tags.p(tags.label(label, for_=name), " ", box)
