"""DMARC (RFC 9989): whether mail comes from the domain in its From field."""
