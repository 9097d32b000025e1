"""SASL mechanisms (RFC 4422), client and server, pure."""
