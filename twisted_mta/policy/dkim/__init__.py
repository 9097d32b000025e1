"""DKIM: signatures of messages (RFC 6376), made and verified."""
