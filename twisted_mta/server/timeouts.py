"""How long a client may take on one listener, and how slow it may send."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Timeouts:
    """Limits of time for one connection, in seconds unless stated otherwise.

    Attributes:
        command: from our reply to the end of the next command. RFC 5321 §4.5.3.2.7 asks for 5
            minutes; Postfix and Exim allow as long.
        data: without a single octet, within the content of a message; RFC 5321 §4.5.3.2.5 has the
            client wait as long for each block to be taken.
        handshake: from 220 (or, under implicit TLS, the start of the connection) to the end of the
            TLS handshake.
        rate_grace: from the start of the content, before ``minimum_rate`` is enforced.
        minimum_rate: octets per second, averaged over the whole content; a modem of 9,600 bit/s
            sends twice as many.
        errors_unslowed: errors in a session (not seconds) before its replies are delayed; Postfix
            delays after 10.
        error_delay: by which each later reply to an error is delayed, as in Postfix; 0 disables the
            delay.
    """

    command: float = 300.0
    data: float = 180.0
    handshake: float = 30.0
    rate_grace: float = 180.0
    minimum_rate: float = 500.0
    errors_unslowed: int = 5
    error_delay: float = 1.0
