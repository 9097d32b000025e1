"""Aggregate reports of DMARC (RFC 9990): what they say, and where they go."""
