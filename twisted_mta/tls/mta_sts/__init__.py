"""MTA-STS (RFC 8461): policies of domains, fetched, kept and obeyed, and those that we publish."""
