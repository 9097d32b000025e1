"""Greylisting (RFC 6647): mail of an unknown network, sender and recipient is deferred."""
