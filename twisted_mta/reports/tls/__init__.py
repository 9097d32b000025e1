"""Reports on TLS to other hosts (RFC 8460): what they say, and where they go."""
