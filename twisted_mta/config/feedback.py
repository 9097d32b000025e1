"""Reports of complaints about our mail; ``[feedback]``."""

from __future__ import annotations

from attrs import frozen

from ..mail.address import AddressError, Mailbox
from . import readers as read
from .setting import ConfigError, setting, settings

_EXPECTED = "a mailbox such as fbl@example.net"


def _address(value: Mailbox | str | None) -> Mailbox | None:
    if value is None:
        return None
    try:
        mailbox = (
            value if isinstance(value, Mailbox) else Mailbox.parse(read.text(_EXPECTED)(value))
        )
    except AddressError as error:
        raise ValueError(f"{error}; expected {_EXPECTED}") from None
    if not mailbox.is_ascii:
        raise ValueError(f"characters outside ASCII; expected {_EXPECTED}")
    return mailbox


@frozen(kw_only=True, field_transformer=settings)
class FeedbackSettings:
    """Asks receivers for reports of complaints (RFC 9477), and counts them; ``[feedback]``.

    Raises:
        ConfigError: the address is missing, or is none.
    """

    address: Mailbox = setting(  # noqa: RUF009
        _address,
        "a mailbox of ours that gets reports of complaints; mail that is signed for its domain, or"
        " a parent of it, asks for them",
        default=None,
        default_text="required",
    )

    def __attrs_post_init__(self) -> None:
        if self.address is None:
            raise ConfigError('has no address; expected one such as address = "fbl@example.net"')
