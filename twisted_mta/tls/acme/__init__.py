"""Certificates from an authority by ACME (RFC 8555), renewed when it says (RFC 9773)."""
